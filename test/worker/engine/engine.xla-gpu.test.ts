// The contract suite on NVIDIA GPUs, and what only a GPU shows: cuDNN's attention, and the same bits from engine to engine.
// It needs a GPU and `weft install xla`; CI has none.
import { describe, expect, test } from "vitest";
import { scalarOps } from "../../../shared/arithmetic/vector.ts";
import { initialWeights } from "../../../shared/family/init.ts";
import { layoutOf } from "../../../shared/family/layout.ts";
import type { ModelConfig, Precision } from "../../../shared/model.ts";
import type { Engine, EngineOptions } from "../../../worker/engine/contract.ts";
import { xla } from "../../../worker/engine/xla/kind.ts";
import { openOracle } from "../../oracle.ts";
import { largest, worst } from "./compare.ts";
import { engineContract } from "./engine.contract.ts";

const { usable } = await xla.probe({ device: "gpu" });

/** Heads of 64 over 128 positions: cuDNN's attention takes them. */
const model: ModelConfig = {
  family: "gpt2",
  vocabSize: 257,
  blockSize: 128,
  nLayer: 3,
  nHead: 4,
  nEmbd: 256,
  bias: true,
  dropout: 0,
  activation: "gelu_tanh",
  tiedHead: true,
  layerNormEps: 1e-5,
};
const rows = 4;
const weights = initialWeights(layoutOf(model), 1).map((x, i) => x + 0.02 * Math.sin(i));
const tokens = Int32Array.from({ length: 8 * rows * 128 }, (_, i) => (i * 7919) % 257);
const targets = Int32Array.from(tokens, (id) => (id * 31 + 5) % 257);

async function opened(options: Partial<EngineOptions>): Promise<Engine> {
  const engine = await xla.create({ model, maxRows: rows, precision: "bf16", threads: 1, device: "gpu", ...options });
  await engine.setWeights(weights.subarray(0, layoutOf(engine.model).size));
  return engine;
}

async function gradient(engine: Engine, first = 0, count = 8) {
  const out = new Float32Array(weights.length);
  const part = (ids: Int32Array) => ids.subarray(first * rows * 128, (first + count) * rows * 128);
  const losses = await engine.gradient(part(tokens), part(targets), rows, { seed: 5, step: 9, first, count }, out);
  return { losses: losses!, out, digest: scalarOps.digest(out) };
}

describe.skipIf(!usable)("on a GPU (skipped without one and weft install xla)", () => {
  engineContract("xla on a GPU", (asked) => xla.create({ ...asked, device: "gpu" }));

  test.each(["bf16", "tf32", "float32"] as const)("%s: the same bits from engine to engine", async (precision) => {
    const digests = new Set<string>();
    for (let i = 0; i < 3; i++) {
      const engine = await opened({ precision });
      for (let k = 0; k < 5; k++) digests.add((await gradient(engine)).digest);
      const whole = await gradient(engine);
      for (const [first, count] of [
        [0, 4],
        [4, 2],
        [7, 1],
      ] as const)
        expect((await gradient(engine, first, count)).losses).toEqual(whole.losses.slice(first, first + count));
      await engine.dispose();
    }
    expect(digests.size).toBe(1);
  });

  // bf16 rounds the inputs of products to 8 bits, tf32 to 11: errors of 2^-9 and 2^-12, of which hundreds average out.
  test.each([
    ["bf16", {}, false, 0.05],
    ["bf16", {}, true, 0.05],
    ["bf16", { bias: false }, false, 0.05],
    ["bf16", { dropout: 0.1 }, false, 0.05],
    ["tf32", {}, false, 0.01],
  ] as const)("%s %o, recomputing: %s: near float32", async (precision, changed, checkpointActivations, tolerance) => {
    const layout = layoutOf({ ...model, ...changed });
    const computed = async (precision: Precision) => {
      const engine = await opened({ precision, checkpointActivations, model: { ...model, ...changed } });
      const out = new Float32Array(layout.size);
      const losses = await engine.gradient(tokens, targets, rows, { seed: 5, step: 9, first: 0, count: 8 }, out);
      await engine.dispose();
      return { losses: losses!, out };
    };
    const [exact, rounded] = [await computed("float32"), await computed(precision)];
    for (const [i, loss] of exact.losses.entries()) expect(Math.abs(loss - rounded.losses[i]!)).toBeLessThan(5e-3);
    for (const { key, offset, size } of layout.parameters) {
      const [one, other] = [exact.out, rounded.out].map((x) => x.subarray(offset, offset + size)) as [
        Float32Array,
        Float32Array,
      ];
      expect(worst(other, one).difference / largest(one), key).toBeLessThan(tolerance);
    }
  });

  test("bf16 stays near the oracles", async () => {
    for (const file of ["gpt2-tiny", "gpt1-tiny"]) {
      const oracle = await openOracle(file);
      const layout = layoutOf(oracle.model);
      const [, B, T] = oracle.shape("input.tokens") as [number, number, number];
      const engine = await xla.create({
        model: oracle.model,
        maxRows: B,
        precision: "bf16",
        threads: 1,
        device: "gpu",
      });
      const start = new Float32Array(layout.size);
      for (const { name, offset } of layout.parameters) start.set(await oracle.floats(`param.${name}`), offset);
      await engine.setWeights(start);
      const [input, wanted] = await Promise.all(["input.tokens", "input.targets"].map((name) => oracle.ints(name)));
      const out = new Float32Array(layout.size);
      const at = { seed: 1, step: 0, first: 0, count: 1 };
      const losses = await engine.gradient(input!.subarray(0, B * T), wanted!.subarray(0, B * T), B, at, out);
      expect(Math.abs(losses![0]! - oracle.meta<number>("loss"))).toBeLessThan(5e-3);
      for (const { name, offset, size } of layout.parameters) {
        const expected = await oracle.floats(`grad.${name}`);
        expect(worst(out.subarray(offset, offset + size), expected).difference / largest(expected)).toBeLessThan(0.05);
      }
      await engine.dispose();
    }
  });
});
