// The GPT-1 of the tutorial "GPT-1 in PyTorch": post-norm blocks, learned positions, the head tied to the embedding.
import { expect, test } from "vitest";
import { nativeStatus } from "../../shared/arithmetic/native.ts";
import { layoutOf } from "../../shared/family/layout.ts";
import type { ModelConfig } from "../../shared/model.ts";
import { presets } from "../../shared/presets.ts";
import { resolveOptions } from "../../shared/resolve.ts";
import { type EngineName, openEngine } from "../../worker/engine/choose.ts";

const document: ModelConfig = {
  family: "gpt1",
  vocabSize: 50_257,
  blockSize: 1024,
  nLayer: 12,
  nHead: 12,
  nEmbd: 768,
  bias: true,
  dropout: 0.1,
  activation: "gelu",
  tiedHead: true,
  layerNormEps: 1e-5,
};

test("has 124,438,272 parameters; GPT-2's final norm makes it 124,439,808", () => {
  expect(layoutOf(document).size).toBe(124_438_272);
  expect(layoutOf({ ...document, family: "gpt2" }).size).toBe(124_439_808);
});

test("the preset trains as the paper says", () => {
  expect(Object.keys(presets)).toContain("gpt1-117m");
  expect(resolveOptions({ preset: "gpt1-117m" }).options).toMatchObject({
    family: "gpt1",
    nLayer: 12,
    nHead: 12,
    nEmbd: 768,
    activation: "gelu",
    dropout: 0.1,
    tiedHead: true,
    learningRate: 2.5e-4,
    warmupSteps: 2000,
    schedule: "cosine",
  });
});

// Where native is not built, the contract suite says so, and fails in CI.
const engines: EngineName[] = nativeStatus().built ? ["tfjs", "native"] : ["tfjs"];

test.each(engines)("a forward pass of the full-size model on %s has shape 1 x 6 x 768", async (name) => {
  const { engine } = await openEngine(name, {
    model: document,
    maxRows: 1,
    precision: "float32",
    threads: 0,
    device: "cpu",
  });
  try {
    await engine.setWeights(quickWeights(document));
    const hidden = await engine.hidden(Int32Array.of(2, 10, 20, 100, 512, 3), 1);
    expect(hidden.length).toBe(1 * 6 * 768);
    // Post-norm: each row leaves the last layer norm with mean 0 and variance 1.
    for (let t = 0; t < 6; t++) {
      const row = hidden.subarray(t * 768, (t + 1) * 768);
      const mean = row.reduce((a, b) => a + b) / 768;
      const variance = row.reduce((sum, x) => sum + (x - mean) ** 2, 0) / 768;
      expect(mean).toBeCloseTo(0, 4);
      expect(variance).toBeCloseTo(1, 3);
    }
  } finally {
    await engine.dispose();
  }
});

/** Weights without the seconds that 124 million normal numbers take: 1,009 small ones over and over, norms of 1. */
function quickWeights(model: ModelConfig): Float32Array {
  const layout = layoutOf(model);
  const weights = new Float32Array(layout.size);
  const period = 1009;
  for (let i = 0; i < period; i++) weights[i] = (((i * 791) % period) - 504) * 4e-5;
  for (let filled = period; filled < weights.length; filled *= 2) weights.copyWithin(filled, 0, filled);
  for (const { name, offset, size, decay } of layout.parameters)
    if (!decay) weights.fill(name.endsWith(".weight") ? 1 : 0, offset, offset + size);
  return weights;
}
