// What only the native engine promises, beyond the contract: the same bits for any number of threads, calls that are
// refused while another is under way, and reasons with a cure where it cannot run.

import * as zlib from "node:zlib";
import { describe, expect, test } from "vitest";
import { nativeAddon, nativeStatus } from "../../../shared/arithmetic/native.ts";
import { scalarOps } from "../../../shared/arithmetic/vector.ts";
import { EngineError } from "../../../shared/errors.ts";
import { initialWeights } from "../../../shared/family/init.ts";
import { layoutOf } from "../../../shared/family/layout.ts";
import type { ModelConfig } from "../../../shared/model.ts";
import type { Engine, EngineOptions } from "../../../worker/engine/contract.ts";
import { native } from "../../../worker/engine/native/engine.ts";
import { shardGradient } from "../../../worker/engine/shards.ts";
import { expectNoGrowth } from "./growth.ts";

const model: ModelConfig = {
  family: "gpt2",
  vocabSize: 65,
  blockSize: 48,
  nLayer: 2,
  nHead: 3,
  nEmbd: 96,
  bias: true,
  dropout: 0.1,
  activation: "gelu",
  tiedHead: true,
  layerNormEps: 1e-5,
};
const options: EngineOptions = { model, maxRows: 4, precision: "float32", threads: 1, device: "auto" };
const layout = layoutOf(model);
const at = { seed: 1337, step: 3, shard: 1 };
const tokens = Int32Array.from({ length: 4 * 48 }, (_, i) => (i * 7919) % 65);
const { built, why } = nativeStatus();

async function opened(change: Partial<EngineOptions> = {}): Promise<Engine> {
  const engine = await native.create({ ...options, ...change });
  await engine.setWeights(initialWeights(layoutOf(engine.model), 1));
  return engine;
}

describe.skipIf(!built)(`engine native${built ? "" : ` (skipped: ${why})`}`, () => {
  test.each(["float32", "bf16"] as const)("%s: the same bits for 1, 2 and 5 threads", async (precision) => {
    const results: { loss: number; gradient: string; arithmetic: string }[] = [];
    for (const threads of [1, 2, 5]) {
      const engine = await opened({ threads, precision });
      const gradient = new Float32Array(layout.size);
      const loss = await shardGradient(engine, tokens, tokens, 4, at, gradient);
      results.push({ loss, gradient: scalarOps.digest(gradient), arithmetic: engine.arithmetic });
      await engine.dispose();
    }
    expect(results[0]!.arithmetic).toContain(precision);
    expect(results[1]).toEqual(results[0]);
    expect(results[2]).toEqual(results[0]);
  });

  const crc32 = nativeAddon()?.crc32;
  test.skipIf(!crc32)(`its CRC-32 is zlib's${crc32 ? "" : " (skipped: no carry-less multiplication here)"}`, () => {
    for (let n = 0; n < 5000; n += 37) {
      const bytes = Uint8Array.from({ length: n }, (_, i) => (i * i * 31) >> 3);
      expect(crc32!(bytes.subarray(n % 16))).toBe(zlib.crc32(bytes.subarray(n % 16)));
    }
    expect(() => crc32!(new Float32Array(4) as never)).toThrow("bytes: expected a Uint8Array");
  });

  test("calls that overlap are refused, and the first still answers", async () => {
    const engine = await opened();
    const out = new Float32Array(layout.size);
    const first = shardGradient(engine, tokens, tokens, 4, at, out);
    await expect(engine.logits(tokens, 4)).rejects.toThrow("must not overlap");
    await expect(engine.dispose()).rejects.toThrow("must not overlap");
    expect(await first).toBeGreaterThan(0);
    await engine.dispose();
    await expect(engine.logits(tokens, 4)).rejects.toThrow("disposed");
  });

  test("500 steps and their generations leave no memory behind", async () => {
    const engine = await opened({ maxRows: 1 });
    const weights = initialWeights(layout, 1);
    const out = new Float32Array(layout.size);
    const row = tokens.slice(0, 48);
    const bytes: number[] = [];
    for (let step = 0; step < 500; step++) {
      await engine.setWeights(weights);
      await shardGradient(engine, row, row, 1, { ...at, step }, out);
      for (let i = 0; i < layout.size; i++) weights[i]! -= 0.01 * out[i]!;
      const generation = await engine.generation(2);
      await generation.feed([row, Int32Array.of(3)]);
      generation.dispose();
      if (step % 100 === 99) bytes.push(process.memoryUsage().rss);
    }
    expectNoGrowth(bytes);
    await engine.dispose();
  });

  test("a generation ends its validity with new weights", async () => {
    const engine = await opened();
    const generation = await engine.generation(1);
    await generation.feed([tokens.slice(0, 5)]);
    await engine.setWeights(initialWeights(layout, 2));
    await expect(generation.feed([tokens.slice(5, 6)])).rejects.toThrow("weights changed");
    generation.dispose();
    await expect(generation.feed([tokens.slice(5, 6)])).rejects.toThrow(EngineError);
    await engine.dispose();
  });

  test("weights are lent: an array that was transferred is refused, not read", async () => {
    const engine = await opened();
    const weights = initialWeights(layout, 2);
    await engine.setWeights(weights);
    const generation = await engine.generation(1);
    structuredClone(weights, { transfer: [weights.buffer as ArrayBuffer] });
    const refusal = `weights: 0 values, expected ${layout.size}`;
    await expect(engine.losses(tokens, tokens, 4)).rejects.toThrow(refusal);
    await expect(generation.feed([Int32Array.of(1)])).rejects.toThrow(refusal);
    await engine.setWeights(initialWeights(layout, 2));
    expect((await engine.losses(tokens, tokens, 4)).length).toBe(4);
    await engine.dispose();
  });

  test("what it cannot do is refused by name, with the reason", async () => {
    expect(await native.probe({ ...options, device: "gpu" })).toEqual({
      usable: false,
      why: "native: it computes on the CPU; a GPU needs --engine xla or tfjs",
    });
    const isa = process.arch === "x64" ? "neon" : "avx2";
    await expect(native.create({ ...options, isa })).rejects.toThrow(`"${isa}" does not run on this machine`);
  });
});
