// The exchange of local rounds: a Nesterov step of the weights along the mean outer gradient and, where the inner state is
// averaged, the mean of the replicas' moments, from which all of them go on. That state is the run's, not a worker's: it
// goes out with the weights, and a checkpoint holds it.
import type { VectorOps } from "../../shared/arithmetic/vector.ts";
import type { OptimizerState } from "../../shared/checkpoint/checkpoint.ts";
import type { Options } from "../../shared/config.ts";
import type { Layout } from "../../shared/family/layout.ts";
import { Nesterov } from "./nesterov.ts";
import { type Optimizer, startState, type Update } from "./optimizer.ts";

/** Moments below it change nothing, and would lose their last bits in a small wire: they become zero. */
const tiniest = 2 ** -100;

export class Outer implements Optimizer {
  readonly state: OptimizerState;
  readonly sent: Optimizer["sent"];
  readonly #nesterov: Nesterov;
  /** (3 P): weights, m and v as they are sent; undefined where the moments begin anew. */
  readonly #whole: Float32Array | undefined;

  constructor(
    layout: Layout,
    { innerState, outerMomentum }: Pick<Options, "innerState" | "outerMomentum">,
    ops: VectorOps,
    given?: OptimizerState,
  ) {
    const P = layout.size;
    const averages = innerState === "averaged";
    const { momentum, m, v } = startState(averages ? ["momentum", "m", "v"] : ["momentum"], P, given);
    this.#nesterov = new Nesterov(layout, { momentum: outerMomentum }, ops, { momentum });
    this.state = { momentum };
    if (!averages) return;
    const whole = new Float32Array(3 * P);
    whole.set(m, P);
    whole.set(v, 2 * P);
    this.#whole = whole;
    this.state = { momentum, m: whole.subarray(P, 2 * P), v: whole.subarray(2 * P) };
    this.sent = (weights) => {
      whole.set(weights);
      return whole;
    };
  }

  /** @param sum (P), or (3 P) with the sums of the moments behind that of the outer gradients */
  apply(weights: Float32Array, sum: Float32Array, update: Update): number {
    const P = weights.length;
    for (let i = P; i < sum.length; i++) {
      const mean = sum[i]! / update.units;
      this.#whole![i] = Math.abs(mean) < tiniest ? 0 : mean;
    }
    return this.#nesterov.apply(weights, sum.subarray(0, P), update);
  }
}
