// "The mathematical trick in self-attention" of the lecture: averaging the past in three ways that agree, and why
// scores are divided by the square root of the head's size. The third way and the softmax are the engine's attention.
import * as tf from "@tensorflow/tfjs-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { ModelConfig } from "../../shared/model.ts";
import type { Backend } from "../../worker/engine/tfjs/backend.ts";
import { openBackend } from "../../worker/engine/tfjs/choose.ts";
import { portableOps, type TfjsOps } from "../../worker/engine/tfjs/ops.ts";
import { TorchRandom } from "../torch-random.ts";
import { expectClose } from "../worker/engine/compare.ts";

const [B, T, C] = [4, 8, 2];
/** (B, T, C) */
const x = new TorchRandom(1337).randn(B * T * C);

const model = {
  family: "gpt2",
  vocabSize: 65,
  blockSize: T,
  nLayer: 1,
  nHead: 1,
  nEmbd: C,
  bias: false,
  dropout: 0,
  activation: "gelu",
  tiedHead: true,
  layerNormEps: 1e-5,
} as const satisfies ModelConfig;

let backend: Backend;
beforeAll(async () => {
  backend = await openBackend({ model, maxRows: B, precision: "float32", threads: 1, device: "cpu", backend: "wasm" });
  tf.engine().startScope();
});
afterAll(() => tf.engine().endScope());

/** First way: for every position, the mean of all before it and itself. */
function doubleLoop(): Float32Array {
  const out = new Float32Array(x.length);
  for (let b = 0; b < B; b++)
    for (let t = 0; t < T; t++)
      for (let c = 0; c < C; c++) {
        let sum = 0;
        for (let s = 0; s <= t; s++) sum += x[(b * T + s) * C + c]!;
        out[(b * T + t) * C + c] = sum / (t + 1);
      }
  return out;
}

/** Second way: the lower triangle of ones, its rows normalised, times x of each sequence. */
function triangularProduct(ops: TfjsOps): Float32Array {
  const triangle = Float32Array.from({ length: B * T * T }, (_, i) => {
    const t = Math.floor(i / T) % T;
    return i % T <= t ? 1 / (t + 1) : 0;
  });
  const product = ops.matMul(backend.upload(triangle, [B, T, T]), backend.upload(x, [B, T, C]), false, false);
  return product.dataSync() as Float32Array;
}

/** Causal attention of q, k and v (N, C) with one head. @returns (N, C) and the probabilities (B, T, T) */
function attend(
  ops: TfjsOps,
  q: Float32Array,
  k: Float32Array,
  v: Float32Array,
  heads: { B: number; T: number; D: number },
) {
  const rows = heads.B * heads.T;
  const qkv = new Float32Array(3 * rows * heads.D);
  [q, k, v].forEach((part, p) => {
    for (let n = 0; n < rows; n++) qkv.set(part.subarray(n * heads.D, (n + 1) * heads.D), (3 * n + p) * heads.D);
  });
  const { y, saved } = ops.attention(backend.upload(qkv, [rows, 3 * heads.D]), { ...heads, H: 1 }, undefined);
  return { y: y.dataSync() as Float32Array, probabilities: saved.probabilities.dataSync() as Float32Array };
}

describe.each([
  ["portable", () => portableOps],
  ["wasm", () => backend.ops],
] as const)("%s operations", (_, ops) => {
  test("the causal average three ways agrees to 1e-6", () => {
    const zeros = new Float32Array(x.length);
    const average = doubleLoop();
    expectClose("triangular product", triangularProduct(ops()), average, 1e-6);
    // Third way: the softmax of zeros, masked above the diagonal, is attention whose queries and keys are zero.
    const { y } = attend(ops(), zeros, zeros, x, { B, T, D: C });
    expectClose("softmax of a masked zero matrix", y, average, 1e-6);
    expectClose("second row", average.subarray(2, 4), [-0.0894, -0.4926], 5e-5);
    expectClose("eighth row", average.subarray(14, 16), [-0.0341, 0.1332], 5e-5);
  });

  test("softmax([.1, -.2, .3, -.2, .5] x 8) is nearly the largest alone", () => {
    // One query of 8 against five keys of one number each: the last row of five.
    const q = new Float32Array(5).fill(8);
    const k = Float32Array.of(0.1, -0.2, 0.3, -0.2, 0.5);
    const { probabilities } = attend(ops(), q, k, k, { B: 1, T: 5, D: 1 });
    expectClose("last row", probabilities.subarray(20), [0.0326, 0.003, 0.1615, 0.003, 0.8], 5e-5);
  });

  test("attention divides scores by the square root of the head's size", () => {
    const D = 16;
    const random = new TorchRandom(1337);
    const [q, k] = [random.randn(T * D), random.randn(T * D)];
    const { probabilities } = attend(ops(), q, k, k, { B: 1, T, D });
    const scores = scoresOf(q, k, T, D).map((score) => score / 4);
    const expected = new Float32Array(T * T);
    for (let t = 0; t < T; t++) {
      const row = scores.subarray(t * T, t * T + t + 1).map(Math.exp);
      const sum = row.reduce((a, b) => a + b);
      expected.set(
        row.map((e) => e / sum),
        t * T,
      );
    }
    expectClose("probabilities", probabilities, expected, 1e-6);
  });
});

/** (T, T) products of every query with every key, (T, D) each. */
function scoresOf(q: Float32Array, k: Float32Array, T: number, D: number): Float64Array {
  return Float64Array.from({ length: T * T }, (_, i) => {
    const [t, s] = [Math.floor(i / T), i % T];
    let sum = 0;
    for (let d = 0; d < D; d++) sum += q[t * D + d]! * k[s * D + d]!;
    return sum;
  });
}

test("scores of unit-variance queries and keys of size 16 have variance near 16, and near 1 once divided by 4", () => {
  const [n, D] = [256, 16];
  const random = new TorchRandom(1337);
  const scores = scoresOf(random.randn(n * D), random.randn(n * D), n, D);
  const mean = scores.reduce((a, b) => a + b) / scores.length;
  const variance = scores.reduce((sum, score) => sum + (score - mean) ** 2, 0) / scores.length;
  expect(variance).toBeGreaterThan(15);
  expect(variance).toBeLessThan(17);
  expect(variance / 4 ** 2).toBeCloseTo(1, 1);
});
