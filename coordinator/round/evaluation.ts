// An evaluation's work: losses of windows of the validation split, in groups of a shard's rows. The groups, and so the
// bits, are the same whoever computes them.
import type { TreeNode } from "../../shared/arithmetic/tree.ts";
import { Losses, type Round, roundName, type Windows } from "./round.ts";

/** Windows of the largest lease: its answer is one number for each. */
const largestWindows = 4096;

export interface EvaluationWork {
  /** Updates applied to the weights. */
  readonly step: number;
  /** Where the windows start, in order. */
  readonly starts: readonly number[];
  /** Windows of a group. */
  readonly rows: number;
  /** (count, T + 1) ids of the windows that begin there. */
  readonly read: (starts: readonly number[]) => Promise<Windows>;
}

export class EvaluationRound implements Round {
  readonly kind = "evaluation";
  readonly name: string;
  readonly step: number;
  readonly units: number;
  readonly largest: number;
  readonly rows: number;
  readonly shards = 0;
  readonly steps = 0;
  readonly #work: EvaluationWork;
  readonly #losses = new Losses();

  constructor(work: EvaluationWork) {
    this.name = roundName("evaluation", work.step);
    this.step = work.step;
    this.rows = work.rows;
    this.units = Math.ceil(work.starts.length / work.rows);
    this.largest = 2 ** Math.floor(Math.log2(Math.max(1, largestWindows / work.rows)));
    this.#work = work;
  }

  windows(node: TreeNode) {
    const starts = this.#starts(node);
    return { count: starts.length, read: () => this.#work.read(starts) };
  }

  expects(node: TreeNode) {
    return { losses: this.#starts(node).length, vector: false };
  }

  refusal(_node: TreeNode, losses: readonly number[]): string | undefined {
    return this.#losses.refusal(losses);
  }

  take({ first }: TreeNode, losses: readonly number[]): void {
    this.#losses.add(first, losses);
  }

  abandon(): void {}

  /** Mean loss in nats, once every window is in. */
  result(): number {
    return this.#losses.mean();
  }

  #starts({ first, count }: TreeNode): readonly number[] {
    return this.#work.starts.slice(first * this.rows, (first + count) * this.rows);
  }
}
