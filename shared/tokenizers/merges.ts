// Byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909): while a word holds a pair that has a merge, the pair
// with the earliest merge becomes one token, the leftmost first. Works on ids, so bytes and characters are alike.
import { ConfigError } from "../errors.ts";
import { Heap } from "./heap.ts";

/** Ids are below this, so that a pair of them, or a rank and an id, fits a double exactly. */
const base = 2 ** 21;

export class Merges {
  readonly #pairs: [left: number, right: number][] = [];
  /** left * base + right -> rank * base + merged */
  readonly #table = new Map<number, number>();

  /** The next merge: `left` and `right` become `merged`. */
  add(left: number, right: number, merged: number): void {
    const key = left * base + right;
    if (this.#table.has(key)) throw new ConfigError(`merge ${this.#pairs.length} is there twice`);
    this.#table.set(key, this.#pairs.length * base + merged);
    this.#pairs.push([left, right]);
  }

  /** All merges in the order of their ranks. */
  get pairs(): readonly (readonly [left: number, right: number])[] {
    return this.#pairs;
  }

  /** Merge as far as it goes, in O(n log n) for a word of n symbols. @returns the tokens; `word` is overwritten */
  apply(word: number[]): number[] {
    if (word.length < 2) return word;
    // A doubly linked list in arrays; a token that was merged into its left neighbour is -1.
    const next = word.map((_, i) => i + 1);
    const previous = word.map((_, i) => i - 1);
    const queue = new Heap<number>((a, b) => a < b);
    const offer = (at: number): void => {
      const found = this.#at(word, at, next[at]!);
      // Rank first, then position: at most 2^21 merges and 2^32 symbols.
      if (found !== undefined) queue.push(Math.floor(found / base) * 2 ** 32 + at);
    };
    for (let i = 0; i + 1 < word.length; i++) offer(i);
    for (let top = queue.pop(); top !== undefined; top = queue.pop()) {
      const at = top % 2 ** 32;
      const right = next[at]!;
      const found = this.#at(word, at, right);
      // An earlier merge may have taken either side away.
      if (found === undefined || Math.floor(found / base) !== Math.floor(top / 2 ** 32)) continue;
      word[at] = found % base;
      word[right] = -1;
      next[at] = next[right]!;
      if (next[at]! < word.length) {
        previous[next[at]!] = at;
        offer(at);
      }
      if (previous[at]! >= 0) offer(previous[at]!);
    }
    return word.filter((id) => id >= 0);
  }

  #at(word: readonly number[], at: number, right: number): number | undefined {
    if (word[at]! < 0 || right >= word.length) return undefined;
    return this.#table.get(word[at]! * base + word[right]!);
  }
}
