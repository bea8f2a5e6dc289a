// The tfjs engine in a thread, as built: the same bits as without one, an event loop that stays free, and errors that
// keep their class.

import { afterAll, beforeAll, expect, test } from "vitest";
import { EngineError } from "../../../shared/errors.ts";
import { initialWeights } from "../../../shared/family/init.ts";
import { layoutOf } from "../../../shared/family/layout.ts";
import type { ModelConfig } from "../../../shared/model.ts";
import type { Engine, EngineOptions } from "../../../worker/engine/contract.ts";
import { shardGradient } from "../../../worker/engine/shards.ts";
import { tfjs } from "../../../worker/engine/tfjs/kind.ts";

const model: ModelConfig = {
  family: "gpt2",
  vocabSize: 65,
  blockSize: 64,
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
  model,
  maxRows: 4,
  precision: "float32",
  threads: 1,
  device: "auto",
  backend: "wasm",
};
const { size } = layoutOf(model);
const weights = initialWeights(layoutOf(model), 1);
const tokens = Int32Array.from({ length: 4 * 64 }, (_, i) => (i * i + 3 * i) % 65);
const at = { seed: 1, step: 2, shard: 3 };

const built = new URL("../../../dist/worker/engine/threaded.js", import.meta.url).href;
const { threadedTfjs } = (await import(built)) as typeof import("../../../worker/engine/threaded.ts");
let inside: Engine;
let outside: Engine;
beforeAll(async () => {
  inside = await threadedTfjs.create(options);
  outside = await tfjs.create(options);
  await outside.setWeights(weights);
});
afterAll(async () => {
  await inside.dispose();
  await outside.dispose();
});

test("every answer is the same, through shared memory or not", async () => {
  expect({ ...inside }).toMatchObject({ name: "tfjs", arithmetic: "tfjs wasm float32", model });
  expect(inside.plannedBytes).toBe(outside.plannedBytes);
  const expected = new Float32Array(size);
  const loss = await shardGradient(outside, tokens, tokens, 4, at, expected);
  const shared = (): Float32Array => new Float32Array(new SharedArrayBuffer(4 * size));
  const sharedWeights = shared();
  sharedWeights.set(weights);
  for (const [given, out] of [
    [weights, new Float32Array(size)],
    [sharedWeights, shared()],
    [weights, shared().subarray(0)],
  ] as const) {
    await inside.setWeights(given);
    expect(await shardGradient(inside, tokens, tokens, 4, at, out)).toBe(loss);
    expect(out.every((value, i) => value === expected[i])).toBe(true);
  }
  expect(await inside.losses(tokens, tokens, 4)).toEqual(await outside.losses(tokens, tokens, 4));
  expect(await inside.logits(tokens, 4)).toEqual(await outside.logits(tokens, 4));
  expect(await inside.hidden(tokens, 4)).toEqual(await outside.hidden(tokens, 4));
});

test("a generation answers the same, and calls nobody waits for keep their place", async () => {
  await inside.setWeights(weights);
  const pair = await Promise.all([inside, outside].map((engine) => engine.generation(2)));
  const both = async (tokens: number[][]) => {
    const [a, b] = await Promise.all(pair.map((each) => each.feed(tokens.map((row) => Int32Array.from(row)))));
    expect(a).toEqual(b);
    expect(pair[0]!.lengths).toEqual(pair[1]!.lengths);
  };
  await both([[1, 2, 3], [4]]);
  for (const each of pair) await each.reorder([1, 0]);
  await both([[5], []]);
  for (const each of pair) each.clear(0);
  await both([[6, 7], [8]]);
  expect(pair[0]!.lengths).toEqual([2, 4]);
  expect(() => pair[0]!.clear(2)).toThrow("row 2 of 2");
  await expect(pair[0]!.feed([new Int32Array(64), new Int32Array(0)])).rejects.toThrow("blockSize of 64");
  for (const each of pair) each.dispose();
  await expect(pair[0]!.feed([Int32Array.of(1), Int32Array.of(1)])).rejects.toThrow("disposed");
});

test("the event loop turns while a step computes", async () => {
  await inside.setWeights(weights);
  let turns = 0;
  let done = false;
  const turning = (async () => {
    while (!done) {
      await new Promise((resolve) => setImmediate(resolve));
      turns++;
    }
  })();
  await shardGradient(inside, tokens, tokens, 4, at, new Float32Array(size));
  done = true;
  await turning;
  // On the calling thread the loop turns a handful of times during a step; here as often as it can.
  expect(turns).toBeGreaterThan(20);
});

test("an error keeps its class and its words", async () => {
  const refused = shardGradient(inside, tokens, tokens, 5, at, new Float32Array(size));
  await expect(refused).rejects.toMatchObject({ name: "EngineError", message: expect.stringContaining("5 rows") });
  await expect(inside.setWeights(new Float32Array(3))).rejects.toMatchObject({ name: "EngineError" });
  await expect(threadedTfjs.create({ ...options, memoryLimitBytes: 1 })).rejects.toThrow("MB");
  await expect(threadedTfjs.create({ ...options, precision: "bf16" })).rejects.toMatchObject({ name: "EngineError" });
  expect(new EngineError("x").name).toBe("EngineError");
});

test("a disposed engine refuses calls", async () => {
  const engine = await threadedTfjs.create(options);
  await engine.dispose();
  await expect(engine.logits(tokens, 4)).rejects.toThrow("disposed");
});
