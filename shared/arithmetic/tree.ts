// The one sum: gradients of tree nodes meet their siblings, left + right in float32, up to the root. Workers add inside
// a lease along the same tree as the coordinator adds leases, so the bits do not depend on who computed what, nor on
// the order of arrival.
import type { VectorOps } from "./vector.ts";

/** Units [first, first + count) of a tree: count a power of two, first a multiple of it. */
export interface TreeNode {
  readonly first: number;
  readonly count: number;
}

/** "3" or "4-7", for people. @param before units of all that the node's tree is a part of, before its own */
export function nodeName({ first, count }: TreeNode, before = 0): string {
  const [from, end] = [before + first, before + first + count];
  return count === 1 ? `${from}` : `${from}-${end - 1}`;
}

/** Vectors of one length that are used again and again: a fresh large array costs more than a sum. */
export class VectorPool {
  readonly length: number;
  readonly #free: Float32Array[] = [];

  constructor(length: number) {
    this.length = length;
  }

  take(): Float32Array {
    return this.#free.pop() ?? new Float32Array(this.length);
  }

  /** The caller must not use the vector afterwards. */
  give(vector: Float32Array): void {
    this.#free.push(vector);
  }
}

/** What a node's sum becomes as soon as it is whole: a small wire's rounding (codec.ts); or the part of it from `first` on. */
export type NodeRounding = (node: TreeNode, sum: Float32Array, first?: number) => void;

export class TreeSum {
  readonly #root: TreeNode;
  readonly #pool: VectorPool;
  readonly #ops: VectorOps;
  readonly #round: NodeRounding | undefined;
  readonly #nodes = new Map<string, TreeNode & { readonly sum: Float32Array }>();

  constructor(root: TreeNode, pool: VectorPool, ops: VectorOps, round?: NodeRounding) {
    this.#root = root;
    this.#pool = pool;
    this.#ops = ops;
    this.#round = round;
  }

  /** The sum of a node that waits for its sibling, lent until the next is added. */
  at(node: TreeNode): Float32Array | undefined {
    return this.#nodes.get(nodeName(node))?.sum;
  }

  /** Nodes that wait for their siblings. */
  get nodes(): readonly TreeNode[] {
    return [...this.#nodes.values()];
  }

  /**
   * Add a node that is not in the sum yet; its sibling, if there, is summed with it, and so on up.
   * @param vector (P) of the pool, taken over; already rounded, where nodes are
   */
  add(node: TreeNode, vector: Float32Array): void {
    let { first, count } = node;
    let sum = vector;
    while (count < this.#root.count) {
      const isRight = (first / count) % 2 === 1;
      const key = nodeName({ first: isRight ? first - count : first + count, count });
      const sibling = this.#nodes.get(key)?.sum;
      if (!sibling) break;
      this.#nodes.delete(key);
      const [left, right] = isRight ? [sibling, sum] : [sum, sibling];
      this.#ops.add(left, right);
      this.#pool.give(right);
      sum = left;
      if (isRight) first -= count;
      count *= 2;
      this.#round?.({ first, count }, sum);
    }
    this.#nodes.set(nodeName({ first, count }), { first, count, sum });
  }

  /** The sum over the root, (P), once every unit is in; it belongs to the caller, who gives it back to the pool. */
  take(): Float32Array {
    const key = nodeName(this.#root);
    const root = this.#nodes.get(key)?.sum;
    if (!root || this.#nodes.size !== 1)
      throw new Error(`the sum is not whole: it holds ${[...this.#nodes.keys()].join(", ")} of ${key}`);
    this.#nodes.delete(key);
    return root;
  }

  /** Give back what a step that ended early left behind. */
  clear(): void {
    for (const { sum } of this.#nodes.values()) this.#pool.give(sum);
    this.#nodes.clear();
  }
}
