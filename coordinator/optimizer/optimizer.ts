// What turns a sum over units (gradients of shards, outer gradients of replicas) into an update of the weights. An
// optimizer's memory is vectors with names: checkpoints write the names they are given, and know nothing else of it.
import type { OptimizerState } from "../../shared/checkpoint/checkpoint.ts";
import { ConfigError } from "../../shared/errors.ts";

export interface Update {
  /** How many units were added up, a power of two, so that dividing by it is exact. */
  readonly units: number;
  readonly learningRate: number;
  /** 1-based number of this update. */
  readonly count: number;
}

export interface Optimizer {
  /** (P) vectors by name, the optimizer's own: copy them to keep them. */
  readonly state: OptimizerState;
  /** What the last update added to the weights, where that is what travels, and behind it what follows them; until the next one. */
  readonly update?: Float32Array;
  /**
   * Where workers go on from more than the weights (P): what they are sent, (3 P), the weights and behind them the moments
   * m and v; until the next call. What they give is of the same length.
   */
  readonly sent?: ((weights: Float32Array) => Float32Array) | undefined;
  /**
   * One update in place.
   * @param weights (P)
   * @param sum     over the units; left as it is
   * @returns L2 norm of the mean over the units, before any clip
   */
  apply(weights: Float32Array, sum: Float32Array, update: Update): number;
}

/**
 * The state that an optimizer begins with: zeros, or what a checkpoint brought.
 * @throws ConfigError where that is not of these names
 */
export function startState<Name extends string>(
  names: readonly Name[],
  size: number,
  given: OptimizerState | undefined,
): Record<Name, Float32Array> {
  const found = Object.keys(given ?? {}).sort();
  if (given && found.join() !== names.toSorted().join())
    throw new ConfigError(
      `the checkpoint holds optimizer state ${found.join(", ") || "of no name"}, this run's optimizer has ${names.join(", ")}; start a new run from its weights with --init-from`,
    );
  return Object.fromEntries(names.map((name) => [name, given?.[name] ?? new Float32Array(size)])) as Record<
    Name,
    Float32Array
  >;
}
