// The bigram of the lecture: a (V, V) table of logits, row = current character.
import type { ModelConfig } from "../../shared/model.ts";

export function bigram(vocabSize: number): ModelConfig {
  return {
    family: "bigram",
    vocabSize,
    blockSize: 8,
    nLayer: 0,
    nHead: 0,
    nEmbd: 0,
    bias: false,
    dropout: 0,
    activation: "gelu",
    tiedHead: false,
    layerNormEps: 1e-5,
  };
}
