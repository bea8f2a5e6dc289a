// One training step's work: the shards of a batch, whose gradients meet on the tree.
import type { TreeNode, TreeSum } from "../../shared/arithmetic/tree.ts";
import type { VectorOps } from "../../shared/arithmetic/vector.ts";
import { type Round, roundName, SummedRound, type Windows } from "./round.ts";

export interface GradientWork {
  /** Updates applied to the weights. */
  readonly step: number;
  /** S: a power of two. */
  readonly shards: number;
  /** Windows of a shard. */
  readonly rows: number;
  /** (S * rows, T + 1) ids of the whole step. */
  readonly windows: Windows;
  readonly sum: TreeSum;
  readonly ops: VectorOps;
}

export class GradientRound extends SummedRound implements Round {
  readonly kind = "gradient";
  readonly name: string;
  readonly step: number;
  readonly largest: number;
  readonly rows: number;
  readonly shards = 1;
  readonly #work: GradientWork;

  constructor(work: GradientWork) {
    super(work.shards, 1, work.sum, work.ops);
    this.name = roundName("gradient", work.step);
    this.step = work.step;
    this.largest = work.shards;
    this.rows = work.rows;
    this.#work = work;
  }

  windows({ first, count }: TreeNode) {
    const { windows, shards, rows } = this.#work;
    const each = windows.length / shards;
    return { count: count * rows, read: () => windows.subarray(first * each, (first + count) * each) };
  }
}
