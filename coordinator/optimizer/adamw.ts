// AdamW on the coordinator's weights: global-norm clip (Pascanu et al. 2013), decay on matrices only (Loshchilov &
// Hutter 2019, arXiv:1711.05101). The arithmetic itself is in shared/arithmetic/vector.ts.

import type { VectorOps } from "../../shared/arithmetic/vector.ts";
import type { OptimizerState } from "../../shared/checkpoint/checkpoint.ts";
import type { Options } from "../../shared/config.ts";
import { decayStretches, type Layout, type Stretch } from "../../shared/family/layout.ts";
import { type Optimizer, startState, type Update } from "./optimizer.ts";

export type AdamWOptions = Pick<Options, "beta1" | "beta2" | "eps" | "weightDecay" | "gradientClip">;

export class AdamW implements Optimizer {
  /** m and v: first and second moments. */
  readonly state: Readonly<Record<"m" | "v", Float32Array>>;
  readonly #stretches: readonly Stretch[];
  readonly #options: AdamWOptions;
  readonly #ops: VectorOps;

  constructor(layout: Layout, options: AdamWOptions, ops: VectorOps, state?: OptimizerState) {
    this.state = startState(["m", "v"], layout.size, state);
    this.#stretches = decayStretches(layout);
    this.#options = options;
    this.#ops = ops;
  }

  apply(weights: Float32Array, sum: Float32Array, { units, learningRate, count }: Update): number {
    const { beta1, beta2, eps, weightDecay, gradientClip } = this.#options;
    const gradientNorm = Math.sqrt(this.#ops.sumOfSquares(sum)) / units;
    const clip = gradientClip > 0 ? Math.min(1, gradientClip / (gradientNorm + 1e-6)) : 1;
    for (const { offset, size, decay } of this.#stretches) {
      const part = (x: Float32Array) => x.subarray(offset, offset + size);
      this.#ops.adamw(part(weights), part(sum), part(this.state.m), part(this.state.v), {
        learningRate,
        beta1,
        beta2,
        eps,
        weightDecay: decay ? weightDecay : 0,
        count,
        gradientScale: clip / units,
      });
    }
    return gradientNorm;
  }
}
