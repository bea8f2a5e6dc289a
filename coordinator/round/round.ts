// A round is one kind of work that is dealt to the workers: it owns what a lease carries, what an answer must be, how
// answers meet, and what comes out. The dispatcher deals any of them. A new kind is a file here, one in worker/task/, and
// a name in shared/wire/protocol.ts.
import type { TreeNode } from "../../shared/arithmetic/tree.ts";
import type { RoundKind } from "../../shared/wire/protocol.ts";

export type Windows = Uint16Array | Uint32Array;

export interface Round {
  readonly kind: RoundKind;
  /** For people: "step 12", "validation after step 12". */
  readonly name: string;
  /** Updates applied to the weights that it needs. */
  readonly step: number;
  readonly units: number;
  /** Units of the largest lease: a power of two. */
  readonly largest: number;
  /** Windows of a unit. */
  readonly rows: number;

  /** How many windows a lease of this node carries, and they themselves: (windows, T + 1) ids. */
  windows(node: TreeNode): { count: number; ids: Promise<Windows> | Windows };
  /** What the answer to a lease of this node must have. */
  expects(node: TreeNode): { losses: number; vector: boolean };
  /** Why an answer cannot count, whoever gave it; undefined where it can. */
  refusal(node: TreeNode, losses: readonly number[], vector: Float32Array | undefined): string | undefined;
  /**
   * Take an answer in that can count, each unit once.
   * @param vector (P) the round's from now on
   */
  take(node: TreeNode, losses: readonly number[], vector: Float32Array | undefined): void;
  /** The round was left unfinished: give back what it holds. */
  abandon(): void;
}

/** Losses of the units that are in, to be read in their order: the bits of a mean must not depend on who came first. */
export class Losses {
  readonly #byFirst = new Map<number, readonly number[]>();
  readonly #largest: number;

  /** @param count losses in all: their sum stays finite */
  constructor(count: number) {
    this.#largest = Number.MAX_VALUE / Math.max(1, count);
  }

  /** Why these cannot count, if they cannot. */
  refusal(losses: readonly number[]): string | undefined {
    const bad = losses.find((loss) => !Number.isFinite(loss) || Math.abs(loss) > this.#largest);
    return bad === undefined ? undefined : `a loss of ${bad}`;
  }

  add(first: number, losses: readonly number[]): void {
    this.#byFirst.set(first, losses);
  }

  mean(): number {
    const all = [...this.#byFirst].sort(([a], [b]) => a - b).flatMap(([, losses]) => losses);
    return all.reduce((sum, loss) => sum + loss, 0) / all.length;
  }
}
