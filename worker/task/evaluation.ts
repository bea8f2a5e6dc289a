// Losses of a lease's windows, in groups of `rows`: the groups, and so the bits, are the same whoever computes them.
import type { Task } from "./task.ts";
import { splitWindows } from "./windows.ts";

export const evaluationTask: Task = async (engine, { order, windows, signal }) => {
  const losses: number[] = [];
  for (let first = 0; first < order.windows; first += order.rows) {
    if (signal.aborted) return undefined;
    const rows = Math.min(order.rows, order.windows - first);
    const { tokens, targets } = splitWindows(windows, first, rows, engine.model.blockSize);
    losses.push(...(await engine.losses(tokens, targets, rows)));
  }
  return { losses };
};
