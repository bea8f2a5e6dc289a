// What the contract suite cannot see of the tfjs engine: its memory, and the traps of tfjs's wasm backend.

import * as tf from "@tensorflow/tfjs-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { PhiloxStream, stream } from "../../../shared/arithmetic/philox.ts";
import { EngineError } from "../../../shared/errors.ts";
import { initialWeights } from "../../../shared/family/init.ts";
import { layoutOf } from "../../../shared/family/layout.ts";
import type { ModelConfig } from "../../../shared/model.ts";
import type { EngineOptions } from "../../../worker/engine/contract.ts";
import { shardGradient } from "../../../worker/engine/shards.ts";
import type { Backend } from "../../../worker/engine/tfjs/backend.ts";
import { openBackend } from "../../../worker/engine/tfjs/choose.ts";
import { TfjsEngine } from "../../../worker/engine/tfjs/engine.ts";
import { tfjs } from "../../../worker/engine/tfjs/kind.ts";
import { portableOps, type Tensor, type TfjsOps } from "../../../worker/engine/tfjs/ops.ts";
import { WasmHeap } from "../../../worker/engine/tfjs/wasm/heap.ts";
import { expectClose, largest } from "./compare.ts";

const model: ModelConfig = {
  family: "gpt2",
  vocabSize: 13,
  blockSize: 8,
  nLayer: 2,
  nHead: 2,
  nEmbd: 12,
  bias: true,
  dropout: 0.1,
  activation: "gelu",
  tiedHead: true,
  layerNormEps: 1e-5,
};
const options: EngineOptions = { model, maxRows: 4, precision: "float32", threads: 1, device: "auto", backend: "wasm" };
const at = { seed: 1, step: 0, shard: 0 };

let backend: Backend;
let heap: WasmHeap;
beforeAll(async () => {
  backend = await openBackend(options);
  heap = new WasmHeap(tf.backend());
  tf.engine().startScope();
});
afterAll(() => tf.engine().endScope());

const random = new PhiloxStream(1, stream.init, 1);
const draw = (...shape: number[]): Tensor =>
  backend.upload(
    Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => random.normal()),
    shape,
  );

/** Product in float64. */
function product(a: Tensor, b: Tensor, transposeA: boolean, transposeB: boolean): Float64Array {
  const [x, y] = [a.dataSync(), b.dataSync()];
  const batch = a.rank === 3 ? a.shape[0]! : 1;
  const [aRows, aColumns] = a.shape.slice(-2) as [number, number];
  const [bRows, bColumns] = b.shape.slice(-2) as [number, number];
  const [M, K] = transposeA ? [aColumns, aRows] : [aRows, aColumns];
  const N = transposeB ? bRows : bColumns;
  const out = new Float64Array(batch * M * N);
  for (let i = 0; i < batch; i++)
    for (let m = 0; m < M; m++)
      for (let n = 0; n < N; n++)
        for (let k = 0; k < K; k++)
          out[(i * M + m) * N + n]! +=
            x[i * M * K + (transposeA ? k * M + m : m * K + k)]! * y[i * K * N + (transposeB ? n * K + k : k * N + n)]!;
  return out;
}

// Sizes around tiles of 4 and 8, blocks of 256 rows, stretches of 512 products; single rows and columns.
test.each([
  [1, 1, 1],
  [3, 5, 7],
  [1, 64, 9],
  [17, 1, 50],
  [49, 33, 97],
  [16, 48, 48],
  [260, 530, 12],
])("wasm products of (%i, %i) x (%i) are right with every transpose and in batches", (M, K, N) => {
  for (const batch of [[], [1], [3]])
    for (const transposeA of [false, true])
      for (const transposeB of [false, true]) {
        const a = draw(...batch, ...(transposeA ? [K, M] : [M, K]));
        const b = draw(...batch, ...(transposeB ? [N, K] : [K, N]));
        const got = backend.ops.matMul(a, b, transposeA, transposeB);
        expect(got.shape).toEqual([...batch, M, N]);
        const expected = product(a, b, transposeA, transposeB);
        expectClose(`${batch} ${transposeA} ${transposeB}`, got.dataSync(), expected, 1e-5 * (1 + largest(expected)));
      }
  const [x, w, bias] = [draw(M, K), draw(K, N), draw(N)];
  const expected = product(x, w, false, false);
  for (let i = 0; i < expected.length; i++) expected[i]! += bias.dataSync()[i % N]!;
  expectClose("linear", backend.ops.linear(x, w, bias).dataSync(), expected, 1e-5 * (1 + largest(expected)));
  expectClose("linear again", backend.ops.linear(x, w, bias).dataSync(), expected, 1e-5 * (1 + largest(expected)));
});

