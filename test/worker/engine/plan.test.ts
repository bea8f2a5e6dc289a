// The memory that the tfjs engine plans against what its heap grows to, each in a thread (and so a heap) of its own.
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { expect, test } from "vitest";
import type { ModelConfig } from "../../../shared/model.ts";

const base: ModelConfig = {
  family: "gpt2",
  vocabSize: 65,
  blockSize: 64,
  nLayer: 4,
  nHead: 4,
  nEmbd: 96,
  bias: true,
  dropout: 0,
  activation: "gelu",
  tiedHead: true,
  layerNormEps: 1e-5,
};

const measure = `
const { parentPort, workerData } = require("node:worker_threads");
const tf = require("@tensorflow/tfjs-core");
void (async () => {
  const { tfjs } = await import(workerData.engine);
  const { layoutOf } = await import(workerData.layout);
  const engine = await tfjs.create(workerData.options);
  const { model, maxRows } = workerData.options;
  const weights = new Float32Array(layoutOf(model).size).fill(0.01);
  await engine.setWeights(weights);
  const tokens = new Int32Array(maxRows * model.blockSize);
  await engine.gradient(tokens, tokens, maxRows, { seed: 1, step: 0, first: 0, count: 1 }, weights);
  parentPort.postMessage({ planned: engine.plannedBytes, heap: tf.backend().wasm.HEAPU8.length });
})();`;

test.each([
  ["dropout", { ...base, dropout: 0.1 }, 8, false],
  ["activations recomputed", base, 16, true],
  ["a large vocabulary", { ...base, nLayer: 1, vocabSize: 20_000 }, 2, false],
] as [string, ModelConfig, number, boolean][])("%s: the plan holds the heap", async (_, model, maxRows, recompute) => {
  const built = (file: string) => new URL(`../../../dist/${file}`, import.meta.url).href;
  const options = {
    model,
    maxRows,
    precision: "float32",
    threads: 1,
    device: "cpu",
    backend: "wasm",
    checkpointActivations: recompute,
  };
  const worker = new Worker(measure, {
    eval: true,
    workerData: { engine: built("worker/engine/tfjs/kind.js"), layout: built("shared/family/layout.js"), options },
  });
  const [{ planned, heap }] = (await once(worker, "message")) as [{ planned: number; heap: number }];
  await worker.terminate();
  // The heap starts at 16 MB and grows in steps.
  expect(heap, `planned ${planned}, heap ${heap}`).toBeLessThan(1.1 * planned + 16 * 2 ** 20);
  expect(planned, `planned ${planned}, heap ${heap}`).toBeLessThan(2 * heap);
});
