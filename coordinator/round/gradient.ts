// One training step's work: the shards of a batch, whose gradients meet on the tree.
import type { TreeNode, TreeSum } from "../../shared/arithmetic/tree.ts";
import type { VectorOps } from "../../shared/arithmetic/vector.ts";
import { Losses, type Round, type Windows } from "./round.ts";

/** Largest float32. */
const largestFloat = 3.4028234663852886e38;

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
  readonly #work: GradientWork;
  readonly #losses: Losses;

  constructor(work: GradientWork) {
    this.name = `step ${work.step + 1}`;
    this.step = work.step;
    this.units = work.shards;
    this.largest = work.shards;
    this.rows = work.rows;
    this.#work = work;
    this.#losses = new Losses(work.shards);
  }

  windows({ first, count }: TreeNode) {
    const { windows, shards, rows } = this.#work;
    const each = windows.length / shards;
    return { count: count * rows, ids: windows.subarray(first * each, (first + count) * each) };
  }

  expects({ count }: TreeNode) {
    return { losses: count, vector: true };
  }

  refusal({ count }: TreeNode, losses: readonly number[], vector: Float32Array): string | undefined {
    const norm = Math.sqrt(this.#work.ops.sumOfSquares(vector));
    // No element of a sum is larger than the norms of its parts together: what passes here cannot overflow the sum.
    if (!(norm <= (largestFloat * count) / this.units)) return `a gradient of norm ${norm}`;
    return this.#losses.refusal(losses);
  }

  take(node: TreeNode, losses: readonly number[], vector: Float32Array): void {
    this.#losses.add(node.first, losses);
    this.#work.sum.add(node, vector);
  }

  abandon(): void {
    this.#work.sum.clear();
  }

  /** Once every shard is in. @returns their mean loss and the sum of their gradients, (P) of the pool, the caller's */
  result(): { lossNats: number; gradientSum: Float32Array } {
    return { lossNats: this.#losses.mean(), gradientSum: this.#work.sum.take() };
  }
}