// XNNPACK, behind tfjs's own products, does keep such copies.
test("products see what is in memory now: no packed copy of an earlier content or shape", () => {
  const x = draw(20, 6);
  const w = draw(6, 10);
  const before = backend.ops.matMul(x, w, false, false).dataSync();
  heap.floats(w).fill(0);
  expect(largest(backend.ops.matMul(x, w, false, false).dataSync())).toBe(0);
  expect(largest(backend.ops.linear(x, w, undefined).dataSync())).toBe(0);
  expect(largest(before)).toBeGreaterThan(0);
  const y = draw(6, 10);
  backend.ops.matMul(x, y, false, false);
  const reshaped = tf.reshape(y, [10, 6]);
  const z = draw(20, 10);
  expectClose(
    "reshaped",
    backend.ops.matMul(z, reshaped, false, false).dataSync(),
    product(z, reshaped, false, false),
    1e-5,
  );
});

test("the heap's own loops agree with the portable operations", () => {
  const ops: TfjsOps = { ...portableOps, scatterAdd: backend.ops.scatterAdd };
  const compare = (what: string, run: (ops: TfjsOps) => Tensor[]) => {
    const [got, expected] = [run(backend.ops), run(ops)];
    got.forEach((tensor, i) => {
      expect(tensor.shape).toEqual(expected[i]!.shape);
      expectClose(
        `${what} ${i}`,
        tensor.dataSync(),
        expected[i]!.dataSync(),
        3e-6 * (1 + largest(expected[i]!.dataSync())),
      );
    });
  };
  const [x, dy, weight, bias] = [draw(21, 10), draw(21, 10), draw(10), draw(10)];
  compare("columnSum", (o) => [o.columnSum(x)]);
  for (const shift of [bias, undefined])
    compare("layerNorm", (o) => {
      const { y, saved } = o.layerNorm(x, weight, shift, 1e-5);
      const { dx, dWeight, dBias } = o.layerNormBackward(dy, saved, weight);
      return [y, dx, dWeight, dBias];
    });
  for (const activation of ["gelu", "gelu_tanh"] as const)
    compare(activation, (o) => Object.values(o.gelu(tf.mul(x, 3), activation)));
  // Within one stripe of 32 queries, and over three.
  for (const T of [7, 75]) {
    const heads = { B: 3, T, H: 2, D: 5 };
    const mask = tf.cast(tf.greater(draw(6, T, T), 0), "float32");
    const [qkv, dOut] = [draw(3 * T, 30), draw(3 * T, 10)];
    for (const factors of [undefined, mask])
      compare(`attention over ${T}`, (o) => {
        const { y, saved } = o.attention(qkv, heads, factors);
        return [y, o.attentionBackward(dOut, saved, heads)];
      });
  }
  const targets = Int32Array.from({ length: 21 }, (_, i) => i % 10);
  compare("crossEntropy", (o) => {
    const { losses, dLogits } = o.crossEntropy(tf.add(x, 0), targets, 0.25);
    return [losses, dLogits];
  });
});

test("scatterAdd adds rows that share an id", () => {
  const x = backend.upload(Float32Array.of(1, 2, 10, 20, 100, 200), [3, 2]);
  const table = backend.ops.scatterAdd(x, Int32Array.of(3, 1, 3), 5).dataSync();
  expect([...table]).toEqual([0, 0, 10, 20, 0, 0, 101, 202, 0, 0]);
});

