// The operations that the models are written in, forward and backward by hand. Whoever implements them decides what a
// tensor is: numbers on a device, computed as they are asked for (tfjs/), or a value of a program that is being written
// (xla/).
//
// Tensors are row-major float32; where an implementation computes in bf16, what products, attention and normalize return
// may be so rounded. N = B * T. What `scope` does not return is temporary.
import type { ModelConfig } from "../../../shared/model.ts";

export interface Tensor {
  readonly shape: readonly number[];
}

/** Token ids (N): on the host, or wherever the implementation has them. */
export interface Ids {
  readonly length: number;
  subarray(from: number, to: number): Ids;
}

/** How rows of (N, 3C) projections fall into sequences and heads; C = H * D. */
export interface Heads {
  readonly B: number;
  readonly T: number;
  readonly H: number;
  readonly D: number;
}

/** What a layer norm's backward pass needs; its content is the implementation's affair. */
export type NormSaved<X extends Tensor = Tensor> = readonly X[];

/** What attention's backward pass needs; its content is the implementation's affair. */
export type AttentionSaved<X extends Tensor = Tensor> = Readonly<Record<string, X>>;

export interface Ops<X extends Tensor = Tensor, I extends Ids = Ids> {
  /** What `run` returns, a record of any depth, lives; every other tensor made in it is disposed. */
  scope<T>(run: () => T): T;
  /** Dispose every tensor of a record of any depth; those already disposed are passed over. */
  free(tensors: unknown): void;
  reshape(x: X, shape: readonly number[]): X;
  /** Rows [from, from + count) of x (N, C). */
  rows(x: X, from: number, count: number): X;
  /** Rows of all parts (., C), one part after another. */
  stack(parts: readonly X[]): X;
  /** x (N, C) with rows of zeros up to `count`. */
  padRows(x: X, count: number): X;
  /**
   * x, of which a compiler must compute nothing before `ready` is there, nor share it with what was computed of x before:
   * to save memory is what it is for.
   */
  after(x: X, ready: X): X;
  /** Most rows of logits (., V) that shall exist at once. */
  headRows(V: number): number;
  /** (M, K) x (K, N), or n of them (n, M, K) x (n, K, N); the flags take an operand's last two axes swapped. */
  matMul(a: X, b: X, transposeA: boolean, transposeB: boolean): X;
  /** x (N, I) * weight (I, O) + bias (O) */
  linear(x: X, weight: X, bias: X | undefined): X;
  /** x, computed once for all who read it, even where a compiler would rather compute it again for each. */
  stored(x: X): X;
  /** x as products take it, for what else is computed from it to read the same, shorter numbers. */
  forProducts(x: X): X;
  /** x^T dy (I, O) of x (N, I) and dy (N, O): the gradient of a linear layer's weight, never rounded. */
  weightGradient(x: X, dy: X): X;
  /** The head's table (V, C), with rows behind it where products want more: crossEntropy passes their logits over. */
  padVocabulary(table: X): X;
  /** x (N, C) * table^T (V, C): what is read as logits, never rounded. */
  logits(x: X, table: X): X;
  add(a: X, b: X): X;
  mul(a: X, b: X): X;
  /** (N, C) -> (C): rows added in order. */
  columnSum(x: X): X;
  /** (x - mean) / sqrt(variance + eps) * weight + bias over the rows of x (N, C). Ba et al. 2016, arXiv:1607.06450. */
  layerNorm(x: X, weight: X, bias: X | undefined, eps: number): { y: X; saved: NormSaved<X> };
  layerNormBackward(dy: X, saved: NormSaved<X>, weight: X): { dx: X; dWeight: X; dBias: X };
  /** Where it pays to take a norm's weight and bias into the linear layer behind it (net.ts). */
  readonly folding?: {
    /** (x - mean) / sqrt(variance + eps) over the rows of x (N, C), first of what the backward pass needs. */
    normalize(x: X, eps: number): NormSaved<X>;
    normalizeBackward(dy: X, saved: NormSaved<X>): X;
    /** (N, C) -> (N) */
    rowSum(x: X): X;
  };
  /** y = gelu(x) and slope = gelu'(x). Hendrycks & Gimpel 2016, arXiv:1606.08415. */
  gelu(x: X, activation: ModelConfig["activation"]): { y: X; slope: X };
  /**
   * Causal softmax(q k^T / sqrt(D)) v from qkv (N, 3C) to (N, C).
   * @param mask (B*H, T, T) factors on the probabilities, or none. Vaswani et al. 2017, arXiv:1706.03762.
   */
  attention(qkv: X, heads: Heads, mask: X | undefined): { y: X; saved: AttentionSaved<X> };
  /** dy (N, C) -> gradient of qkv (N, 3C) */
  attentionBackward(dy: X, saved: AttentionSaved<X>, heads: Heads): X;
  /**
   * losses (N) = logsumexp(row) - row[target] and dLogits (N, V) = scale * (softmax(row) - one at target), without a
   * one-hot. Consumes logits (N, V).
   */
  crossEntropy(logits: X, targets: I, scale: number): { losses: X; dLogits: X };
  /** Rows of table (V, C) by id: (N, C). */
  gather(table: X, ids: I): X;
  /** (V, C) that holds at row v the sum of those rows of x (N, C) whose id is v. */
  scatterAdd(x: X, ids: I, V: number): X;
}
