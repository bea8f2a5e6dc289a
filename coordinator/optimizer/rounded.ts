// Updates of the weights that travel in a small wire: every copy of the weights, the coordinator's own among them, takes
// the update as rounding left it, and what that lost is carried into the next (error feedback, Karimireddy et al. 2019,
// arXiv:1901.09847). The optimizer inside knows nothing of it.
import type { Codec } from "../../shared/arithmetic/codec.ts";
import type { VectorOps } from "../../shared/arithmetic/vector.ts";
import type { OptimizerState } from "../../shared/checkpoint/checkpoint.ts";
import type { Optimizer, Update } from "./optimizer.ts";

export interface Rounding {
  readonly codec: Codec;
  /** The run's. */
  readonly seed: number;
  readonly ops: VectorOps;
}

/**
 * An optimizer whose updates are rounded; as it is where the format keeps every bit.
 * @param size P
 * @param make the optimizer, from its own part of the state
 */
export function roundedUpdates(
  size: number,
  { codec, seed, ops }: Rounding,
  make: (state: OptimizerState | undefined) => Optimizer,
  given?: OptimizerState,
): Optimizer {
  if (codec.format === "float32") return make(given);
  const { carried = new Float32Array(size), ...rest } = given ?? {};
  const inner = make(given && rest);
  const before = new Float32Array(size);
  const { sent = (x: Float32Array) => x } = inner;
  const update = new Float32Array((inner.sent ? 3 : 1) * size);
  return {
    state: { ...inner.state, carried },
    update,
    sent: inner.sent,
    apply(weights: Float32Array, sum: Float32Array, by: Update): number {
      before.set(weights);
      const norm = inner.apply(weights, sum, by);
      ops.subtract(weights, before);
      // Nodes of the tree are numbered from 1: 0 is the update's.
      codec.roundCarrying(weights, carried, { seed, step: by.count, node: 0 });
      update.set(sent(weights));
      ops.add(weights, before);
      return norm;
    },
  };
}
