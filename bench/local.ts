// One training in this process, no sockets: synchronous, or in rounds of H local steps on R replicas (DiLoCo, Douillard
// et al. 2023, arXiv:2311.08105) over a wire of few bits. For the table of what that costs in loss; the rounds of real
// runs do the same over workers. Every value that would travel is rounded as it would be.

import type { Dataset } from "../coordinator/data/dataset.ts";
import { AdamW } from "../coordinator/optimizer/adamw.ts";
import { Outer } from "../coordinator/optimizer/outer.ts";
import { roundedUpdates } from "../coordinator/optimizer/rounded.ts";
import { learningRateAt } from "../coordinator/optimizer/schedule.ts";
import { codecOf, nodeRounding, type WireFormat } from "../shared/arithmetic/codec.ts";
import { bestCodec, bestOps } from "../shared/arithmetic/native.ts";
import { TreeSum, VectorPool } from "../shared/arithmetic/tree.ts";
import type { Options } from "../shared/config.ts";
import { initialWeights } from "../shared/family/init.ts";
import { layoutOf } from "../shared/family/layout.ts";
import { randomSampler } from "../shared/sampler.ts";
import type { Engine } from "../worker/engine/contract.ts";
import { localTask } from "../worker/task/local.ts";

/** What becomes of the replicas' moments between rounds: averaged along the tree, or zeros again. */
export type InnerState = "averaged" | "fresh";

export interface LocalPlan {
  /** Steps between two exchanges. */
  readonly localSteps: number;
  readonly replicas: number;
  /** Of outer gradients up and updates down. */
  readonly wire: WireFormat;
  readonly innerState: InnerState;
  readonly outer: { readonly learningRate: number; readonly momentum: number };
  /** A round begins from what was known a round earlier, so that one is exchanged while the next is computed. */
  readonly late: boolean;
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

/**
 * Train for options.steps steps of options.batchSize windows, shared among the replicas: equal tokens for every plan.
 * @param engine holds at least batchSize / replicas rows
 * @returns validation loss at the end, in nats
 */
export async function trainLocally(
  engine: Engine,
  dataset: Dataset,
  options: Options,
  { localSteps: H, replicas: R, wire, innerState, outer, late }: LocalPlan,
  progress: (step: number) => void,
): Promise<number> {
  const layout = layoutOf(engine.model);
  const P = layout.size;
  const ops = bestOps();
  const { seed, steps, batchSize, beta1, beta2, eps, weightDecay, gradientClip } = options;
  const rows = batchSize / R;
  const T = dataset.blockSize;
  const sampler = randomSampler(seed, batchSize, dataset.train.length - T);
  const weights = initialWeights(layout, seed, ops);
  const exchange = { innerState, outerMomentum: outer.momentum };
  const optimizer = roundedUpdates(
    P,
    { codec: bestCodec(wire), seed, ops },
    (state) => new Outer(layout, exchange, ops, state),
  );
  const vectors = optimizer.sent ? 3 : 1;
  const codec = codecOf(wire, vectors, P, bestCodec);
  const pool = new VectorPool(vectors * P);
  /** What a round begins from, and how many updates its moments hold. */
  const known = (updates: number) => ({ sent: (optimizer.sent?.(weights) ?? weights).slice(), updates });
  let [before, now] = [known(0), known(0)];

  for (let step = 0; step < steps; step += H) {
    const count = Math.min(H, steps - step);
    const round = nodeRounding(codec, { seed, step, units: R });
    const sum = new TreeSum({ first: 0, count: R }, pool, ops, round);
    const { sent, updates } = late ? before : now;
    const local = {
      shards: 1,
      learningRates: Array.from({ length: count }, (_, h) => learningRateAt(step + h, options)),
      updates,
      optimizer: { beta1, beta2, eps, weightDecay, gradientClip },
    };
    for (let r = 0; r < R; r++) {
      const starts = local.learningRates.flatMap((_, h) => sampler(step + h).slice(r * rows, (r + 1) * rows));
      const windows = new Uint32Array(starts.length * (T + 1));
      const row = new Int32Array(T + 1);
      for (const [i, start] of starts.entries()) {
        await dataset.read("train", start, T + 1, row);
        windows.set(row, i * (T + 1));
      }
      const order = { type: "lease", lease: 0, round: "local", step, units: R, first: r, count: 1 } as const;
      const outcome = await localTask(engine, {
        order: { ...order, rows, windows: starts.length, local },
        ...{ windows, seed, sent, pool, round },
        signal: new AbortController().signal,
        progress: () => {},
      });
      sum.add({ first: r, count: 1 }, outcome!.vector!);
    }
    const whole = sum.take();
    optimizer.apply(weights, whole, { units: R, learningRate: outer.learningRate, count: step + count });
    pool.give(whole);
    [before, now] = [now, known(innerState === "averaged" ? updates + count : 0)];
    progress(step + count);
  }
  await engine.setWeights(weights);
  return await validate(engine, dataset, rows);
}

/**
 * The same tokens, every step exchanged over the wire: the gradient of each shard up, the update down.
 * @param engine holds at least batchSize / shards rows
 * @returns validation loss at the end, in nats
 */
export async function trainSynchronously(
  engine: Engine,
  dataset: Dataset,
  options: Options,
  wire: WireFormat,
  progress: (step: number) => void,
): Promise<number> {
  const layout = layoutOf(engine.model);
  const P = layout.size;
  const ops = bestOps();
  const { seed, steps, batchSize, shards } = options;
  const sampler = randomSampler(seed, batchSize, dataset.train.length - dataset.blockSize);
  const codec = bestCodec(wire);
  const optimizer = roundedUpdates(P, { codec, seed, ops }, (state) => new AdamW(layout, options, ops, state));
  const weights = initialWeights(layout, seed, ops);
  const sum = new Float32Array(P);
  const rows = batchSize / shards;
  for (let step = 0; step < steps; step++) {
    const { tokens, targets } = await windowsOf(dataset, "train", sampler(step));
    await engine.setWeights(weights);
    const round = nodeRounding(codec, { seed, step, units: shards });
    await engine.gradient(tokens, targets, rows, { seed, step, first: 0, count: shards, round }, sum);
    optimizer.apply(weights, sum, { units: shards, learningRate: learningRateAt(step, options), count: step + 1 });
    progress(step + 1);
  }
  await engine.setWeights(weights);
  return await validate(engine, dataset, rows);
}
