// AdamW on the coordinator's weights: global-norm clip (Pascanu et al. 2013), decay on matrices only (Loshchilov &
// Hutter 2019, arXiv:1711.05101). The arithmetic itself is in shared/arithmetic/vector.ts.

import type { VectorOps } from "../../shared/arithmetic/vector.ts";
import type { Options } from "../../shared/config.ts";
import type { Layout } from "../../shared/family/layout.ts";

export type OptimizerOptions = Pick<Options, "beta1" | "beta2" | "eps" | "weightDecay" | "gradientClip">;

export class Optimizer {
  /** (P) first and second moments. */
  readonly m: Float32Array;
  readonly v: Float32Array;
  readonly #layout: Layout;
  readonly #options: OptimizerOptions;
  readonly #ops: VectorOps;

  constructor(
    layout: Layout,
    options: OptimizerOptions,
    ops: VectorOps,
    moments: { m: Float32Array; v: Float32Array } = {
      m: new Float32Array(layout.size),
      v: new Float32Array(layout.size),
    },
  ) {
    this.m = moments.m;
    this.v = moments.v;
    this.#layout = layout;
    this.#options = options;
    this.#ops = ops;
  }

  /**
   * One update in place.
   * @param weights     (P)
   * @param gradientSum (P) sum over the shards of their mean gradients
   * @param shards      S; a power of two, so that dividing by it is exact
   * @param count       1-based number of this update
   * @returns norm of the batch's mean gradient before the clip
   */
  apply(weights: Float32Array, gradientSum: Float32Array, shards: number, learningRate: number, count: number): number {
    const { beta1, beta2, eps, weightDecay, gradientClip } = this.#options;
    const gradientNorm = Math.sqrt(this.#ops.sumOfSquares(gradientSum)) / shards;
    const clip = gradientClip > 0 ? Math.min(1, gradientClip / (gradientNorm + 1e-6)) : 1;
    for (const { offset, size, decay } of stretches(this.#layout)) {
      const part = (x: Float32Array) => x.subarray(offset, offset + size);
      this.#ops.adamw(part(weights), part(gradientSum), part(this.m), part(this.v), {
        learningRate,
        beta1,
        beta2,
        eps,
        weightDecay: decay ? weightDecay : 0,
        count,
        gradientScale: clip / shards,
      });
    }
    return gradientNorm;
  }
}

/** Neighbouring parameters of one kind of decay, to be updated in one go. */
function stretches(layout: Layout): { offset: number; size: number; decay: boolean }[] {
  const found: { offset: number; size: number; decay: boolean }[] = [];
  for (const { offset, size, decay } of layout.parameters) {
    const last = found.at(-1);
    if (last?.decay === decay) last.size += size;
    else found.push({ offset, size, decay });
  }
  return found;
}
