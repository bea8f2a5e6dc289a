// What a run keeps in its store, when the disk fails or the run goes back.
import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import pino from "pino";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { Ledger, ledgerStart } from "../../coordinator/ledger.ts";
import { Mirror } from "../../coordinator/mirror.ts";
import { writeCheckpoint } from "../../shared/checkpoint/checkpoint.ts";
import { modelOf, optionTable } from "../../shared/config.ts";
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
const open = (resume = false): Promise<Mirror> =>
  Mirror.open({ address, runDir: out, keep: optionTable.keepCheckpoints.default, log, wait }, resume);

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
