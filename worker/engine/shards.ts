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
 * @param lane of those that the engine has
 * @returns mean loss in nats
 */
export type ShardGradient = (
  tokens: Int32Array,
  targets: Int32Array,
  rows: number,
  at: ShardPosition,
  out: Float32Array,
  lane: number,
) => Promise<number>;

/**
 * Engine.gradient over `shard`, which is called with what has been checked.
 * @param lanes each computes one shard at a time, beside the others
 */
export function shardByShard(
  { model, maxRows, threads }: Pick<EngineOptions, "model" | "maxRows" | "threads">,
  shard: ShardGradient,
  lanes: readonly number[] = [0],
): Engine["gradient"] {
  const pool = new VectorPool(layoutOf(model).size);
  let ops: VectorOps | undefined;
  return async (tokens, targets, rows, { seed, step, first, count, round }, out, cancelled) => {
    const N = rows * checkLease(model, maxRows, { tokens, targets, rows, first, count, out });
    const losses = new Array<number>(count).fill(0);

    /** The node (from, size) into `sum`, by these lanes; false where it was cancelled. */
    const node = async (from: number, size: number, sum: Float32Array, by: readonly number[]): Promise<boolean> => {
      if (size === 1) {
        if (cancelled?.()) return false;
        const [start, end] = [(from - first) * N, (from - first + 1) * N];
        const ids = [tokens.subarray(start, end), targets.subarray(start, end)] as const;
        losses[from - first] = await shard(...ids, rows, { seed, step, shard: from }, sum, by[0]!);
      } else if (!(await halves(from, size / 2, sum, by))) return false;
      round?.({ first: from, count: size }, sum);
      return true;
    };

    const halves = async (from: number, size: number, sum: Float32Array, by: readonly number[]): Promise<boolean> => {
      const half = Math.ceil(by.length / 2);
      const goLeft = () => node(from, size, sum, by.slice(0, half));
      if (by.length === 1 && !(await goLeft())) return false;
      const right = pool.take();
      const goRight = () => node(from + size, size, right, by.length > 1 ? by.slice(half) : by);
      try {
        const done = by.length > 1 ? await all([goLeft(), goRight()]) : await goRight();
        if (!done) return false;
        ops ??= bestOps(threads || undefined);
        ops.add(sum, right);
        return true;
      } finally {
        pool.give(right);
      }
    };
    return (await node(first, count, out, lanes)) ? losses : undefined;
  };
}

/** Whether all are done, once all are settled: where one fails, nothing is still under way. */
async function all(parts: Promise<boolean>[]): Promise<boolean> {
  const settled = await Promise.allSettled(parts);
  const failed = settled.find((each) => each.status === "rejected");
  if (failed) throw failed.reason;
  return settled.every((each) => each.status === "fulfilled" && each.value);
}

/** The gradient of one shard of any engine: a lease of one. @returns its mean loss */
export async function shardGradient(
  engine: Engine,
  tokens: Int32Array,
  targets: Int32Array,
  rows: number,
  at: ShardPosition,
  out: Float32Array,
): Promise<number> {
  const { seed, step, shard } = at;
  const losses = await engine.gradient(tokens, targets, rows, { seed, step, first: shard, count: 1 }, out);
  return losses![0]!;
}
