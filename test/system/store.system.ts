// Checkpoints in a real object store (versitygw): what is sent twice, what survives a kill, what a slow, failing or
// locked store does to a run. scripts/ci-s3.sh builds the store and runs this file.
import { createHash, randomFillSync } from "node:crypto";
import { existsSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { Claim } from "../../coordinator/claim.ts";
import { Interrupted, messageOf } from "../../shared/errors.ts";
import { ObjectStore } from "../../shared/store/s3.ts";
import { bucket, type Store, startStore } from "./store.ts";
import { coordinator, digestOf, killAll, ledgerOf, temporary, text, weft } from "./weft.ts";

let store: Store;
/** Weights of 3 MB, moments of 6: with parts of 8 MiB one checkpoint has several files and no parts. */
const shape = ["--data", text, "--block-size", "16", "--n-layer", "4", "--n-head", "4", "--n-embd", "128"];
const steps = 60;
const tiny = [
  ...[...shape, "--batch-size", "8", "--shards", "4", "--warmup-steps", "5", "--steps", String(steps)],
  ...["--eval-windows", "8", "--eval-interval", "20", "--checkpoint-interval", "10", "--keep-checkpoints", "2"],
];
let expected = "";

beforeAll(async () => {
  store = await startStore();
  Object.assign(process.env, store.environment);
  const out = temporary();
  const run = weft(["train", ...tiny, "--out", out, "--port", "0", "--sample-tokens", "0"]);
  expect(await run.ended, run.stderr()).toBe(0);
  expected = digestOf(out);
});
afterAll(() => store[Symbol.asyncDispose]());
beforeEach(() => {
  Object.assign(store.wire, { bytesPerSec: 0, cutAfter: -1, refuseWith: undefined, sent: 0, received: 0 });
});
afterEach(killAll);

const sha256 = (path: string): string => createHash("sha256").update(readFileSync(path)).digest("hex");
const train = (address: string, out: string, ...more: string[]) =>
  weft(["train", ...tiny, "--out", out, "--port", "0", "--sample-tokens", "0", "--checkpoint-to", address, ...more]);
/** Steps that the store has whole. */
const stored = (prefix: string): string[] =>
  readdirSync(join(store.folder, prefix))
    .filter((name) => existsSync(join(store.folder, prefix, name, "manifest.json")))
    .sort();

function bigFile(megabytes: number): string {
  const path = join(temporary(), "big");
  writeFileSync(path, randomFillSync(Buffer.alloc(megabytes * 2 ** 20)));
  return path;
}

test("an upload that is cut off goes on with the parts that are missing, and a whole one is not sent again", async () => {
  const path = bigFile(60);
  const objects = await ObjectStore.open(`s3://${bucket}/parts`);
  store.wire.cutAfter = 30 * 2 ** 20;
  const before = store.wire.sent;
  let sent = 0;
  const upload = () => objects.upload("big", path, 60 * 2 ** 20, { onSent: (bytes) => (sent += bytes) });
  // The client tries each part three times; with the wire dead after the cut all of them fail.
  const cut = upload();
  while (store.wire.cutAfter >= 0) await sleep(5);
  store.wire.refuseWith = "HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
  await expect(cut).rejects.toThrow(Interrupted);
  expect(sent).toBeGreaterThanOrEqual(8 * 2 ** 20);
  expect(existsSync(join(store.folder, "parts/big"))).toBe(false);
  store.wire.refuseWith = undefined;
  const first = sent;
  await upload();
  expect(sent).toBe(60 * 2 ** 20); // no part twice
  expect(first).toBeLessThan(sent);
  expect(sha256(join(store.folder, "parts/big"))).toBe(sha256(path));
  const after = store.wire.sent;
  await upload();
  expect(store.wire.sent - after).toBeLessThan(100_000);
  expect(after - before).toBeLessThan(100 * 2 ** 20);
});

test("parts of another file of the same name are not taken for this one's", async () => {
  const [old, path] = [bigFile(50), bigFile(50)];
  const objects = await ObjectStore.open(`s3://${bucket}/other`);
  const leave = new AbortController();
  const upload = objects.upload("big", old, 50 * 2 ** 20, { signal: leave.signal, onSent: () => leave.abort() });
  await expect(upload).rejects.toThrow("aborted");
  await objects.upload("big", path, 50 * 2 ** 20);
  expect(sha256(join(store.folder, "other/big"))).toBe(sha256(path));
});

test("a run's checkpoints are in the store, pruned as on the disk; pull, sample and eval take them from there", async () => {
  const [out, address] = [temporary(), `s3://${bucket}/round/trip`];
  const run = train(address, out);
  expect(await run.ended, run.stderr()).toBe(0);
  expect(digestOf(out)).toBe(expected);
  const kept = stored("round/trip");
  expect(kept.at(-1)).toBe("step-000060");
  expect(kept.length).toBeLessThanOrEqual(4);
  for (const name of readdirSync(join(out, "step-000060")))
    expect(sha256(join(store.folder, "round/trip/step-000060", name)), name).toBe(
      sha256(join(out, "step-000060", name)),
    );

  const pulled = temporary();
  const pull = weft(["pull", "--from", address, "--step", "final", "--out", pulled]);
  expect(await pull.ended, pull.stderr()).toBe(0);
  expect(sha256(join(pulled, "step-000060/manifest.json"))).toBe(sha256(join(out, "step-000060/manifest.json")));
  for (const path of [address, `${address}/step-000060`]) {
    const sample = weft(["sample", "--checkpoint", path, "--prompt", "const", "--tokens", "8"]);
    expect(await sample.ended, sample.stderr()).toBe(0);
    expect(sample.stdout()).toMatch(/^const/);
    expect(sample.stderr()).toContain(`checkpoint ${address}/step-0000`);
  }
  const evaluated = weft(["eval", "--checkpoint", address, "--data", text]);
  expect(await evaluated.ended, evaluated.stderr()).toBe(0);

  const again = train(address, temporary());
  expect(await again.ended).toBe(1);
  expect(again.stderr()).toContain(`${address} already holds a run, up to step 60; go on with --resume`);
});

test("killed in the middle of an upload, its disk lost: --resume from the store ends in the same bits", async () => {
  const [out, address] = [temporary(), `s3://${bucket}/killed`];
  const first = train(address, out);
  await first.until((line) => line.msg.startsWith(`checkpoint ${address}/`));
  store.wire.bytesPerSec = 2 ** 20; // so that the next upload is still under way when the kill comes
  const { step } = await first.until((line) => line.msg.startsWith(`checkpoint ${out}`) && line.step! >= 20);
  await sleep(500);
  first.child.kill("SIGKILL");
  await first.ended;
  killAll();
  expect(stored("killed")).not.toContain(`step-0000${step}`);
  rmSync(out, { recursive: true });
  store.wire.bytesPerSec = 0;
  const second = train(address, out, "--resume");
  expect(await second.ended, second.stderr()).toBe(0);
  expect(second.log.some(({ msg }) => msg.startsWith(`fetched ${address}/step-`))).toBe(true);
  const from = second.log.find(({ msg }) => msg.startsWith("resuming from"))!.step!;
  expect(from).toBeGreaterThan(0);
  expect(from).toBeLessThan(steps);
  expect(ledgerOf(out).map((line) => line.step)).toEqual(Array.from({ length: steps }, (_, i) => i + 1));
  expect(digestOf(out)).toBe(expected);
  // The page's curves came along.
  const { train: curve } = JSON.parse(readFileSync(join(out, "history.json"), "utf8"));
  expect(curve.step).toEqual(Array.from({ length: steps }, (_, i) => i + 1));
  expect(readdirSync(join(store.folder, "killed"))).not.toContain("owner.json");
});

test("two runs at one address: the second waits, and is told whose it is; a silent one loses it, and hears of that", async () => {
  const address = `s3://${bucket}/shared`;
  const objects = await ObjectStore.open(address);
  let beat = (): void => {};
  const pause = () =>
    new Promise<void>((resolve) => {
      beat = resolve;
    });
  const lines: string[] = [];
  const say = (line: string) => lines.push(line);
  const first = await Claim.take(objects, "/runs/a", { say, pause });
  const path = join(store.folder, "shared/owner.json");
  const lastSign = (secondsAgo: number) =>
    utimesSync(path, Date.now() / 1000 - secondsAgo, Date.now() / 1000 - secondsAgo);
  let looks = 0;
  // It lives: between the second look and the third it is heard of.
  const heardOf = async () => {
    if (++looks === 2) lastSign(-1);
  };
  const waiting = Claim.take(objects, "/runs/b", { say, pause: heardOf });
  await expect(waiting).rejects.toThrow(
    /shared belongs to the run in \/runs\/a on \S+ \(process \d+\), which lives; stop/,
  );
  expect(looks).toBe(2);
  expect(lines).toEqual([expect.stringMatching(/shared belongs to .*, heard of \d+ s ago; it is taken over when/)]);
  // The same run again, after a kill.
  const again = await Claim.take(objects, "/runs/a", { say, pause });
  first.check();
  // It is gone: nothing comes, and at last it was silent for long enough.
  lastSign(90);
  const silent = async (_: AbortSignal, isLooking?: boolean) => {
    if (!isLooking) await new Promise(() => {});
    if (++looks === 4) lastSign(200);
  };
  const third = await Claim.take(objects, "/runs/b", { say, pause: silent });
  expect(looks).toBe(4);
  // Who is asked to stop while it waits stops.
  const run = ["--out", temporary(), "--port", "0", "--checkpoint-to", address, "--resume-or-start"];
  const second = weft(["coordinator", ...tiny, ...run]);
  await second.until(({ msg }) => msg.includes("belongs to the run in /runs/b"));
  second.child.kill("SIGTERM");
  expect(await second.ended, second.stderr()).toBe(0);
  expect(second.log.at(-1)!.msg).toMatch(/^SIGTERM before the first step: .*stopped while it waited for its address$/);
  beat();
  const said = (): string => {
    try {
      again.check();
    } catch (error) {
      return messageOf(error);
    }
    return "";
  };
  await expect.poll(said).toMatch(/shared was taken over by the run in \/runs\/b on /);
  await again.release();
  expect(existsSync(path)).toBe(true);
  await third.release();
  expect(existsSync(path)).toBe(false);
});

test("killed in the middle of an upload, its disk still there: the rest is sent, training goes on from the disk", async () => {
  const [out, address] = [temporary(), `s3://${bucket}/killed-here`];
  store.wire.bytesPerSec = 2 ** 20;
  const first = train(address, out);
  await first.until((line) => line.msg.startsWith(`checkpoint ${out}`) && line.step! >= 20);
  first.child.kill("SIGKILL");
  await first.ended;
  store.wire.bytesPerSec = 0;
  const second = train(address, out, "--resume");
  expect(await second.ended, second.stderr()).toBe(0);
  expect(second.log.find(({ msg }) => msg.startsWith("resuming from"))!.step).toBeGreaterThanOrEqual(20);
  expect(stored("killed-here")).toContain("step-000060");
  expect(digestOf(out)).toBe(expected);
});

test("a store that fails for a while does not hold training up, and gets the last checkpoint", async () => {
  const [out, address] = [temporary(), `s3://${bucket}/failing`];
  const run = await coordinator([...tiny, "--out", out, "--checkpoint-to", address]);
  store.wire.refuseWith = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
  weft(["worker", "--coordinator", run.url]);
  await run.until((line) => line.step === steps && line.msg.startsWith(`checkpoint ${out}`));
  await run.until((line) => /trying again in/.test(line.msg));
  store.wire.refuseWith = undefined;
  expect(await run.ended, run.stderr()).toBe(0);
  expect(stored("failing")).toContain("step-000060");
  expect(digestOf(out)).toBe(expected);
});

test("damaged in the store: refused on the way down, an older whole one is taken", async () => {
  const [out, address] = [temporary(), `s3://${bucket}/damaged`];
  const run = train(address, out);
  expect(await run.ended, run.stderr()).toBe(0);
  const file = join(store.folder, "damaged/step-000060/model.safetensors");
  const bytes = readFileSync(file);
  bytes[bytes.length - 1]! ^= 1;
  writeFileSync(file, bytes);
  const pull = weft(["pull", "--from", address, "--out", temporary()]);
  expect(await pull.ended).toBe(1);
  expect(pull.stderr()).toMatch(/step-000060\/model.safetensors: its SHA-256 is .*, the manifest says/);
  const empty = temporary();
  const second = train(address, empty, "--resume");
  expect(await second.ended, second.stderr()).toBe(0);
  expect(second.log.find(({ msg }) => msg.startsWith("resuming from"))!.step).toBeLessThan(60);
  expect(digestOf(empty)).toBe(expected);
  // What was damaged has been replaced.
  expect(sha256(file)).toBe(sha256(join(empty, "step-000060/model.safetensors")));
});

test("token shards in the store train as those on the disk do, over a wire that breaks", async () => {
  const tokens = join(temporary(), "tokens");
  const prepared = weft(["data", "prepare", text, "--out", tokens]);
  expect(await prepared.ended, prepared.stderr()).toBe(0);
  const objects = await ObjectStore.open(`s3://${bucket}/tokens`);
  for (const name of readdirSync(tokens)) await objects.put(name, readFileSync(join(tokens, name)));
  const out = temporary();
  const words = tiny.map((word) => (word === text ? `s3://${bucket}/tokens` : word));
  const run = await coordinator([...words, "--out", out]);
  weft(["worker", "--coordinator", run.url]);
  await run.until((line) => line.step === 10);
  store.wire.cutAfter = 2000;
  expect(await run.ended, run.stderr()).toBe(0);
  expect(store.wire.cutAfter).toBeLessThan(0);
  expect(digestOf(out)).toBe(expected);
});

test("wrong keys, no bucket, nobody there and no address: one sentence each, before training", async () => {
  const start = async (address: string, environment: Record<string, string>) => {
    const words = ["train", ...tiny, "--out", temporary(), "--port", "0", "--checkpoint-to", address];
    const run = weft(words, environment);
    expect(await run.ended, run.stderr()).toBe(1);
    expect(run.stderr().trim().split("\n").length).toBeLessThanOrEqual(2);
    return run.stderr();
  };
  const there = `s3://${bucket}/locked`;
  expect(await start(there, { AWS_SECRET_ACCESS_KEY: "wrong" })).toMatch(
    /SignatureDoesNotMatch.*check AWS_ACCESS_KEY_ID/,
  );
  expect(await start(there, { AWS_ACCESS_KEY_ID: "nobody" })).toMatch(/access key.*check AWS_ACCESS_KEY_ID/);
  expect(await start("s3://nowhere/a", {})).toMatch(/there is no bucket nowhere/);
  expect(await start(there, { AWS_ENDPOINT_URL: "http://127.0.0.1:9" })).toMatch(/ECONNREFUSED/);
  expect(await start("s3://", {})).toMatch(/not the address of an object store/);
  expect(await start("gs://a/b", {})).toMatch(/must be an address such as s3:/);
});
