// What a worker does with a lease: gradients of its shards, summed along the tree up to the lease's node, or the losses
// of its windows.

import type { VectorPool } from "../shared/arithmetic/tree.ts";
import type { FromCoordinator } from "../shared/wire/protocol.ts";
import type { Engine } from "./engine/contract.ts";

export type LeaseOrder = Extract<FromCoordinator, { type: "lease" }>;

/** (rows, T) tokens and, one place further on, their targets, of windows of T + 1 ids. */
function split(windows: Uint16Array | Uint32Array, first: number, rows: number, T: number) {
  const tokens = new Int32Array(rows * T);
  const targets = new Int32Array(rows * T);
  for (let row = 0; row < rows; row++) {
    const start = (first + row) * (T + 1);
    tokens.set(windows.subarray(start, start + T), row * T);
    targets.set(windows.subarray(start + 1, start + 1 + T), row * T);
  }
  return { tokens, targets };
}

/**
 * Gradient of a training lease.
 * @param windows   (count * rows, T + 1)
 * @param cancelled asked as often as the engine can stop
 * @returns mean loss of each shard and the tree sum of their gradients, (P) of the pool, the caller's from now on;
 *          undefined when cancelled
 */
export async function computeGradient(
  engine: Engine,
  order: LeaseOrder,
  windows: Uint16Array | Uint32Array,
  seed: number,
  pool: VectorPool,
  cancelled: () => boolean,
): Promise<{ losses: number[]; gradient: Float32Array } | undefined> {
  const { first, count, rows, step } = order;
  const { tokens, targets } = split(windows, 0, count * rows, engine.model.blockSize);
  const gradient = pool.take();
  let losses: number[] | undefined;
  try {
    losses = await engine.gradient(tokens, targets, rows, { seed, step, first, count }, gradient, cancelled);
    return losses && { losses, gradient };
  } finally {
    if (!losses) pool.give(gradient);
  }
}

/**
 * Loss of every window of an evaluation lease, in groups of `rows`: the groups, and so the bits, are the same whoever
 * computes them.
 */
export async function computeLosses(
  engine: Engine,
  order: LeaseOrder,
  windows: Uint16Array | Uint32Array,
  cancelled: () => boolean,
): Promise<number[] | undefined> {
  const T = engine.model.blockSize;
  const windowCount = windows.length / (T + 1);
  const losses: number[] = [];
  for (let first = 0; first < windowCount; first += order.rows) {
    if (cancelled()) return undefined;
    const rows = Math.min(order.rows, windowCount - first);
    const { tokens, targets } = split(windows, first, rows, T);
    losses.push(...(await engine.losses(tokens, targets, rows)));
  }
  return losses;
}
