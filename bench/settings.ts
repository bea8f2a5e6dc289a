// The three models of the bench and how much arithmetic a token of each costs.
import { layoutOf } from "../shared/family/layout.ts";
import type { ModelConfig } from "../shared/model.ts";

export interface Setting {
  readonly name: string;
  readonly model: ModelConfig;
  /** Sequences of blockSize tokens in one step. */
  readonly rows: number;
}

/** nanoGPT's GPT: no biases, exact GELU, tied head, and no dropout so that everyone computes the same. */
function setting(name: string, rows: number, nLayer: number, nEmbd: number, blockSize: number, vocabSize: number) {
  const model: ModelConfig = {
    family: "gpt2",
    vocabSize,
    blockSize,
    nLayer,
    nHead: nEmbd === 128 ? 4 : nEmbd / 64,
    nEmbd,
    bias: false,
    dropout: 0,
    activation: "gelu",
    tiedHead: true,
    layerNormEps: 1e-5,
  };
  return { name, model, rows };
}

export const settings: readonly Setting[] = [
  setting("a", 12, 4, 128, 64, 65),
  setting("b", 8, 6, 384, 256, 65),
  setting("c", 1, 12, 768, 256, 50257),
];

export const tokensOf = ({ rows, model }: Setting): number => rows * model.blockSize;

/**
 * Floating-point operations of the matrix products for one token, forward and backward: 6 for each weight of a linear
 * layer and of the head, and for attention 6 L C T, its causal half only (counted whole it would be 12 L C T).
 */
export function flopsPerToken({ model }: Setting): number {
  const { nLayer: L, nEmbd: C, blockSize: T, vocabSize: V } = model;
  return 6 * (12 * L * C * C + V * C) + 6 * L * C * T;
}

export const parametersOf = ({ model }: Setting): number => layoutOf(model).size;

/** Weights of the usual size without the cost of drawing 124 million normal numbers: norms 1, matrices within 0.035. */
export function quickWeights(model: ModelConfig): Float32Array {
  const layout = layoutOf(model);
  const weights = new Float32Array(layout.size).fill(1);
  let state = 1;
  for (const { offset, size, shape } of layout.parameters)
    if (shape.length > 1)
      for (let i = offset; i < offset + size; i++) {
        state = (Math.imul(state, 1664525) + 1013904223) | 0;
        weights[i] = (state >> 8) * (0.035 / 2 ** 23);
      }
  return weights;
}
