// A round of local steps (DiLoCo, Douillard et al. 2023, arXiv:2311.08105): R replicas of the model train apart for H steps
// from the same weights, each on its own shards of those steps' batches, then exchange. What a replica gives is its outer
// gradient, weights before minus weights after, and where they are averaged its moments behind it in the same vector; they
// meet on the tree like the gradients of shards. Whoever computes a replica, its bits are the same.
import type { TreeNode, TreeSum } from "../../shared/arithmetic/tree.ts";
import type { VectorOps } from "../../shared/arithmetic/vector.ts";
import { batchesOf, type Sampler, startsOf } from "../../shared/sampler.ts";
import { type LocalTerms, largestLease } from "../../shared/wire/protocol.ts";
import { type Round, roundName, SummedRound, type Windows } from "./round.ts";

export interface LocalWork {
  /** Updates applied to the weights. */
  readonly step: number;
  /** R: a power of two. */
  readonly replicas: number;
  /** Windows of a shard. */
  readonly rows: number;
  readonly terms: LocalTerms;
  /** Window starts of a step, shard after shard. */
  readonly starts: Sampler;
  /** (count, T + 1) ids of the windows that begin there. */
  readonly read: (starts: readonly number[]) => Promise<Windows>;
  readonly sum: TreeSum;
  readonly ops: VectorOps;
}

export class LocalRound extends SummedRound implements Round {
  readonly kind = "local";
  readonly name: string;
  readonly step: number;
  readonly largest: number;
  readonly rows: number;
  readonly shards: number;
  readonly local: LocalTerms;
  readonly #work: LocalWork;
  readonly #batches: number[][];

  constructor(work: LocalWork) {
    const { step, replicas, rows, terms } = work;
    super(replicas, terms.learningRates.length, work.sum, work.ops);
    this.name = roundName("local", step, this.steps);
    this.step = step;
    this.largest = Math.min(replicas, 2 ** Math.floor(Math.log2(largestLease / this.steps)));
    this.rows = rows;
    this.shards = terms.shards;
    this.local = terms;
    this.#work = work;
    this.#batches = batchesOf(work.starts, step, this.steps);
  }

  windows(node: TreeNode, done: number) {
    const starts = startsOf(node, this, this.#batches.slice(done));
    return { count: starts.length, read: () => this.#work.read(starts) };
  }
}
