// The contract suite on WebGPU, where its optional packages are installed; scripts/ci-webgpu.sh runs it with SwiftShader
// as its GPU.

import * as tf from "@tensorflow/tfjs-core";
import { describe, expect, test } from "vitest";
import { initialWeights } from "../../../shared/family/init.ts";
import { layoutOf } from "../../../shared/family/layout.ts";
import type { ModelConfig } from "../../../shared/model.ts";
import type { EngineOptions } from "../../../worker/engine/contract.ts";
import { shardGradient } from "../../../worker/engine/shards.ts";
import { tfjs } from "../../../worker/engine/tfjs/kind.ts";
import { inSoftware, webgpu } from "../../../worker/engine/tfjs/webgpu.ts";
import { engineContract } from "./engine.contract.ts";
import { expectNoGrowth } from "./growth.ts";

const model: ModelConfig = {
  family: "gpt2",
  vocabSize: 33,
  blockSize: 8,
  nLayer: 1,
  nHead: 2,
  nEmbd: 16,
  bias: true,
  dropout: 0.1,
  activation: "gelu",
  tiedHead: true,
  layerNormEps: 1e-5,
};
const options: EngineOptions = {
  model,
  maxRows: 4,
  precision: "float32",
  threads: 1,
  device: "auto",
  backend: "webgpu",
};
const { usable, why } = await webgpu.probe(options);

test("WebGPU is there where it must be", () => {
  if (process.env.WEFT_REQUIRE_WEBGPU) expect(usable, why).toBe(true);
});

test("an automatic choice passes WebGPU over", async () => {
  const engine = await tfjs.create({ ...options, backend: "auto" });
  expect(engine.arithmetic).not.toContain("webgpu");
  await engine.dispose();
});

describe.skipIf(!usable)("WebGPU (skipped where no adapter is found)", () => {
  engineContract("tfjs webgpu", (asked) => tfjs.create({ ...asked, backend: "webgpu" }));

  test("a driver in software is known as one", async () => {
    expect(await inSoftware(), why).toBe(/swiftshader|llvmpipe/i.test(why));
  });

  test("500 steps leave no tensor and no memory behind", { timeout: 600_000 }, async () => {
    const layout = layoutOf(model);
    const engine = await tfjs.create(options);
    const [weights, out] = [initialWeights(layout, 1), new Float32Array(layout.size)];
    const tokens = Int32Array.from({ length: 32 }, (_, i) => (i * i + 3 * i) % 33);
    const use = () => ({ tensors: tf.memory().numTensors, bytes: process.memoryUsage().rss });
    const used: ReturnType<typeof use>[] = [];
    for (let step = 0; step < 500; step++) {
      await engine.setWeights(weights);
      await shardGradient(engine, tokens, tokens, 4, { seed: 1, step, shard: 0 }, out);
      for (let i = 0; i < layout.size; i++) weights[i]! -= 0.01 * out[i]!;
      if (step % 100 === 99) used.push(use());
    }
    expect(used.at(-1)!.tensors).toBe(used[0]!.tensors);
    expectNoGrowth(used.map(({ bytes }) => bytes));
    await engine.dispose();
  });

  // The last one: a device that has failed is not trusted again.
  test("what Dawn reports aside ends the step", async () => {
    const engine = await tfjs.create(options);
    await engine.setWeights(initialWeights(layoutOf(model), 1));
    const { device } = tf.backend() as unknown as { device: { createBuffer(wish: object): void } };
    device.createBuffer({ size: 16, usage: 0 });
    const tokens = new Int32Array(32);
    await expect(engine.losses(tokens, tokens, 4)).rejects.toThrow(/tfjs webgpu: .*usage/i);
    await engine.dispose();
  });
});
