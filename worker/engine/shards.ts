// A lease for engines that compute one shard at a time: its gradients are added along the tree, as the coordinator adds
// leases, so that the bits do not depend on how a step was cut into leases.
import { bestOps } from "../../shared/arithmetic/native.ts";
import { VectorPool } from "../../shared/arithmetic/tree.ts";
import type { VectorOps } from "../../shared/arithmetic/vector.ts";
import { layoutOf } from "../../shared/family/layout.ts";
import { checkLease } from "./check.ts";
import type { Engine, EngineOptions } from "./contract.ts";

/** Where a shard stands in the run: with the seed it determines every random number of its gradient. */
export interface ShardPosition {
  readonly seed: number;
  readonly step: number;
  readonly shard: number;
}

/**
 * @param tokens (rows, T) @param targets (rows, T)
 * @param out (P) overwritten with the gradient of the mean loss
 * @returns mean loss in nats
 */
export type ShardGradient = (
  tokens: Int32Array,
  targets: Int32Array,
  rows: number,
  at: ShardPosition,
  out: Float32Array,
) => Promise<number>;

/** Engine.gradient over `shard`, which is called with what has been checked. */
export function shardByShard({ model, maxRows, threads }: EngineOptions, shard: ShardGradient): Engine["gradient"] {
  const pool = new VectorPool(layoutOf(model).size);
  let ops: VectorOps | undefined;
  return async (tokens, targets, rows, { seed, step, first, count }, out, cancelled) => {
    const N = rows * checkLease(model, maxRows, { tokens, targets, rows, first, count, out });
    const losses: number[] = [];

    /** The node (from, size) into `sum`; false where it was cancelled. */
    const node = async (from: number, size: number, sum: Float32Array): Promise<boolean> => {
      if (size === 1) {
        if (cancelled?.()) return false;
        const [start, end] = [(from - first) * N, (from - first + 1) * N];
        const at = { seed, step, shard: from };
        losses.push(await shard(tokens.subarray(start, end), targets.subarray(start, end), rows, at, sum));
        return true;
      }
      if (!(await node(from, size / 2, sum))) return false;
      const right = pool.take();
      try {
        if (!(await node(from + size / 2, size / 2, right))) return false;
        ops ??= bestOps(threads || undefined);
        ops.add(sum, right);
        return true;
      } finally {
        pool.give(right);
      }
    };
    return (await node(first, count, out)) ? losses : undefined;
  };
}

/** The gradient of one shard of any engine: a lease of one. @returns its mean loss */
export async function shardGradient(engine: Engine, ...[tokens, targets, rows, at, out]: Parameters<ShardGradient>) {
  const { seed, step, shard } = at;
  const losses = await engine.gradient(tokens, targets, rows, { seed, step, first: shard, count: 1 }, out);
  return losses![0]!;
}
