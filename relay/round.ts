// A relay's lease as a round of its own: the node's part of the tree is dealt to the relay's workers, their answers meet
// along it as everywhere, and what comes out is the answer to the lease.
import { type Arriving, Losses, type Round, roundName } from "../coordinator/round/round.ts";
import type { Codec } from "../shared/arithmetic/codec.ts";
import { type NodeRounding, type TreeNode, TreeSum, type VectorPool } from "../shared/arithmetic/tree.ts";
import type { VectorOps } from "../shared/arithmetic/vector.ts";
import { EngineError } from "../shared/errors.ts";
import { bytesOf, frameEnds } from "../shared/wire/frame.ts";
import type { LocalTerms, SampleTerms } from "../shared/wire/protocol.ts";
import type { Assignment, GrowingVector, Outcome } from "../worker/task/task.ts";

/** Values that are compared at once: as bytes, a long vector is longer than an array can be. */
const compared = 2 ** 24;

/** The answer's vector on its way upwards, from the first frame whose values are known. */
class Growing implements GrowingVector {
  readonly #pool: VectorPool;
  readonly #send: (vector: GrowingVector) => void;
  /** The last frame waits until the whole may count. */
  readonly #ends: readonly number[];
  #values: Float32Array | undefined;
  #known = 0;
  #isOver = false;
  #look: () => void = () => {};

  constructor(pool: VectorPool, codec: Codec, send: (vector: GrowingVector) => void) {
    this.#pool = pool;
    this.#send = send;
    this.#ends = frameEnds(pool.length, codec).slice(0, -1);
  }

  get values(): Float32Array {
    this.#values ??= this.#pool.take();
    return this.#values;
  }

