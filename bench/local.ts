// One training in this process, no sockets: synchronous, or in rounds of H local steps on R replicas (DiLoCo, Douillard
// et al. 2023, arXiv:2311.08105) over a wire of few bits. For the table of what that costs in loss; the rounds of real
// runs do the same over workers. Every value that would travel is rounded as it would be.

import type { Dataset } from "../coordinator/data/dataset.ts";
import { randomSampler } from "../coordinator/data/sampler.ts";
import { Nesterov } from "../coordinator/optimizer/nesterov.ts";
import { learningRateAt } from "../coordinator/optimizer/schedule.ts";
import { type Codec, heapIndex, type WireFormat } from "../shared/arithmetic/codec.ts";
import { bestCodec, bestOps } from "../shared/arithmetic/native.ts";
import { TreeSum, VectorPool } from "../shared/arithmetic/tree.ts";
import type { Options } from "../shared/config.ts";
import { initialWeights } from "../shared/family/init.ts";
import { layoutOf } from "../shared/family/layout.ts";
import type { Engine } from "../worker/engine/contract.ts";
import { localTraining } from "../worker/engine/local.ts";

/** What becomes of the replicas' moments between rounds: averaged along the tree, or zeros again. */
export type InnerState = "averaged" | "anew";

export interface LocalPlan {
  /** Steps between two exchanges; 1 with one replica is synchronous training. */
  readonly localSteps: number;
  readonly replicas: number;
  /** Of outer gradients up and updates down. */
  readonly wire: WireFormat;
  readonly innerState: InnerState;
  readonly outer: { readonly learningRate: number; readonly momentum: number };
}

/** Window ids of `starts` as an engine takes them. */
async function windowsOf(dataset: Dataset, split: "train" | "val", starts: ArrayLike<number>) {
  const T = dataset.blockSize;
  const [tokens, targets] = [new Int32Array(starts.length * T), new Int32Array(starts.length * T)];
  const row = new Int32Array(T + 1);
  for (let i = 0; i < starts.length; i++) {
    await dataset.read(split, starts[i]!, T + 1, row);
    tokens.set(row.subarray(0, T), i * T);
    targets.set(row.subarray(1), i * T);
  }
  return { tokens, targets };
}

/** Mean loss in nats over all consecutive windows of the validation split. */
export async function validate(engine: Engine, dataset: Dataset, rows: number): Promise<number> {
  const all = dataset.consecutive("val");
  let sum = 0;
  for (let from = 0; from < all.length; from += rows) {
    const { tokens, targets } = await windowsOf(dataset, "val", all.subarray(from, from + rows));
    for (const loss of await engine.losses(tokens, targets, tokens.length / dataset.blockSize)) sum += loss;
  }
  return sum / all.length;
}

const moments = ["m", "v"] as const;

/** The state's own wire: moments lose their small values in blocks that share a scale. */
const stateWire = (wire: WireFormat): WireFormat => (wire === "float32" ? "float32" : "bf16");

/**
 * Train for options.steps steps of options.batchSize windows, shared among the replicas: equal tokens for every plan.
 * @param engine holds at least batchSize / replicas rows
 * @returns validation loss at the end, in nats
 */
