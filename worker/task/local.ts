// The replicas of a lease, one after another: each trains by itself from what was sent, and what it gives meets the others
// on the tree up to the lease's node: its outer gradient, weights before minus weights after, and its moments behind it
// where the run averages them.
import { bestOps } from "../../shared/arithmetic/native.ts";
import { TreeSum } from "../../shared/arithmetic/tree.ts";
import { layoutOf } from "../../shared/family/layout.ts";
import { localTraining } from "../engine/local.ts";
import type { Task } from "./task.ts";
import { splitWindows } from "./windows.ts";

export const localTask: Task = async (engine, { order, windows, seed, sent, pool, round, signal, progress }) => {
  const { first, count, rows, step } = order;
  const { shards, learningRates, updates, optimizer } = order.local!;
  const P = layoutOf(engine.model).size;
  const before = sent.subarray(0, P);
  const sum = new TreeSum({ first, count }, pool, bestOps(), round);
  const train = localTraining(engine);
  const losses: number[] = [];
  try {
    for (let replica = first; replica < first + count; replica++) {
      const each = order.windows / count;
      const { tokens, targets } = splitWindows(windows, (replica - first) * each, each, engine.model.blockSize);
      const vector = pool.take();
      vector.set(sent);
      const weights = vector.subarray(0, P);
      const averages = vector.length > P;
      const [m, v] = averages ? [vector.subarray(P, 2 * P), vector.subarray(2 * P)] : [pool.take(), pool.take()];
      if (!averages) for (const moment of [m, v]) moment.fill(0);
      const at = { seed, step, first: replica * shards, count: shards };
      const done = losses.length;
      const result = await train(
        tokens,
        targets,
        { at, rows, learningRates, updates, optimizer },
        { weights, m, v },
        { progress: (steps) => progress(done + steps), stopped: () => signal.aborted },
      );
      if (!averages) for (const moment of [m, v]) pool.give(moment);
      if (result.losses.length < learningRates.length) {
        pool.give(vector);
        return undefined;
      }
      losses.push(...result.losses);
      for (let i = 0; i < P; i++) weights[i] = before[i]! - weights[i]!;
      const node = { first: replica, count: 1 };
      round?.(node, vector);
      sum.add(node, vector);
    }
    return { losses, vector: sum.take() };
  } finally {
    sum.clear();
    await engine.setWeights(before);
  }
};
