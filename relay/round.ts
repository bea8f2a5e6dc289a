// A relay's lease as a round of its own: the node's part of the tree is dealt to the relay's workers, their answers meet
// along it as everywhere, and what comes out is the answer to the lease.
import { Losses, type Round } from "../coordinator/round/round.ts";
import { type TreeNode, TreeSum } from "../shared/arithmetic/tree.ts";
import type { VectorOps } from "../shared/arithmetic/vector.ts";
import type { LocalTerms, SampleTerms } from "../shared/wire/protocol.ts";
import type { Assignment, Outcome } from "../worker/task/task.ts";

export class LeasedRound implements Round {
  readonly kind: Round["kind"];
  readonly name: string;
  readonly step: number;
  readonly units: number;
  readonly largest: number;
  readonly rows: number;
  readonly shards: number;
  readonly steps: number;
  readonly local?: LocalTerms;
  readonly sample?: SampleTerms;
  readonly part: { readonly first: number; readonly units: number };
  readonly #assignment: Assignment;
  readonly #ops: VectorOps;
  readonly #losses: Losses;
  readonly #sum: TreeSum;

  constructor(assignment: Assignment, ops: VectorOps) {
    const { order, pool, round } = assignment;
    const { first, count, local, sample } = order;
    this.kind = order.round;
    this.name = `${order.round} of step ${order.step + 1}`;
    this.step = order.step;
    this.units = count;
    this.largest = count;
    this.rows = order.rows;
    this.shards = local?.shards ?? (this.kind === "gradient" ? 1 : 0);
    this.steps = local?.learningRates.length ?? 1;
    if (local) this.local = local;
    if (sample) this.sample = sample;
    this.part = { first, units: order.units };
    this.#assignment = assignment;
    this.#ops = ops;
    this.#losses = new Losses(order.windows);
    this.#sum = new TreeSum({ first: 0, count }, pool, ops, (node, sum) =>
      round?.({ ...node, first: first + node.first }, sum),
    );
  }

  get kept(): number {
    return this.#sum.size;
  }

  windows(node: TreeNode) {
    const [from, end] = this.#span(node);
    const { order, windows } = this.#assignment;
    const each = windows.length / order.windows;
    return { count: end - from, read: () => windows.subarray(from * each, end * each) };
  }

  expects(node: TreeNode) {
    if (this.shards > 0) return { losses: node.count * this.steps, vector: true };
    if (this.sample) return { losses: this.sample.tokens, vector: false };
    const [from, end] = this.#span(node);
    return { losses: end - from, vector: false };
  }

  refusal(_node: TreeNode, losses: readonly number[], vector: Float32Array | undefined): string | undefined {
    const norm = vector && Math.sqrt(this.#ops.sumOfSquares(vector));
    if (norm !== undefined && !Number.isFinite(norm)) return `a gradient of norm ${norm}`;
    return this.#losses.refusal(losses);
  }

  take(node: TreeNode, losses: readonly number[], vector: Float32Array | undefined): void {
    this.#losses.add(node.first, losses);
    if (vector) this.#sum.add(node, vector);
  }

  progress(share: number): void {
    const { losses } = this.expects({ first: 0, count: this.units });
    this.#assignment.progress(Math.floor(share * losses));
  }

  abandon(): void {
    this.#sum.clear();
  }

  /** Once every unit is in. */
  outcome(): Outcome {
    const losses = this.#losses.inOrder();
    return this.shards > 0 ? { losses, vector: this.#sum.take() } : { losses };
  }

  /** All who were asked agree that it is no number: that is the answer, for the coordinator to judge. */
  hopeless(): Outcome {
    const { losses: count, vector } = this.expects({ first: 0, count: this.units });
    const losses = new Array<number>(count).fill(Number.NaN);
    return vector ? { losses, vector: this.#assignment.pool.take().fill(Number.NaN) } : { losses };
  }

  /** Which of the lease's windows are the node's. */
  #span({ first, count }: TreeNode): [number, number] {
    const { windows } = this.#assignment.order;
    const each = this.shards > 0 ? windows / this.units : this.rows;
    return [first * each, Math.min((first + count) * each, windows)];
  }
}
