// What a GPT is, in one description for every engine, checkpoint and message.
import { z } from "zod";

/**
 * One model of one of the families:
 * - `bigram`: a (V, V) table of logits, row = current token; nLayer, nHead and nEmbd are 0.
 * - `gpt1`: post-norm blocks, no final norm (Radford et al. 2018).
 * - `gpt2`: pre-norm blocks and a final norm (Radford et al. 2019).
 *
 * Field names are nanoGPT's and Hugging Face's in camel case.
 */
export const modelSchema = z
  .strictObject({
    family: z.enum(["bigram", "gpt1", "gpt2"]),
    /** V: number of tokens. */
    vocabSize: z.int().min(1).max(1_000_000),
    /** Longest sequence T that has a position embedding; also the length of a training window. */
    blockSize: z.int().min(1).max(1_048_576),
    /** L */
    nLayer: z.int().min(0).max(1024),
    /** H */
    nHead: z.int().min(0).max(1024),
    /** C: width; a multiple of H. */
    nEmbd: z.int().min(0).max(65_536),
    /** Biases in the linear layers and layer norms. */
    bias: z.boolean(),
    /** Probability that an element of the embedding, attention and residual branches is dropped in training. */
    dropout: z.number().min(0).lt(1),
    /** `gelu` is exact, x * Phi(x); `gelu_tanh` is GPT-2's approximation (Hendrycks & Gimpel 2016, arXiv:1606.08415). */
    activation: z.enum(["gelu", "gelu_tanh"]),
    /** The output head shares the token embedding's weights. */
    tiedHead: z.boolean(),
    layerNormEps: z.number().positive(),
  })
  .superRefine((m, context) => {
    if (m.family === "bigram") return;
    if (m.nLayer < 1 || m.nHead < 1 || m.nEmbd < 1)
      context.addIssue(`${m.family} needs nLayer, nHead and nEmbd of at least 1`);
    else if (m.nEmbd % m.nHead !== 0) context.addIssue(`nEmbd ${m.nEmbd} does not divide into nHead ${m.nHead} heads`);
  });

export type ModelConfig = z.infer<typeof modelSchema>;
