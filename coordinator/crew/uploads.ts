// Room for vectors on their way in, and for those that wait in the round's sum for their siblings: so many at once,
// however many workers send. Who finds no room waits at its own end of the wire, which loses nothing: the coordinator's
// link is the limit then, not its memory.
//
// No order of arrival can fill the room for good. Room is kept for the node that holds the first unit missing from the
// sum, and for all that follow: what is left of the nodes before a unit takes no more than one vector for each level of
// the tree up to there, and the nodes behind it are known. The others come in the order of the tree.
//
// The state of one replica that was left in its middle (begun.ts) has room of its own beside that; more of them take theirs
// from the gradients, as far as the sum can do without it.
import type { TreeNode, VectorPool } from "../../shared/arithmetic/tree.ts";

/** Room for vectors, beside one state's: more only where one of each level of the tree, and two, take more. */
export const roomBytes = 2 ** 32;
/** A sender that takes so many times as long as the others do has had its turn. */
const patience = 4;

/** One vector on its way in. */
export interface Upload {
  readonly vector: Float32Array;
  readonly since: number;
  /** Values that are there, from its beginning on. */
  known: number;
  /** Whole, or dropped: its vector is another's now. */
  isOver: boolean;
}

/** Who wants to send the sum of a node. */
export interface Sender extends TreeNode {
  /** Must another node that holds this unit wait until this one is sent? */
  holdsUp(unit: number): boolean;
  /** It has waited and is to ask again: there is room. */
  again(): void;
  /** Its node is not needed from it any more: others need what waits behind it. */
  giveWay(): void;
  /** It takes so long that others need the room. None: what is sent is here at once. */
  readonly evict?: () => void;
}

/** What is known of the round that is gathered. */
export interface Gathering {
  /** Its units: [first, first + units). */
  readonly first: number;
  readonly units: number;
  /** Nodes whose sums it holds. */
  readonly kept: () => readonly TreeNode[];
  /** The first unit that is not in the sum. */
  readonly missing: () => number;
}

/** Vectors at once. @param units of the tree */
export const roomFor = (units: number, length: number, bytes = roomBytes): number =>
  Math.max(neededBefore(units) + 2, Math.floor(bytes / (4 * length)));

/** Vectors that it takes to have the sum of so many units: nodes that are whole, and the one that comes in. */
const neededBefore = (units: number): number => Math.ceil(Math.log2(units)) + 1;

export class Uploads {
  /** The most vectors that were there at once. */
  peak = 0;
  gathering: Gathering = { first: 0, units: 1, kept: () => [], missing: () => 0 };
  readonly #pool: VectorPool;
  readonly #bytes: number;
  readonly #now: () => number;
  readonly #open = new Map<Upload, Sender>();
  readonly #waiting = new Set<Sender>();
  /** What replicas were left with by who began them: each vectors that hold no gradients. */
  readonly #states = new Set<readonly Float32Array[]>();
  /** Milliseconds that one takes, smoothed. */
  #usualMs: number | undefined;

  /** @param pool of vectors (P) */
  constructor(pool: VectorPool, now: () => number, bytes = roomBytes) {
    this.#pool = pool;
    this.#now = now;
    this.#bytes = bytes;
  }

  /** How many are on their way in. */
  get size(): number {
    return this.#open.size;
  }

  /** Most vectors at once, those of the round's sum among them: the first state has room of its own. */
  get most(): number {
    const [, ...more] = this.#states;
    return roomFor(this.gathering.units, this.#pool.length, this.#bytes) - more.flat().length;
  }

  /** Vectors that hold states. */
  get aside(): number {
    return [...this.#states].flat().length;
  }

  /** Room for a state of so many vectors; undefined where the sum could not do without it. */
  setAside(count: number): Float32Array[] | undefined {
    const most = this.most - count;
    const least = roomFor(this.gathering.units, this.#pool.length, 0);
    if (this.#states.size > 0 && (most < least || !this.#fit(this.#nodes, most))) return undefined;
    const state = Array.from({ length: count }, () => this.#pool.take());
    this.#states.add(state);
    this.#notePeak();
    return state;
  }

  /** A state that was set aside is not needed any more. */
  giveBack(state: readonly Float32Array[]): void {
    this.#states.delete(state);
    for (const vector of state) this.#pool.give(vector);
  }

  /** Whose vectors are there. */
  get #nodes(): TreeNode[] {
    return [...this.gathering.kept(), ...this.#open.values()];
  }

  #notePeak(): void {
    this.peak = Math.max(this.peak, this.#nodes.length + this.aside);
  }

  /** Room for one vector, or undefined: then its sender is called when it is worth asking again. */
  begin(sender: Sender): Upload | undefined {
    if (!this.#hasRoom(sender)) {
      this.#waiting.add(sender);
      return undefined;
    }
    const upload = { vector: this.#pool.take(), since: this.#now(), known: 0, isOver: false };
    this.#open.set(upload, sender);
    this.#notePeak();
    return upload;
  }

  #hasRoom(sender: Sender): boolean {
    const nodes = [...this.#nodes, sender];
    return holds(sender, this.gathering.missing()) ? nodes.length <= this.most : this.#fit(nodes, this.most);
  }

  /** Can the sum become whole in so much room while these are there? */
  #fit(nodes: readonly TreeNode[], most: number): boolean {
    const { first, missing } = this.gathering;
    const next = missing();
    const behind = nodes.filter((node) => node.first > next).sort((a, b) => a.first - b.first);
    // When the sum has come up to one of them, it and those behind it are still there.
    return (
      nodes.length <= most && behind.every((node, i) => neededBefore(node.first - first) + behind.length - i <= most)
    );
  }

  /** It is whole; its vector is the caller's. */
  finish(upload: Upload): Float32Array {
    if (this.#open.get(upload)?.evict) {
      const took = this.#now() - upload.since;
      this.#usualMs = this.#usualMs === undefined ? took : this.#usualMs + 0.3 * (took - this.#usualMs);
    }
    this.#open.delete(upload);
    upload.isOver = true;
    return upload.vector;
  }

  /** It will not become whole. */
  drop(upload: Upload): void {
    if (!this.#open.delete(upload)) return;
    upload.isOver = true;
    this.#pool.give(upload.vector);
  }

  /** It does not ask any more. */
  forget(sender: Sender): void {
    this.#waiting.delete(sender);
  }

  /** Something has come, or gone: let in who waits and finds room now. */
  look(): void {
    if (this.#waiting.size === 0) return;
    for (const sender of [...this.#waiting].sort((a, b) => a.first - b.first)) {
      if (!this.#waiting.has(sender)) continue;
      if (this.#hasRoom(sender)) {
        this.#waiting.delete(sender);
        sender.again();
      } else if (sender.holdsUp(this.gathering.missing())) sender.giveWay();
    }
  }

  /** Where others wait for room, end what takes far longer than usual. @param graceMs that it may take beyond that */
  evictSlow(graceMs: number): void {
    if (this.#waiting.size === 0 || this.#usualMs === undefined) return;
    for (const [{ since }, { evict }] of [...this.#open])
      if (this.#now() - since > patience * this.#usualMs + graceMs) evict?.();
  }
}

/** Is the unit one of the node's? */
export const holds = ({ first, count }: TreeNode, unit: number): boolean => first <= unit && unit < first + count;
