// A round is one kind of work that is dealt to the workers: it owns what a lease carries, what an answer must be, how
// answers meet, and what comes out. The dispatcher deals any of them. A new kind is a file here, one in worker/task/, and
// a name in shared/wire/protocol.ts.
import type { TreeNode, TreeSum } from "../../shared/arithmetic/tree.ts";
import type { VectorOps } from "../../shared/arithmetic/vector.ts";
import type { LocalTerms, RoundKind, SampleTerms } from "../../shared/wire/protocol.ts";

export type Windows = Uint16Array | Uint32Array;

/** A round's name for people. @param step updates applied before it @param steps that it trains */
export function roundName(kind: RoundKind, step: number, steps = 1): string {
  if (kind === "evaluation") return `validation after step ${step}`;
  if (kind === "sample") return `sample after step ${step}`;
  return steps === 1 ? `step ${step + 1}` : `steps ${step + 1} to ${step + steps}`;
}

/** The vector of an answer on its way in. */
export interface Arriving {
  readonly vector: Float32Array;
  /** Values that are there, from its beginning on. */
  readonly known: number;
  /** Its vector is another's now. */
  readonly isOver: boolean;
}

export interface Round {
  readonly kind: RoundKind;
  /** For people: "step 12", "validation after step 12". */
  readonly name: string;
  /** Updates applied to the weights that it needs. */
  readonly step: number;
  readonly units: number;
  /** Units of the largest lease: a power of two. */
  readonly largest: number;
  /** Windows of a shard, or of a group. */
  readonly rows: number;
  /** Shards of a step that a unit computes, and steps that it computes them of: none where it trains nothing. */
  readonly shards: number;
  readonly steps: number;
  /** Of local steps: what a lease says of them. */
  readonly local?: LocalTerms;
  /** Of a sample: what its lease says beside its window. */
  readonly sample?: SampleTerms;
  /** Where it is a part of another round (a relay's): its first unit there, and how many there are. */
  readonly part?: { readonly first: number; readonly units: number };

  /** Nodes whose sums it holds, by their place in that other round. */
  readonly kept?: readonly TreeNode[];

  /** How many windows a lease of this node is of, and they themselves: (windows, T + 1) ids. @param done steps that are not of it */
  windows(node: TreeNode, done: number): { count: number; read: () => Promise<Windows> | Windows };
  /** What the answer to a lease of this node must have. */
  expects(node: TreeNode): { losses: number; vector: boolean };
  /** Why an answer cannot count, whoever gave it; undefined where it can. */
  refusal(node: TreeNode, losses: readonly number[], vector: Float32Array | undefined): string | undefined;
  /**
   * Take an answer in that can count, each unit once.
   * @param vector (P) the round's from now on
   */
  take(node: TreeNode, losses: readonly number[], vector: Float32Array | undefined): void;
  /** Hears how much there is of the vector of an answer that is on its way. */
  arrives?(node: TreeNode, upload: Arriving): void;
  /** Hears, of long leases, how much of all units is computed: 0 to 1. */
  progress?(share: number): void;
  /** The round was left unfinished: give back what it holds. */
  abandon(): void;
}

/** Largest float32. */
const largestFloat = 3.4028234663852886e38;

/** Losses of the units that are in, to be read in their order: the bits of a mean must not depend on who came first. */
export class Losses {
  readonly #byFirst = new Map<number, readonly number[]>();

  /** Why these cannot count, if they cannot: no logits in float32 have a larger one, and no number of them overflows. */
  refusal(losses: readonly number[]): string | undefined {
    const bad = losses.find((loss) => !(Math.abs(loss) <= largestFloat));
    return bad === undefined ? undefined : `a loss of ${bad}`;
  }

  add(first: number, losses: readonly number[]): void {
    this.#byFirst.set(first, losses);
  }

  inOrder(): number[] {
    return [...this.#byFirst].sort(([a], [b]) => a - b).flatMap(([, losses]) => losses);
  }

  mean(): number {
    const all = this.inOrder();
    return all.reduce((sum, loss) => sum + loss, 0) / all.length;
  }
}

/** What rounds have in common whose answers are vectors: their losses, and their sum along the tree. */
export abstract class SummedRound {
  readonly units: number;
  readonly steps: number;
  readonly #losses = new Losses();
  readonly #sum: TreeSum;
  readonly #ops: VectorOps;

  /** @param steps of each unit, with a loss each @param sum over all units, empty */
  constructor(units: number, steps: number, sum: TreeSum, ops: VectorOps) {
    this.units = units;
    this.steps = steps;
    this.#sum = sum;
    this.#ops = ops;
  }

  get kept(): readonly TreeNode[] {
    return this.#sum.nodes;
  }

  expects({ count }: TreeNode) {
    return { losses: count * this.steps, vector: true };
  }

  refusal({ count }: TreeNode, losses: readonly number[], vector: Float32Array): string | undefined {
    const norm = Math.sqrt(this.#ops.sumOfSquares(vector));
    // No element of a sum is larger than the norms of its parts together: what passes here cannot overflow the sum.
    if (!(norm <= (largestFloat * count) / this.units)) return `a gradient of norm ${norm}`;
    return this.#losses.refusal(losses);
  }

  take(node: TreeNode, losses: readonly number[], vector: Float32Array): void {
    this.#losses.add(node.first, losses);
    this.#sum.add(node, vector);
  }

  abandon(): void {
    this.#sum.clear();
  }

  /** Once every unit is in. @returns the mean loss of their steps, and the sum of what they gave, of the pool and the caller's */
  result(): { lossNats: number; sum: Float32Array } {
    return { lossNats: this.#losses.mean(), sum: this.#sum.take() };
  }
}