  /** @param fill the values from `from` on; false where they cannot count and others are asked for them */
  upTo(known: number, fill: (from: number, out: Float32Array) => boolean): void {
    const before = this.#known;
    for (const end of this.#ends) {
      if (end <= this.#known) continue;
      if (end > known || !fill(this.#known, this.values.subarray(this.#known, end))) break;
      this.#known = end;
    }
    if (this.#known === before) return;
    if (before === 0) this.#send(this);
    this.#look();
  }

  async until(end: number): Promise<boolean> {
    while (this.#known < end && !this.#isOver)
      await new Promise<void>((resolve) => {
        this.#look = resolve;
      });
    return !this.#isOver;
  }

  /** Are these the values that were sent already? Not those of an answer that was refused, or never became whole. */
  isPartOf(whole: Float32Array): boolean {
    if (!this.#values) return true;
    for (let start = 0; start < this.#known; start += compared) {
      const bytes = (vector: Float32Array) => bytesOf(vector.subarray(start, Math.min(start + compared, this.#known)));
      if (Buffer.compare(bytes(this.#values), bytes(whole)) !== 0) return false;
    }
    return true;
  }

  get hasBegun(): boolean {
    return this.#known > 0;
  }

  /** The whole is known. @returns what is sent, the caller's from now on; nothing where nothing was */
  finish(whole: Float32Array): Float32Array | undefined {
    if (this.#known === 0) {
      this.end();
      return undefined;
    }
    this.values.set(whole.subarray(this.#known), this.#known);
    this.#known = whole.length;
    this.#look();
    return this.values;
  }

  /** There is no more of it. */
  end(): void {
    this.#isOver = true;
    if (this.#values) this.#pool.give(this.#values);
    this.#values = undefined;
    this.#look();
  }
}

const halvesOf = ({ first, count }: TreeNode): [TreeNode, TreeNode] => [
  { first, count: count / 2 },
  { first: first + count / 2, count: count / 2 },
];

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
  readonly #losses = new Losses();
  readonly #sum: TreeSum;
  readonly #round: NodeRounding | undefined;
  readonly #arriving = new Map<Arriving, TreeNode>();
  readonly #growing: Growing | undefined;

  constructor(assignment: Assignment, ops: VectorOps, codec: Codec) {
    const { order, pool, round, send } = assignment;
    const { first, count, local, sample } = order;
    this.kind = order.round;
    this.step = order.step;
    this.units = count;
    this.largest = count;
    this.rows = order.rows;
    this.shards = local?.shards ?? (this.kind === "gradient" ? 1 : 0);
    this.steps = local?.learningRates.length ?? 1;
    this.name = roundName(this.kind, order.step, this.steps);
    if (local) this.local = local;
    if (sample) this.sample = sample;
    this.part = { first, units: order.units };
    this.#assignment = assignment;
    this.#ops = ops;
    this.#round = round && ((node, sum, from) => round({ ...node, first: first + node.first }, sum, from));
    this.#sum = new TreeSum({ first: 0, count }, pool, ops, this.#round);
    this.#growing = this.shards > 0 && send ? new Growing(pool, codec, send) : undefined;
  }

  get kept(): readonly TreeNode[] {
    return this.#sum.nodes.map(({ first, count }) => ({ first: first + this.part.first, count }));
  }

  windows(node: TreeNode, done: number) {
    const [first, end] = this.#span(node);
    const { order, windows } = this.#assignment;
    const each = windows.length / order.windows;
    const from = first + done * this.shards * this.rows;
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
    if (!vector) return;
    this.#sum.add(node, vector);
    this.#goOn();
  }

  /** What is known of the node's sum goes upwards before it is whole: as far as all vectors reach that it is the sum of. */
  arrives(node: TreeNode, upload: Arriving): void {
    if (!this.#growing) return;
    this.#arriving.set(upload, node);
    this.#goOn();
  }

  #goOn(): void {
    if (!this.#growing) return;
    for (const upload of this.#arriving.keys()) if (upload.isOver) this.#arriving.delete(upload);
    const known = this.#known({ first: 0, count: this.units });
    this.#growing.upTo(known, (from, out) => {
      this.#fill({ first: 0, count: this.units }, from, out);
      return Number.isFinite(this.#ops.sumOfSquares(out));
    });
  }

  /** How much there is of all that a node is the sum of. */
  #known(node: TreeNode): number {
    const own = this.#vectorOf(node);
    if (own) return own.known;
    if (node.count === 1) return 0;
    const [left, right] = halvesOf(node);
    const known = this.#known(left);
    return known === 0 ? 0 : Math.min(known, this.#known(right));
  }

  /** The values of a node from `from` on, of which all is known. */
  #fill(node: TreeNode, from: number, out: Float32Array): void {
    const own = this.#vectorOf(node);
    if (own) {
      out.set(own.vector.subarray(from, from + out.length));
      return;
    }
    const [left, right] = halvesOf(node);
    const other = new Float32Array(out.length);
    this.#fill(left, from, out);
    this.#fill(right, from, other);
    this.#ops.add(out, other);
    this.#round?.(node, out, from);
  }

  #vectorOf({ first, count }: TreeNode): { vector: Float32Array; known: number } | undefined {
    const whole = this.#sum.at({ first, count });
    if (whole) return { vector: whole, known: whole.length };
    let most: Arriving | undefined;
    for (const [upload, node] of this.#arriving)
      if (node.first === first && node.count === count && upload.known > (most?.known ?? 0)) most = upload;
    return most;
  }

  progress(share: number): void {
    const { losses } = this.expects({ first: 0, count: this.units });
    this.#assignment.progress(share * losses);
  }

  abandon(): void {
    this.#sum.clear();
  }

  get hasBegun(): boolean {
    return this.#growing?.hasBegun ?? false;
  }

  /** Once every unit is in. @throws EngineError where its beginning was sent by somebody whose answer did not count */
  outcome(): Outcome {
    const losses = this.#losses.inOrder();
    if (this.shards === 0) return { losses };
    const sum = this.#sum.take();
    if (this.#growing && !this.#growing.isPartOf(sum)) {
      this.#assignment.pool.give(sum);
      throw new EngineError("the beginning of the sum was of an answer that did not count in the end");
    }
    return { losses, ...this.#answer(sum) };
  }

  /** The answer's vector; where it is on its way already, the rest of it goes there too. */
  #answer(vector: Float32Array): Pick<Outcome, "vector" | "isSent"> {
    const sent = this.#growing?.finish(vector);
    if (!sent) return { vector };
    this.#assignment.pool.give(vector);
    return { vector: sent, isSent: true };
  }

  /** All who were asked agree that it is no number: that is the answer, for the coordinator to judge. */
  hopeless(): Outcome {
    const { losses: count, vector } = this.expects({ first: 0, count: this.units });
    const losses = new Array<number>(count).fill(Number.NaN);
    return vector ? { losses, ...this.#answer(this.#assignment.pool.take().fill(Number.NaN)) } : { losses };
  }

  /** There will be no answer. */
  giveUp(): void {
    this.#growing?.end();
  }

  /** Which of the lease's windows are the node's. */
  #span({ first, count }: TreeNode): [number, number] {
    const { windows } = this.#assignment.order;
    const each = this.shards > 0 ? windows / this.units : this.rows;
    return [first * each, Math.min((first + count) * each, windows)];
  }
}