export async function trainLocally(
  engine: Engine,
  dataset: Dataset,
  options: Options,
  { localSteps: H, replicas: R, wire, innerState, outer }: LocalPlan,
  progress: (step: number) => void,
): Promise<number> {
  const layout = layoutOf(engine.model);
  const P = layout.size;
  const ops = bestOps();
  const pool = new VectorPool(P);
  const { seed, steps, batchSize, beta1, beta2, eps, weightDecay, gradientClip } = options;
  const [up, state] = [bestCodec(wire), bestCodec(stateWire(wire))];
  const rows = batchSize / R;
  const sampler = randomSampler(seed, batchSize, dataset.train.length - dataset.blockSize);
  const train = localTraining(engine, ops);
  const weights = initialWeights(layout, seed, ops);
  const optimizer = new Nesterov(layout, { momentum: outer.momentum }, ops);
  const shared = { m: new Float32Array(P), v: new Float32Array(P) };
  const carried = new Float32Array(P);
  const before = new Float32Array(P);

  for (let step = 0, round = 0; step < steps; step += H, round++) {
    const count = Math.min(H, steps - step);
    const starts = Array.from({ length: count }, (_, h) => sampler(step + h));
    /** One of the three sums of a round; each draws its rounding from numbers of its own. */
    const treeOf = (codec: Codec, stream: number) => {
      const at = (first: number, size: number) => ({
        seed,
        step: round,
        node: 2 * R * stream + heapIndex({ first, count: size }, R),
      });
      const sum = new TreeSum({ first: 0, count: R }, pool, ops, (node, value) =>
        codec.round(value, at(node.first, node.count)),
      );
      return (replica: number, value: Float32Array) => {
        codec.round(value, at(replica, 1));
        sum.add({ first: replica, count: 1 }, value);
        return sum;
      };
    };
    const trees = { weights: treeOf(up, 0), m: treeOf(state, 1), v: treeOf(state, 2) };
    let sums: { weights: TreeSum; m: TreeSum; v: TreeSum } | undefined;
    for (let r = 0; r < R; r++) {
      const own = { weights: pool.take(), m: pool.take(), v: pool.take() };
      own.weights.set(weights);
      for (const name of moments) {
        if (innerState === "averaged") own[name].set(shared[name]);
        else own[name].fill(0);
      }
      const mine = starts.flatMap((batch) => batch.slice(r * rows, (r + 1) * rows));
      const { tokens, targets } = await windowsOf(dataset, "train", mine);
      await train(
        tokens,
        targets,
        {
          at: { seed, step, first: r, count: 1 },
          rows,
          learningRates: starts.map((_, h) => learningRateAt(step + h, options)),
          updates: innerState === "averaged" ? step : 0,
          optimizer: { beta1, beta2, eps, weightDecay, gradientClip },
        },
        own,
      );
      const outerGradient = pool.take();
      outerGradient.set(weights);
      ops.subtract(outerGradient, own.weights);
      pool.give(own.weights);
      sums = { weights: trees.weights(r, outerGradient), m: trees.m(r, own.m), v: trees.v(r, own.v) };
    }
    for (const name of moments) {
      const sum = sums![name].take();
      for (let i = 0; i < P; i++) shared[name][i] = sum[i]! / R;
      pool.give(sum);
    }
    const sum = sums!.weights.take();
    before.set(weights);
    optimizer.apply(weights, sum, { units: R, learningRate: outer.learningRate, count: round + 1 });
    pool.give(sum);
    if (wire !== "float32") {
      // Down goes the rounded update, and the coordinator's own copy moves by what was sent.
      ops.subtract(weights, before);
      up.roundCarrying(weights, carried, { seed, step: round, node: 0 });
      ops.add(weights, before);
    }
    progress(step + count);
  }
  await engine.setWeights(weights);
  return await validate(engine, dataset, rows);
}

/** The same tokens, one update a step over the whole batch. */
export async function trainSynchronously(
  engine: Engine,
  dataset: Dataset,
  options: Options,
  shards: number,
  progress: (step: number) => void,
): Promise<number> {
  const layout = layoutOf(engine.model);
  const P = layout.size;
  const ops = bestOps();
  const { seed, steps, batchSize, beta1, beta2, eps, weightDecay, gradientClip } = options;
  const sampler = randomSampler(seed, batchSize, dataset.train.length - dataset.blockSize);
  const train = localTraining(engine, ops);
  const state = { weights: initialWeights(layout, seed, ops), m: new Float32Array(P), v: new Float32Array(P) };
  const rows = batchSize / shards;
  for (let step = 0; step < steps; step++) {
    const { tokens, targets } = await windowsOf(dataset, "train", sampler(step));
    const steps = {
      at: { seed, step, first: 0, count: shards },
      rows,
      learningRates: [learningRateAt(step, options)],
      updates: step,
      optimizer: { beta1, beta2, eps, weightDecay, gradientClip },
    };
    await train(tokens, targets, steps, state);
    progress(step + 1);
  }
  return await validate(engine, dataset, rows);
}
