// The promise of the project with real processes: the weights after the last step have the same bits for any number of
// workers, when workers die and join, and when the coordinator is stopped or killed and resumed.
import { afterEach, beforeAll, expect, test } from "vitest";
import { nativeAddon } from "../../shared/arithmetic/native.ts";
import { atStep, coordinator, digestOf, killAll, ledgerOf, temporary, text, together, weft } from "./weft.ts";

afterEach(killAll);

/** Many and short, so that a signal comes in the middle on the fastest engine as on the slowest. */
const steps = 400;
const tiny = [
  ...["--data", text, "--block-size", "16", "--n-layer", "2", "--n-head", "2", "--n-embd", "32"],
  ...["--dropout", "0.1", "--batch-size", "16", "--shards", "8", "--warmup-steps", "5"],
  ...["--steps", String(steps), "--eval-windows", "40", "--eval-interval", "0", "--checkpoint-interval", "100"],
];

const canShare = nativeAddon()?.createShared !== undefined;

/** Of all workers: scripts/ci-xla.sh asks for another engine than auto takes. */
const engine = process.env.WEFT_TEST_ENGINE?.split(" ") ?? [];

/** What one worker computes: the answer that every other run has to give. */
let expected = "";
beforeAll(async () => {
  expected = await digestWith(1);
});

async function digestWith(workers: number, ...flags: string[]): Promise<string> {
  const out = temporary();
  const run = await coordinator([...tiny, "--out", out, ...flags]);
  const names = Array.from({ length: workers }, (_, i) => `w${i}`);
  const worker = (name: string) => () => weft(["worker", "--coordinator", run.url, "--name", name, ...engine]);
  const all = await together(run, names.map(worker));
  expect(await run.ended, run.stderr()).toBe(0);
  for (const one of all) expect(await one.ended, one.stderr()).toBe(0);
  const sharing = run.log.filter(({ msg }) => / joined: .*, shared memory$/.test(msg)).length;
  expect(sharing).toBe(canShare && !flags.includes("--no-shared-memory") ? workers : 0);
  const helpers = new Set(ledgerOf(out).flatMap(({ parts }) => parts.map(({ worker }) => worker)));
  expect([...helpers].sort()).toEqual(names);
  expectEveryShardOnce(out);
  return digestOf(out);
}

function expectEveryShardOnce(out: string): void {
  const ledger = ledgerOf(out);
  expect(ledger.map((line) => line.step)).toEqual(Array.from({ length: steps }, (_, i) => i + 1));
  for (const { step, parts } of ledger) {
    const shards = parts.flatMap(({ shards }) => {
      const [first, last = first] = shards.split("-").map(Number);
      return Array.from({ length: last! - first! + 1 }, (_, i) => first! + i);
    });
    expect(shards, `shards of step ${step}`).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  }
}

test.each([2, 3])("%i workers", async (workers) => {
  expect(await digestWith(workers)).toBe(expected);
});

test("2 workers, everything over the wire", async () => {
  expect(await digestWith(2, "--no-shared-memory")).toBe(expected);
});

test("a worker killed, the other frozen until a third has done its work", async () => {
  const out = temporary();
  const run = await coordinator([...tiny, "--out", out]);
  const worker = (name: string) => weft(["worker", "--coordinator", run.url, "--name", name, ...engine]);
  const [first, second] = [worker("first"), worker("second")];
  for (const name of ["first", "second"]) await run.until((line) => line.msg.startsWith(`worker ${name} joined`));
  await run.until(atStep((ledgerOf(out).at(-1)?.step ?? 0) + 8));
  first.child.kill("SIGKILL");
  await run.until((line) => line.msg.includes(" gone: "));
  second.child.kill("SIGSTOP");
  const frozenAt = ledgerOf(out).at(-1)!.step;
  const third = worker("third");
  await run.until(atStep(frozenAt + 4));
  second.child.kill("SIGCONT");
  expect(await run.ended, run.stderr()).toBe(0);
  expect([await second.ended, await third.ended]).toEqual([0, 0]);
  expectEveryShardOnce(out);
  expect(digestOf(out)).toBe(expected);
  const helpers = new Set(ledgerOf(out).flatMap(({ parts }) => parts.map(({ worker }) => worker)));
  expect(helpers).toEqual(new Set(["first", "second", "third"]));
});

test("all workers gone for a while, then one comes back", async () => {
  const out = temporary();
  const run = await coordinator([...tiny, "--out", out]);
  const first = weft(["worker", "--coordinator", run.url, ...engine]);
  await run.until(atStep(8));
  first.child.kill("SIGKILL");
  await run.until((line) => line.msg.includes(" gone: "));
  weft(["worker", "--coordinator", run.url, ...engine]);
  expect(await run.ended, run.stderr()).toBe(0);
  expect(digestOf(out)).toBe(expected);
});

test("a coordinator killed in the middle and resumed while its worker waits", async () => {
  const out = temporary();
  const first = await coordinator([...tiny, "--out", out]);
  const port = first.url.split(":").at(-1)!;
  const worker = weft(["worker", "--coordinator", first.url, ...engine]);
  await first.until((line) => line.msg.startsWith("checkpoint ") && (line.step ?? 0) >= 100);
  first.child.kill("SIGKILL");
  await first.ended;
  const second = weft(["coordinator", ...tiny, "--out", out, "--resume", "--no-stay", "--port", port]);
  expect(await second.ended, second.stderr()).toBe(0);
  expect(await worker.ended, worker.stderr()).toBe(0);
  expect(second.log.find((line) => line.msg.startsWith("resuming"))?.step).toBeGreaterThanOrEqual(100);
  expectEveryShardOnce(out);
  expect(digestOf(out)).toBe(expected);
});

test("a run stopped by SIGTERM ends cleanly with a checkpoint, and resumes to the same bits", async () => {
  const out = temporary();
  const args = [...tiny, "--out", out, "--sample-tokens", "0", "--port", "0"];
  const first = weft(["train", ...args, ...engine]);
  await first.until(atStep(13));
  first.child.kill("SIGTERM");
  expect(await first.ended, first.stderr()).toBe(0);
  expect(first.stdout()).toMatch(/stopped after \d+ steps/);
  const stoppedAt = ledgerOf(out).at(-1)!.step;
  const second = weft(["train", ...args, "--resume", ...engine]);
  expect(await second.ended, second.stderr()).toBe(0);
  expect(second.log.find((line) => line.msg.startsWith("resuming"))?.step).toBe(stoppedAt);
  expectEveryShardOnce(out);
  expect(digestOf(out)).toBe(expected);
});

test("a worker stopped by SIGTERM hands back what it holds and exits with 0", async () => {
  const out = temporary();
  const run = await coordinator([...tiny, "--out", out]);
  const workers = ["a", "b"].map((name) => weft(["worker", "--coordinator", run.url, "--name", name, ...engine]));
  await run.until((line) => line.msg.startsWith("worker a joined"));
  workers[0]!.child.kill("SIGTERM");
  expect(await workers[0]!.ended, workers[0]!.stderr()).toBe(0);
  expect(await run.ended, run.stderr()).toBe(0);
  expect(digestOf(out)).toBe(expected);
});
