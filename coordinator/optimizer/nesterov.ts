// Gradient descent with Nesterov momentum, as torch.optim.SGD(nesterov=True) computes it: the outer optimizer of local
// rounds, whose gradients are weights before minus weights after (DiLoCo, Douillard et al. 2023, arXiv:2311.08105;
// there with momentum 0.9 and learning rate 0.7, no decay and no clip).

import type { VectorOps } from "../../shared/arithmetic/vector.ts";
import type { OptimizerState } from "../../shared/checkpoint/checkpoint.ts";
import type { Layout } from "../../shared/family/layout.ts";
import { type Optimizer, startState, type Update } from "./optimizer.ts";

export class Nesterov implements Optimizer {
  readonly state: Readonly<Record<"momentum", Float32Array>>;
  readonly #momentum: number;
  readonly #ops: VectorOps;

  /** @param options momentum in [0, 1) */
  constructor(layout: Layout, options: { readonly momentum: number }, ops: VectorOps, state?: OptimizerState) {
    this.state = startState(["momentum"], layout.size, state);
    this.#momentum = options.momentum;
    this.#ops = ops;
  }

  apply(weights: Float32Array, sum: Float32Array, { units, learningRate }: Update): number {
    const norm = Math.sqrt(this.#ops.sumOfSquares(sum)) / units;
    this.#ops.nesterov(weights, sum, this.state.momentum, {
      learningRate,
      momentum: this.#momentum,
      gradientScale: 1 / units,
    });
    return norm;
  }
}
