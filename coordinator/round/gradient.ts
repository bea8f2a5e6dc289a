// One training step's work: the shards of a batch, whose gradients meet on the tree.
import type { TreeNode, TreeSum } from "../../shared/arithmetic/tree.ts";
import type { VectorOps } from "../../shared/arithmetic/vector.ts";
import { Contributions, type Round, type Windows } from "./round.ts";

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

export class GradientRound implements Round {
  readonly kind = "gradient";
  readonly name: string;
  readonly step: number;
  readonly units: number;
  readonly largest: number;
  readonly rows: number;
  readonly shards = 1;
  readonly steps = 1;
  readonly #work: GradientWork;
  readonly #contributions: Contributions;

  constructor(work: GradientWork) {
    this.name = `step ${work.step + 1}`;
    this.step = work.step;
    this.units = work.shards;
    this.largest = work.shards;
    this.rows = work.rows;
    this.#work = work;
    this.#contributions = new Contributions(work.shards, work.shards, work.sum, work.ops);
  }

  windows({ first, count }: TreeNode) {
    const { windows, shards, rows } = this.#work;
    const each = windows.length / shards;
    return { count: count * rows, ids: windows.subarray(first * each, (first + count) * each) };
  }

  expects({ count }: TreeNode) {
    return { losses: count, vector: true };
  }

  refusal(node: TreeNode, losses: readonly number[], vector: Float32Array): string | undefined {
    return this.#contributions.refusal(node, losses, vector);
  }

  take(node: TreeNode, losses: readonly number[], vector: Float32Array): void {
    this.#contributions.take(node, losses, vector);
  }

  abandon(): void {
    this.#contributions.abandon();
  }

  /** Once every shard is in. @returns their mean loss and the sum of their gradients, (P) of the pool, the caller's */
  result(): { lossNats: number; sum: Float32Array } {
    return this.#contributions.result();
  }
}
