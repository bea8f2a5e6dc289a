// Which nodes of a round's tree are wholly open, and the leftmost of a size: a segment tree that holds at each node the
// size of the largest open node below it. Every question and every change costs the depth of the tree.
import type { TreeNode } from "../../shared/arithmetic/tree.ts";

export class Openings {
  /** Leaves, a power of two; those beyond the units are never open. */
  readonly #leaves: number;
  /** best[1] is the root's; node i has the children 2i and 2i + 1. */
  readonly #best: Uint32Array;

  /** @param isOpen of each unit */
  constructor(units: number, isOpen: (unit: number) => boolean) {
    this.#leaves = 2 ** Math.ceil(Math.log2(Math.max(1, units)));
    this.#best = new Uint32Array(2 * this.#leaves);
    for (let unit = 0; unit < units; unit++) this.#best[this.#leaves + unit] = isOpen(unit) ? 1 : 0;
    for (let i = this.#leaves - 1, span = 2, width = this.#leaves / 2; i >= 1; i--) {
      if (i < width) [span, width] = [2 * span, width / 2];
      this.#best[i] = this.#join(i, span);
    }
  }

  get any(): boolean {
    return this.#best[1]! > 0;
  }

  isOpen(unit: number): boolean {
    return this.#best[this.#leaves + unit] === 1;
  }

  /** The leftmost open node of `size` units, or of the largest size below that there is. @param size a power of two */
  find(size: number): TreeNode | undefined {
    const count = Math.min(size, this.#best[1]!);
    if (count === 0) return undefined;
    let i = 1;
    for (let span = this.#leaves; span > count; span /= 2) i = this.#best[2 * i]! >= count ? 2 * i : 2 * i + 1;
    return { first: (i - this.#leaves / count) * count, count };
  }

  /** The units of a node are open no more. */
  take({ first, count }: TreeNode): void {
    for (let unit = first; unit < first + count; unit++) this.#best[this.#leaves + unit] = 0;
    let from = this.#leaves + first;
    let to = from + count - 1;
    for (let span = 2; from > 1; span *= 2) {
      [from, to] = [from >> 1, to >> 1];
      for (let i = from; i <= to; i++) this.#best[i] = this.#join(i, span);
    }
  }

  #join(i: number, span: number): number {
    const [left, right] = [this.#best[2 * i]!, this.#best[2 * i + 1]!];
    return left + right === span ? span : Math.max(left, right);
  }
}
