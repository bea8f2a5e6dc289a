// The first training of the lecture: a bigram on tiny Shakespeare, batch 32, block 8, PyTorch's start and batches,
// through the engine and the optimizer of real runs.

import { afterAll, beforeAll, expect } from "vitest";
import { type Dataset, openDataset } from "../../coordinator/data/dataset.ts";
import { AdamW } from "../../coordinator/optimizer/adamw.ts";
import { scalarOps } from "../../shared/arithmetic/vector.ts";
import { layoutOf } from "../../shared/family/layout.ts";
import { openEngine } from "../../worker/engine/choose.ts";
import type { Engine } from "../../worker/engine/contract.ts";
import { native } from "../../worker/engine/native/engine.ts";
import { shardGradient } from "../../worker/engine/shards.ts";
import { tfjs } from "../../worker/engine/tfjs/kind.ts";
import { shakespearePath, testWithShakespeare } from "../text.ts";
import { TorchRandom } from "../torch-random.ts";
import { bigram } from "./bigram.ts";

const model = bigram(65);
const layout = layoutOf(model);
const rows = 32;
const evalRows = 512;
/** torch.optim.AdamW's defaults. */
const adamw = { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.01, gradientClip: 0 };

let engine: Engine;
beforeAll(async () => {
  // Native where it is built, else tfjs, which on this thread saves the messages of 13,000 steps.
  const options = { model, maxRows: evalRows, precision: "float32", threads: 1, device: "cpu" } as const;
  ({ engine } = await openEngine("auto", options, [native, tfjs]));
});
afterAll(() => engine.dispose());

/** Train from seed 1337. @returns mean loss of the last 100 batches, and the weights at the end */
async function train(data: Dataset, steps: number, learningRate: number) {
  const random = new TorchRandom(1337);
  const weights = random.randn(layout.size);
  const optimizer = new AdamW(layout, adamw, scalarOps);
  const gradient = new Float32Array(layout.size);
  let last100 = 0;
  for (let step = 0; step < steps; step++) {
    const starts = random.randint(0, data.train.length - model.blockSize, rows);
    const { tokens, targets } = await data.windows("train", starts);
    await engine.setWeights(weights);
    const loss = await shardGradient(engine, tokens, targets, rows, { seed: 1337, step, shard: 0 }, gradient);
    if (step >= steps - 100) last100 += loss / 100;
    optimizer.apply(weights, gradient, { units: 1, learningRate, count: step + 1 });
  }
  return { weights, last100 };
}

/** Mean loss over all consecutive windows of the validation split. */
async function validationLoss(data: Dataset, weights: Float32Array): Promise<number> {
  await engine.setWeights(weights);
  const starts = data.consecutive("val");
  let sum = 0;
  for (let i = 0; i < starts.length; i += evalRows) {
    const part = starts.subarray(i, i + evalRows);
    const { tokens, targets } = await data.windows("val", part);
    for (const loss of await engine.losses(tokens, targets, part.length)) sum += loss;
  }
  return sum / starts.length;
}

testWithShakespeare("3,000 steps at 1e-2: validation loss from about 4.7 to at most 2.52 (lecture: 2.49)", async () => {
  const data = await openDataset({ source: shakespearePath, blockSize: model.blockSize });
  const before = await validationLoss(data, new TorchRandom(1337).randn(layout.size));
  expect(before).toBeGreaterThan(4.65);
  expect(before).toBeLessThan(4.8);
  const { weights } = await train(data, 3000, 1e-2);
  const after = await validationLoss(data, weights);
  console.log(`bigram at 1e-2: validation loss ${before.toFixed(4)} -> ${after.toFixed(4)} after 3,000 steps`);
  expect(after).toBeLessThanOrEqual(2.52);
});

testWithShakespeare("10,000 steps at 1e-3: at most 2.6 on training batches", async () => {
  const data = await openDataset({ source: shakespearePath, blockSize: model.blockSize });
  const { last100 } = await train(data, 10_000, 1e-3);
  console.log(`bigram at 1e-3: mean loss ${last100.toFixed(4)} over the last 100 of 10,000 batches`);
  expect(last100).toBeLessThanOrEqual(2.6);
});
