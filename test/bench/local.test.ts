// The trainings behind the table of losses: their limits are known, and their bits depend on nothing but the plan.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type LocalPlan, trainLocally, trainSynchronously } from "../../bench/local.ts";
import { type Dataset, openDataset } from "../../coordinator/data/dataset.ts";
import { type WireFormat, wireFormats } from "../../shared/arithmetic/codec.ts";
import { modelOf } from "../../shared/config.ts";
import { resolveOptions } from "../../shared/resolve.ts";
import { openEngine } from "../../worker/engine/choose.ts";
import type { Engine } from "../../worker/engine/contract.ts";

const options = resolveOptions({
  flags: {
    blockSize: 8,
    nLayer: 1,
    nHead: 2,
    nEmbd: 16,
    batchSize: 8,
    shards: 4,
    steps: 24,
    learningRate: 1e-2,
    warmupSteps: 2,
    seed: 5,
  },
}).options;
let folder: string;
let dataset: Dataset;
const engines: Engine[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "weft-local-"));
  const text = "the quick brown fox jumps over the lazy dog, and the dog does not mind. ";
  await writeFile(join(folder, "text.txt"), text.repeat(30));
  dataset = await openDataset({ source: join(folder, "text.txt"), blockSize: options.blockSize });
});
afterAll(async () => {
  for (const engine of engines) await engine.dispose();
  await dataset.close();
  await rm(folder, { recursive: true });
});

async function engine(threads = 1): Promise<Engine> {
  const model = modelOf(options, dataset.tokenizer.vocabSize);
  const opened = await openEngine("auto", { model, maxRows: 8, precision: "float32", threads, device: "auto" });
  engines.push(opened.engine);
  return opened.engine;
}

const plan: LocalPlan = {
  localSteps: 4,
  replicas: 4,
  wire: "float32",
  innerState: "averaged",
  outer: { learningRate: 0.7, momentum: 0.9 },
  late: false,
};
const quiet = (): void => {};

test("one replica that exchanges after every step, without outer momentum, is synchronous training", async () => {
  const e = await engine();
  const synchronous = await trainSynchronously(e, dataset, options, "float32", quiet);
  const outer = { learningRate: 1, momentum: 0 };
  const local = await trainLocally(e, dataset, options, { ...plan, localSteps: 1, replicas: 1, outer }, quiet);
  expect(Math.abs(local - synchronous)).toBeLessThan(1e-4);
  expect(synchronous).toBeLessThan(2.9);
});

test("every wire learns, and gives the same loss on one thread and on three", async () => {
  const start = Math.log(dataset.tokenizer.vocabSize);
  for (const train of [
    (e: Engine, wire: WireFormat) => trainLocally(e, dataset, options, { ...plan, wire }, quiet),
    (e: Engine, wire: WireFormat) => trainSynchronously(e, dataset, options, wire, quiet),
  ]) {
    const losses = new Set<number>();
    for (const wire of wireFormats) {
      const loss = await train(await engine(1), wire);
      expect(loss, wire).toBeLessThan(start - 0.2);
      expect(await train(await engine(3), wire), wire).toBe(loss);
      losses.add(loss);
    }
    expect(losses.size).toBe(wireFormats.length);
  }
});

test("a round late: the first round is the same, the second is not", async () => {
  const e = await engine();
  const after = (steps: number, late: boolean) =>
    trainLocally(e, dataset, { ...options, steps }, { ...plan, outer: { learningRate: 1, momentum: 0 }, late }, quiet);
  expect(await after(4, true)).toBe(await after(4, false));
  expect(await after(8, true)).not.toBe(await after(8, false));
});
