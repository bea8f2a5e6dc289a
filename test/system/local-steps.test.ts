// Rounds of local steps with real processes: what they come to is what the same steps come to in one process without
// sockets (bench/local.ts), for any number of workers, when a worker and the coordinator are killed, and when any of the
// steps are computed again from the ledger.
import { afterEach, expect, test } from "vitest";
import { type InnerState, trainLocally } from "../../bench/local.ts";
import { openDataset } from "../../coordinator/data/dataset.ts";
import type { WireFormat } from "../../shared/arithmetic/codec.ts";
import { flagOf, modelOf } from "../../shared/config.ts";
import { resolveOptions } from "../../shared/resolve.ts";
import { openEngine } from "../../worker/engine/choose.ts";
import { atStep, coordinator, digestOf, killAll, ledgerOf, type Running, temporary, text, weft } from "./weft.ts";

afterEach(killAll);

const shared = { blockSize: 16, nLayer: 2, nHead: 2, nEmbd: 32, dropout: 0.1, warmupSteps: 5, batchSize: 16 } as const;
/** The last round is shorter. */
const steps = 203;

const about = { localSteps: 5, replicas: 4, shards: 4 };

const flagsOf = (innerState: InnerState, wire: WireFormat, localSteps = 5): string[] =>
  Object.entries({
    data: text,
    ...shared,
    ...about,
    localSteps,
    innerState,
    wire,
    steps,
    evalInterval: 0,
    checkpointInterval: 50,
    keepCheckpoints: 9,
  }).flatMap(([name, value]) => [flagOf(name), `${value}`]);

/** Validation loss of the same steps in this process. */
async function expected(innerState: InnerState, wire: WireFormat, localSteps = 5): Promise<number> {
  const { options } = resolveOptions({ flags: { data: text, ...shared, ...about, localSteps, innerState, steps } });
  const dataset = await openDataset({ source: text, blockSize: shared.blockSize });
  const model = modelOf(options, dataset.tokenizer.vocabSize);
  const { engine } = await openEngine("auto", { model, maxRows: 4, precision: "float32", threads: 1, device: "auto" });
  const outer = { learningRate: options.outerLearningRate, momentum: options.outerMomentum };
  const plan = { ...about, localSteps, wire, innerState, outer, late: false } as const;
  const loss = await trainLocally(engine, dataset, options, plan, () => {});
  await engine.dispose();
  return loss;
}

function expectEveryShardOnce(out: string, H = 5): void {
  const ledger = ledgerOf(out);
  const rounds = Array.from({ length: 200 / H }, (_, i) => [H * i + H, H]);
  expect(ledger.map(({ step, steps = 1 }) => [step, steps])).toEqual([...rounds, [203, 3]]);
}

const lossOf = ({ log }: Running) => log.find(({ msg }) => msg === "validation")!.valLossNats;

test("5 workers, 20 steps each round, and a replay", async () => {
  const out = temporary();
  const given = ["--out", out, "--port", "0", "--sample-tokens", "0", "--workers", "5", "--threads", "1"];
  const flags = [...flagsOf("fresh", "float32", 20), ...given];
  const run = weft(["train", ...flags]);
  expect(await run.ended, run.stderr()).toBe(0);
  expect(lossOf(run)).toBe(await expected("fresh", "float32", 20));
  expectEveryShardOnce(out, 20);
  const replay = weft(["audit", out, "--replay", "1-60"]);
  expect(await replay.ended, replay.stdout()).toBe(0);
  expect(replay.stdout()).toMatch(/replay from the beginning: 60 of 60 steps come out with the same digest/);
});

test("a worker and the coordinator killed in the middle, and a replay", async () => {
  const out = temporary();
  const flags = [...flagsOf("averaged", "int8"), "--out", out];
  const first = await coordinator(flags);
  const worker = (name: string, ...more: string[]) =>
    weft(["worker", "--coordinator", first.url, "--name", name, ...more]);
  // One would draw other windows than the run's; then one is sent its windows, and one draws them.
  const stranger = worker("stranger", "--data-at-worker", import.meta.filename);
  expect(await stranger.ended).toBe(1);
  expect(stranger.stderr()).toMatch(
    /--data-at-worker \S+: its fingerprint is .{12}, that of the run's data .{12}; leave/,
  );
  const [doomed, staying] = [worker("doomed"), worker("staying", "--data-at-worker", text)];
  await first.until(atStep(20));
  doomed.child.kill("SIGKILL");
  await first.until((line) => line.msg.startsWith("checkpoint "));
  first.child.kill("SIGKILL");
  await first.ended;
  const port = first.url.split(":").at(-1)!;
  const second = weft(["coordinator", ...flags, "--resume", "--no-stay", "--no-shared-memory", "--port", port]);
  expect(await second.ended, second.stderr()).toBe(0);
  expect(await staying.ended, staying.stderr()).toBe(0);
  expect(lossOf(second)).toBe(await expected("averaged", "int8"));
  expectEveryShardOnce(out);

  const replay = weft(["audit", out, "--replay", "101-142"]);
  expect(await replay.ended, replay.stdout()).toBe(0);
  expect(replay.stdout()).toMatch(/replay from step-000100: 45 of 45 steps come out with the same digest/);
});

test.each([
  ["averaged", "int8", ["--no-shared-memory"]],
  ["fresh", "float32", []],
] as const)(
  "%s, %s: SIGTERM in the middle of a replica: another goes on from its state, and nothing differs",
  async (innerState, wire, more) => {
    const H = 1200;
    const own = {
      localSteps: H,
      replicas: 2,
      shards: 4,
      batchSize: 8,
      steps: H,
      timeout: 2,
      evalInterval: 0,
      innerState,
      wire,
    };
    const flags = Object.entries({ data: text, ...shared, ...own }).flatMap(([name, value]) => [
      flagOf(name),
      `${value}`,
    ]);
    const runOf = async (names: readonly string[]) => {
      const out = temporary();
      const run = await coordinator([...flags, ...more, "--out", out]);
      const workers = names.map((name) => weft(["worker", "--coordinator", run.url, "--name", name, "--threads", "1"]));
      return { out, run, workers };
    };
    const calm = await runOf(["calm"]);
    const { out, run, workers } = await runOf(["doomed", "staying"]);
    const progress = async () => {
      const response = await fetch(`${run.url.replace("ws", "http")}/status`);
      const status = (await response.json()) as { workers: { id: string; leaseProgress: number | null }[] };
      return status.workers.find(({ id }) => id === "doomed")?.leaseProgress;
    };
    await expect.poll(progress, { timeout: 60_000 }).toBeGreaterThan(0);
    workers[0]!.child.kill("SIGTERM");
    expect(await workers[0]!.ended).toBe(0);
    const { msg } = await run.until(({ msg }) => msg.includes("took over"));
    const [, replica, step] = /^staying took over replica (\d) at step (\d+) of 1200 from doomed$/
      .exec(msg)!
      .map(Number);
    expect(await run.ended, run.stderr()).toBe(0);
    expect(await calm.run.ended, calm.run.stderr()).toBe(0);
    expect(digestOf(out)).toBe(digestOf(calm.out));
    const part = ledgerOf(out)[0]!.parts[replica!]!;
    expect(part).toMatchObject({ worker: "staying", leases: 1, begun: [{ worker: "doomed", steps: step }] });
    const audit = weft(["audit", out]);
    expect(await audit.ended, audit.stdout()).toBe(0);
  },
);
