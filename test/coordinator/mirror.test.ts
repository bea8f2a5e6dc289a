// What a run keeps in its store, when the disk fails or the run goes back.
import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import pino from "pino";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { Archive } from "../../coordinator/archive.ts";
import { readQuarantine, writeQuarantine } from "../../coordinator/crew/quarantine.ts";
import { Journal } from "../../coordinator/journal.ts";
import { Ledger, ledgerStart } from "../../coordinator/ledger.ts";
import { Mirror } from "../../coordinator/mirror.ts";
import { readCheckpoint, writeCheckpoint } from "../../shared/checkpoint/checkpoint.ts";
import { checkpointSteps, forgetAfter } from "../../shared/checkpoint/rundir.ts";
import type { Clock } from "../../shared/clock.ts";
import { modelOf } from "../../shared/config.ts";
import { initialWeights } from "../../shared/family/init.ts";
import { layoutOf } from "../../shared/family/layout.ts";
import { mergeOptions } from "../../shared/resolve.ts";
import { CharTokenizer } from "../../shared/tokenizers/char.ts";
import { temporary } from "../system/weft.ts";
import { bucket, type MemoryStore, startMemoryStore } from "./object-store.ts";

const model = modelOf(mergeOptions({ flags: { family: "bigram", blockSize: 4 } }).options, 2);
const layout = layoutOf(model);
const tokenizer = CharTokenizer.of("ab").toFiles();

let store: MemoryStore;
let runs = 0;
/** Of the run of this test: its folder, its address, what its log says. */
let [out, address, said] = ["", "", [] as string[]];
const log = pino({ level: "info" }, { write: (line) => void said.push(JSON.parse(line).msg) });

beforeAll(async () => {
  store = await startMemoryStore();
});
afterAll(() => store[Symbol.asyncDispose]());
beforeEach(async () => {
  out = temporary();
  address = `s3://${bucket}/run${++runs}`;
  said = [];
  store.hears = () => true;
});
afterEach(() => rm(out, { recursive: true }));

/** A checkpoint of a run whose ledger has a line for each step. */
async function save(step: number, seed = 1): Promise<void> {
  const ledger = await Ledger.open(out, ledgerStart);
  const parts = [{ shards: "0", worker: "a", leases: 1 }];
  const line = { parts, lossNats: 1, gradientNorm: 1, learningRate: 1, weights: "" };
  for (let i = 1; i <= step; i++) await ledger.append({ ...line, step: i });
  await ledger.close();
  const state = {
    ...{ step, seed, options: {}, arithmetic: "a", weightsDigest: "", tokensSeen: 0 },
    ...{ ledger: ledger.position, dataset: { name: "d", fingerprint: "f" } },
  };
  const weights = initialWeights(layout, seed);
  await writeCheckpoint(out, { model, weights, optimizer: { m: weights }, tokenizer, state });
}

/** Keys of this run in its store. */
const keys = (): string[] => {
  const folder = `run${runs}/`;
  return [...store.objects.keys()].filter((key) => key.startsWith(folder)).map((key) => key.slice(folder.length));
};
/** Steps that the store has whole. */
const stored = (): number[] =>
  keys()
    .flatMap((key) => /^step-(\d+)\/manifest.json$/.exec(key)?.[1] ?? [])
    .map(Number)
    .sort((a, b) => a - b);
/** Ends a pause between two tries. */
let tryAgain = (): void => {};
const wait = () =>
  new Promise<void>((resolve) => {
    tryAgain = resolve;
  });
const open = (resume = false): Promise<Mirror> => Mirror.open({ address, runDir: out, log, wait }, resume);

