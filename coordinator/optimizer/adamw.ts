// AdamW on the coordinator's weights; the arithmetic is in shared/arithmetic/adamw.ts.

import { type AdamWOptions, adamwUpdate } from "../../shared/arithmetic/adamw.ts";
import type { VectorOps } from "../../shared/arithmetic/vector.ts";
import type { OptimizerState } from "../../shared/checkpoint/checkpoint.ts";
import { decayStretches, type Layout } from "../../shared/family/layout.ts";
import { type Optimizer, startState, type Update } from "./optimizer.ts";

export class AdamW implements Optimizer {
  /** m and v: first and second moments. */
  readonly state: Readonly<Record<"m" | "v", Float32Array>>;
  readonly #layout: Layout;
  readonly #options: AdamWOptions;
  readonly #ops: VectorOps;

  constructor(layout: Layout, options: AdamWOptions, ops: VectorOps, state?: OptimizerState) {
    this.state = startState(["m", "v"], layout.size, state);
    this.#layout = layout;
    this.#options = options;
    this.#ops = ops;
  }

  apply(weights: Float32Array, sum: Float32Array, update: Update): number {
    const { beta1, beta2, eps, weightDecay, gradientClip } = this.#options;
    return adamwUpdate(this.#ops, decayStretches(this.#layout), { weights, ...this.state }, sum, {
      beta1,
      beta2,
      eps,
      weightDecay,
      gradientClip,
      ...update,
    });
  }
}
