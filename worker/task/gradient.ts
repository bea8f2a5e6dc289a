// Gradients of a lease's shards, added along the tree up to the lease's node.
import type { Task } from "./task.ts";
import { splitWindows } from "./windows.ts";

export const gradientTask: Task = async (engine, { order, windows, seed, pool, round, signal }) => {
  const { first, count, rows, step } = order;
  const { tokens, targets } = splitWindows(windows, 0, count * rows, engine.model.blockSize);
  const vector = pool.take();
  let losses: number[] | undefined;
  try {
    losses = await engine.gradient(
      tokens,
      targets,
      rows,
      { seed, step, first, count, round },
      vector,
      () => signal.aborted,
    );
    return losses && { losses, vector };
  } finally {
    if (!losses) pool.give(vector);
  }
};
