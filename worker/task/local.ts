// The replicas of a lease, one after another: each trains by itself from what was sent, and what it gives meets the others
// on the tree up to the lease's node: its outer gradient, weights before minus weights after, and its moments behind it
// where the run averages them.
import { bestOps } from "../../shared/arithmetic/native.ts";
import { TreeSum, type VectorPool } from "../../shared/arithmetic/tree.ts";
import { layoutOf } from "../../shared/family/layout.ts";
import type { LocalWatch } from "../engine/contract.ts";
import { localTraining } from "../engine/local.ts";
import type { Task } from "./task.ts";
import { splitWindows } from "./windows.ts";

export const localTask: Task = async (engine, assignment) => {
  const { order, windows, seed, sent, pool, round, signal, progress } = assignment;
  const { first, count, rows } = order;
  const { shards, learningRates, updates, optimizer, begun = 0 } = order.local!;
  const step = order.step + begun;
  const P = layoutOf(engine.model).size;
  const before = sent.subarray(0, P);
  const sum = new TreeSum({ first, count }, pool, bestOps(), round);
  const train = localTraining(engine);
  const losses: number[] = [];
  try {
    for (let replica = first; replica < first + count; replica++) {
      const each = order.windows / count;
      const { tokens, targets } = splitWindows(windows, (replica - first) * each, each, engine.model.blockSize);
      const state = assignment.state ?? stateAtFirst(sent, P, pool);
      const [vector, ...moments] = state as [Float32Array, ...Float32Array[]];
      const [weights, m, v] = partsOf(state, P);
      const done = losses.length;
      let leaves = false;
      const watch: LocalWatch = {
        progress: (steps) => {
          progress(done + steps);
          if (replica === first && Number.isInteger(steps)) leaves = assignment.leaves?.(steps) ?? false;
        },
        stopped: () => leaves || signal.aborted,
      };
      const at = { seed, step, first: replica * shards, count: shards };
      const result = await train(
        tokens,
        targets,
        { at, rows, learningRates, updates, optimizer },
        { weights, m, v },
        watch,
      );
      if (result.losses.length < learningRates.length) {
        if (leaves) return { losses: result.losses, state };
        for (const each of state) pool.give(each);
        return undefined;
      }
      for (const moment of moments) pool.give(moment);
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

/** A replica's weights and moments before its first step: one vector where all of it travels, else three. */
function stateAtFirst(sent: Float32Array, P: number, pool: VectorPool): Float32Array[] {
  const vector = pool.take();
  vector.set(sent);
  return sent.length > P ? [vector] : [vector, pool.take().fill(0), pool.take().fill(0)];
}

/** @returns (P) each: weights, m and v */
function partsOf(state: readonly Float32Array[], P: number) {
  const [vector] = state as [Float32Array];
  const parts = state.length > 1 ? state : [0, 1, 2].map((i) => vector.subarray(i * P, (i + 1) * P));
  return parts as readonly [Float32Array, Float32Array, Float32Array];
}