test("500 steps, refusals and generations leave no tensor and no heap behind", async () => {
  for (const checkpointActivations of [false, true]) {
    const engine = await tfjs.create({ ...options, checkpointActivations });
    const weights = initialWeights(layoutOf(model), 1);
    const tokens = Int32Array.from({ length: 32 }, (_, i) => i % 13);
    const out = new Float32Array(weights.length);
    const step = async (i: number) => {
      await engine.setWeights(weights);
      await shardGradient(engine, tokens, tokens, 4, { ...at, step: i }, out);
      await shardGradient(engine, tokens.subarray(0, 6), tokens.subarray(0, 6), 2, { ...at, step: i }, out);
      if (i % 10 > 0) return;
      await engine.losses(tokens, tokens, 4);
      await engine.logits(tokens, 4);
      await engine.hidden(tokens, 4);
      await expect(shardGradient(engine, tokens.with(1, 99), tokens, 4, at, out)).rejects.toThrow(EngineError);
      const generation = await engine.generation(2);
      await generation.feed([Int32Array.of(1, 2), Int32Array.of(3)]);
      await generation.reorder([1, 1]);
      await generation.feed([Int32Array.of(1), Int32Array.of(3)]);
      generation.clear(0);
      if (i % 20 > 0) generation.dispose();
    };
    // Both stretches end with a generation that is left to the next weights.
    for (let i = 0; i < 21; i++) await step(i);
    // tfjs's heap only grows: its size is the most that was ever in use.
    const before = { tensors: tf.memory().numTensors, buffers: tf.memory().numDataBuffers, bytes: heap.bytes };
    for (let i = 21; i < 501; i++) await step(i);
    expect({ tensors: tf.memory().numTensors, buffers: tf.memory().numDataBuffers, bytes: heap.bytes }).toEqual(before);
    await engine.dispose();
    await expect(engine.logits(tokens, 4)).rejects.toThrow(EngineError);
  }
});

test("a failure in the middle of a step leaves nothing behind", async () => {
  const before = tf.memory().numTensors;
  const layerNormBackward = () => {
    throw new EngineError("the device failed");
  };
  const engine = new TfjsEngine(options, { ...backend, ops: { ...backend.ops, layerNormBackward } });
  await engine.setWeights(initialWeights(layoutOf(model), 1));
  const tokens = Int32Array.from({ length: 32 }, (_, i) => i % 13);
  const out = new Float32Array(layoutOf(model).size);
  await expect(shardGradient(engine, tokens, tokens, 4, at, out)).rejects.toThrow("the device failed");
  await engine.dispose();
  expect(tf.memory().numTensors).toBe(before);
});

// Late in this file, since the heap does not shrink; nobody touches these pages, so that they cost nothing.
test("addresses beyond 2 GB are addresses", () => {
  heap.reserve(2 ** 31 + 2 ** 28);
  const [a, b, bias] = [draw(500_000, 8), draw(8, 3), draw(3)];
  const y = backend.ops.linear(a, b, bias);
  for (const tensor of [a, y]) expect(heap.address(tensor)).toBeGreaterThan(2 ** 31);
  const shift = bias.dataSync();
  const expected = product(a, b, false, false).map((x, i) => x + shift[i % 3]!);
  expectClose("linear", y.dataSync(), expected, 1e-4);
  const sums = new Float64Array(8);
  for (const [i, x] of (a.dataSync() as Float32Array).entries()) sums[i % 8]! += x;
  expectClose("columnSum", backend.ops.columnSum(a).dataSync(), sums, 1e-3);
});

test("no limit that is asked for goes beyond the heap", async () => {
  const large = { ...model, blockSize: 1024, nLayer: 48, nHead: 25, nEmbd: 1600, vocabSize: 50257 };
  const refused = tfjs.create({ ...options, model: large, maxRows: 1, memoryLimitBytes: 2 ** 40 });
  await expect(refused).rejects.toThrow(/need about [\d,]+ MB, wasm float32 has 3,584 MB/);
});

test("a heap that is full says so", () => {
  const before = tf.memory().numTensors;
  expect(() => heap.empty([2 ** 30])).toThrow(/4,294,967,296 bytes more do not fit/);
  expect(tf.memory().numTensors).toBe(before);
});