test("a disk that fails while a checkpoint is sent is said in a line, and asked again", async () => {
  await save(2);
  const mirror = await open();
  await rename(out, `${out}-away`);
  await writeFile(out, "");
  mirror.changed();
  await expect.poll(() => said.join("\n")).toMatch(/cannot be read \(ENOTDIR\).*; trying again in 1 s/);
  await rm(out);
  await rename(`${out}-away`, out);
  tryAgain();
  await expect.poll(stored).toEqual([2]);

  const ledger = join(out, "ledger.jsonl");
  await save(4);
  const whole = await readFile(ledger);
  await rm(ledger);
  await mkdir(ledger);
  mirror.changed();
  await expect.poll(() => said.join("\n")).toMatch(/ledger\.jsonl cannot be read \(EISDIR\): .*; trying again in 1 s/);
  await rm(ledger, { recursive: true });
  await writeFile(ledger, whole);
  tryAgain();
  await mirror.settled();
  expect(stored()).toEqual([2, 4]);
  expect(store.objects.get(`run${runs}/step-000004/ledger.jsonl`)).toEqual(whole);
});

const liar = { names: ["liar"], address: null, why: "lied", step: 6, at: "2026-01-01T00:00:00.000Z" };
const weightsOf = (step: number) => store.objects.get(`run${runs}/step-00000${step}/model.safetensors`);

/** A run of three checkpoints, on the disk and in the store. */
async function threeCheckpoints(): Promise<Mirror> {
  const mirror = await open();
  for (const step of [2, 4, 6]) {
    await save(step);
    mirror.changed();
    await expect.poll(stored).toContain(step);
  }
  return mirror;
}

test("the run went back: the store forgets what came after, and keeps out whom the run keeps out", async () => {
  const mirror = await threeCheckpoints();
  const tainted = weightsOf(4);
  const requests: string[] = [];
  store.hears = (request) => requests.push(request.replace(`run${runs}/`, ""));
  await writeQuarantine(out, [liar]);
  const clock = { now: () => 0 } as Clock;
  await new Archive(out, 1, new Journal(log), clock, undefined, mirror).forgetAfter(2);
  await expect.poll(() => keys().filter((key) => /step-00000[46]/.test(key))).toEqual([]);
  expect(stored()).toEqual([2]);
  // In this order: whoever goes on from the store meanwhile knows the liar, or finds a whole checkpoint, or none.
  const at = (request: string): number => requests.indexOf(request);
  expect(at("PUT quarantine.json")).toBeGreaterThanOrEqual(0);
  for (const step of [4, 6]) {
    expect(at(`DELETE step-00000${step}/manifest.json`)).toBeGreaterThan(at("PUT quarantine.json"));
    expect(at(`DELETE step-00000${step}/model.safetensors`)).toBeGreaterThan(
      at(`DELETE step-00000${step}/manifest.json`),
    );
  }

  // What is made anew is sent, and stays.
  await save(4, 2);
  mirror.changed();
  await mirror.settled();
  expect(stored()).toEqual([2, 4]);
  expect(weightsOf(4)).not.toEqual(tainted);

  await rm(out, { recursive: true });
  await mkdir(out);
  await (await open(true)).settled();
  expect(await checkpointSteps(out)).toEqual([4]);
  expect(await readQuarantine(out, [])).toEqual([liar]);
});

test("a store that was away when the run went back hears of it when the run goes on", async () => {
  await threeCheckpoints();
  store.hears = (request) => !request.startsWith("DELETE");
  const { state } = await readCheckpoint(join(out, "step-000006"), { optimizer: false });
  const ledger = await Ledger.open(out, state.ledger);
  await ledger.undo({ from: 6, to: 2, weights: "", workers: ["liar"], why: "lied" });
  await ledger.close();
  await forgetAfter(out, 2);
  expect(stored()).toEqual([2, 4, 6]);
  store.hears = () => true;
  await (await open(true)).settled();
  expect(stored()).toEqual([2]);
  expect(await checkpointSteps(out)).toEqual([2]);
});

test("whom either list keeps out is kept out; a new run at an address that holds nothing else keeps out nobody", async () => {
  await save(2);
  const here = { ...liar, names: ["here"] };
  await writeQuarantine(out, [here]);
  store.objects.set(`run${runs}/quarantine.json`, Buffer.from(JSON.stringify([liar, here])));
  await (await open(true)).settled();
  expect(await readQuarantine(out, [])).toEqual([here, liar]);

  await rm(join(out, "quarantine.json"));
  await (await open()).settled();
  expect(keys()).not.toContain("quarantine.json");
});
