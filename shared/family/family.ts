// What describes a family of models: its parameters with their roles, how it starts, what Hugging Face calls it. Engines
// and converters ask for roles and for the architecture, never for a family's names: a new family is one file beside
// this one, a line in families.ts, and engines that can compute its architecture.
import { z } from "zod";

/** The sizes and switches of one model. Field names are nanoGPT's and Hugging Face's in camel case. */
export const shapeSchema = z.strictObject({
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
});

export type Shape = z.infer<typeof shapeSchema>;

/**
 * What an engine must be able to compute:
 * - `table`: row t of a (V, V) table holds the logits after token t;
 * - `post-norm`: x = norm1(x + attention(x)); x = norm2(x + mlp(x)) in every block;
 * - `pre-norm`: x = x + attention(norm1(x)); x = x + mlp(norm2(x)) in every block, then a final norm.
 */
export type Architecture = "table" | "post-norm" | "pre-norm";

/** In a block: C -> 3C (qkv), C -> C (projection), C -> 4C (expand), 4C -> C (contract); weights are (in, out). */
export type BlockRole = "norm1" | "qkv" | "projection" | "norm2" | "expand" | "contract";
/** `table` (V, V); `tokens` (V, C); `positions` (T, C); `head` (V, C), where it is not `tokens` itself. */
export type Role = "table" | "tokens" | "positions" | "finalNorm" | "head" | `${number}.${BlockRole}`;
/** Where a parameter stands in a model of any family, such as "tokens.weight" or "3.qkv.bias". */
export type ParameterKey = `${Role}.${"weight" | "bias"}`;

/** One parameter as its family describes it. */
export interface Slot {
  readonly key: ParameterKey;
  /** In checkpoints; the prefix of Hugging Face's files may be part of it. */
  readonly name: string;
  readonly shape: readonly number[];
  /** Every element's first value, or the deviation of the normal distribution that they are drawn from. */
  readonly start: number | { readonly deviation: number };
}

/** How `transformers` writes a model of this family down. */
export interface HuggingFaceForm {
  /** `model_type` of config.json */
  readonly modelType: string;
  /** Before the names of all tensors but the head's; files of a model without head lack it. */
  readonly prefix: string;
  /** Bare names of tensors that some versions save and that are no parameters. */
  readonly surplus?: RegExp;
  /** config.json, but for `model_type`. */
  write(shape: Shape): Record<string, unknown>;
  /**
   * The inverse of `write`, and of what others write.
   * @param where the file's path, for messages
   * @throws ConfigError on what this family is not
   */
  read(config: unknown, where: string): Shape;
  /** What transformers will compute differently from this model, for people; empty where nothing. */
  differences(shape: Shape): string[];
}

export interface Family {
  /** What sets it apart, for --help. */
  readonly about: string;
  readonly architecture: Architecture;
  /** The parameters in the order of the flat vector. */
  slots(shape: Shape): Slot[];
  /** Why there is no such model, or nothing. */
  problem(shape: Shape): string | undefined;
  /** "4 layers, 4 heads, 128 wide, block 64, vocabulary 65" */
  summary(shape: Shape): string;
  readonly huggingFace: HuggingFaceForm;
}
