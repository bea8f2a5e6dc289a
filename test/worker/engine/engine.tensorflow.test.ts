// The contract suite on TensorFlow itself, and what it cannot see: memory, bf16, and a GPU that is not there. All of it
// needs `weft install tensorflow`; scripts/ci-tensorflow.sh runs it from a clean cache.

import * as tf from "@tensorflow/tfjs-core";
import { describe, expect, test } from "vitest";
import { EngineError } from "../../../shared/errors.ts";
import { initialWeights } from "../../../shared/family/init.ts";
import { layoutOf } from "../../../shared/family/layout.ts";
import type { ModelConfig } from "../../../shared/model.ts";
import type { EngineOptions } from "../../../worker/engine/contract.ts";
import { shardGradient } from "../../../worker/engine/shards.ts";
import { tfjs } from "../../../worker/engine/tfjs/kind.ts";
import type { NodeBackend } from "../../../worker/engine/tfjs/tensorflow-load.ts";
import { findAddon } from "../../../worker/install/build.ts";
import { engineContract } from "./engine.contract.ts";
import { expectNoGrowth } from "./growth.ts";

const addon = findAddon(false);

test("TensorFlow is there where it must be", () => {
  if (process.env.WEFT_REQUIRE_TENSORFLOW) expect(addon, 'run "weft install tensorflow"').toBeDefined();
});

const model: ModelConfig = {
  family: "gpt2",
  vocabSize: 65,
  blockSize: 32,
  nLayer: 2,
  nHead: 4,
  nEmbd: 64,
  bias: true,
  dropout: 0.1,
  activation: "gelu",
  tiedHead: true,
  layerNormEps: 1e-5,
};
const options: EngineOptions = {
  ...{ model, maxRows: 4, precision: "float32", threads: 1, device: "auto", backend: "tensorflow" },
};
const { size } = layoutOf(model);
const weights = initialWeights(layoutOf(model), 1);
const tokens = Int32Array.from({ length: 4 * 32 }, (_, i) => (i * i + 3 * i) % 65);
const targets = Int32Array.from(tokens, (token) => (token + 1) % 65);

async function gradient(change: Partial<EngineOptions>): Promise<{ arithmetic: string; out: Float32Array }> {
  const engine = await tfjs.create({ ...options, ...change });
  await engine.setWeights(weights);
  const out = new Float32Array(size);
  await shardGradient(engine, tokens, targets, 4, { seed: 1, step: 0, shard: 0 }, out);
  await engine.dispose();
  return { arithmetic: engine.arithmetic, out };
}

describe.skipIf(!addon)('TensorFlow (skipped where "weft install tensorflow" has not run)', () => {
  engineContract("tfjs tensorflow", (asked) => tfjs.create({ ...asked, backend: "tensorflow" }));

  test("500 steps leave no tensor and no memory behind", async () => {
    const small = { ...model, blockSize: 8, nLayer: 1, nHead: 2, nEmbd: 16 };
    const layout = layoutOf(small);
    const engine = await tfjs.create({ ...options, model: small });
    const [changed, out] = [initialWeights(layout, 1), new Float32Array(layout.size)];
    const { binding } = tf.backend() as NodeBackend & { binding: { getNumOfTensors(): number } };
    const use = () => ({ tensors: binding.getNumOfTensors(), bytes: process.memoryUsage().rss });
    const used: ReturnType<typeof use>[] = [];
    for (let step = 0; step < 500; step++) {
      await engine.setWeights(changed);
      await shardGradient(engine, tokens.subarray(0, 32), targets.subarray(0, 32), 4, { seed: 1, step, shard: 0 }, out);
      for (let i = 0; i < layout.size; i++) changed[i]! -= 0.01 * out[i]!;
      if (step % 100 === 99) used.push(use());
    }
    expect(used.at(-1)!.tensors, "tensors of the addon").toBe(used[0]!.tensors);
    expectNoGrowth(used.map(({ bytes }) => bytes));
    await engine.dispose();
  });

  test("values that are changed after setWeights do not reach the engine", async () => {
    const engine = await tfjs.create(options);
    const lent = weights.slice();
    await engine.setWeights(lent);
    const [first] = await engine.losses(tokens, targets, 4);
    lent.fill(0);
    const [second] = await engine.losses(tokens, targets, 4);
    expect(second).toBe(first);
    await engine.dispose();
  });

  test("bf16 products: close to float32, another arithmetic, nothing left behind", async () => {
    const exact = await gradient({});
    const tensors = tf.memory().numTensors;
    const rounded = await gradient({ precision: "bf16" });
    expect(tf.memory().numTensors).toBe(tensors);
    expect(rounded.arithmetic).toBe(exact.arithmetic.replace("float32", "bf16"));
    const norm = (values: Float32Array) => Math.hypot(...values);
    const off = norm(rounded.out.map((value, i) => value - exact.out[i]!)) / norm(exact.out);
    // One rounding to bf16 is off by up to 2^-9; a dozen products lie between the loss and the embedding.
    expect(off, "relative distance of the gradients").toBeLessThan(0.02);
    expect(off, "it must be another computation").toBeGreaterThan(1e-4);
  });

  test("an operation that fails is this worker's error, in TensorFlow's words", async () => {
    const engine = await tfjs.create(options);
    const backend = tf.backend() as NodeBackend;
    const wrong = () => backend.executeSingleOutput("NoSuchOperation", [], []);
    expect(wrong).toThrow(EngineError);
    expect(wrong).toThrow(/TensorFlow's NoSuchOperation failed: .*neither a type/);
    await engine.dispose();
  });

  test("a process keeps the threads that TensorFlow started with", async () => {
    await tfjs.create(options);
    await expect(tfjs.create({ ...options, threads: 2 })).rejects.toThrow(/runs in this process already.*1 threads/);
  });

  const hidden = process.env.CUDA_VISIBLE_DEVICES === "-1";
  test.skipIf(!hidden)("a GPU that was asked for and is not there ends the start with the reason", async () => {
    const asked = tfjs.create({ ...options, backend: "auto", device: "gpu" });
    await expect(asked).rejects.toThrow(/tensorflow-gpu: .*("weft install tensorflow --cuda"|hides every GPU)/);
  });
});
