// Byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909): while a word holds a pair that has a merge, the pair
// with the earliest merge becomes one token, the leftmost first. Works on ids, so bytes and characters are alike.
import { ConfigError } from "../errors.ts";
import { Heap } from "./heap.ts";

export class Merges {
  /** Result of each merge, by rank. */
  readonly #merged: number[] = [];
  /** Rank of a merge by its left and then its right token: small integers are what Map is fast with. */
  readonly #ranks: (Map<number, number> | undefined)[] = [];

  /** The next merge: `left` and `right` become `merged`. */
  add(left: number, right: number, merged: number): void {
    const rank = this.#merged.length;
    while (this.#ranks.length <= left) this.#ranks.push(undefined);
    const ranks = this.#ranks[left];
    if (!ranks) this.#ranks[left] = new Map([[right, rank]]);
    else if (ranks.has(right)) throw new ConfigError(`merge ${rank} is there already, as merge ${ranks.get(right)}`);
    else ranks.set(right, rank);
    this.#merged.push(merged);
  }

  /** Merge as far as it goes, in O(n log n) for a word of n symbols. @returns the tokens; `word` is overwritten */
  apply(word: number[]): number[] {
    if (word.length < 2) return word;
    // A doubly linked list in arrays; a token that was merged into its left neighbour is -1.
    const next = word.map((_, i) => i + 1);
    const previous = word.map((_, i) => i - 1);
    const queue = new Heap<number>((a, b) => a < b);
    const offer = (at: number): void => {
      const rank = this.#rankAt(word, at, next[at]!);
      // Rank first, then position: exact for up to 2^21 merges and 2^32 symbols.
      if (rank !== undefined) queue.push(rank * 2 ** 32 + at);
    };
    for (let i = 0; i + 1 < word.length; i++) offer(i);
    for (let top = queue.pop(); top !== undefined; top = queue.pop()) {
      const at = top % 2 ** 32;
      const right = next[at]!;
      const rank = this.#rankAt(word, at, right);
      // An earlier merge may have taken either side away.
      if (rank === undefined || rank !== Math.floor(top / 2 ** 32)) continue;
      word[at] = this.#merged[rank]!;
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

  #rankAt(word: readonly number[], at: number, right: number): number | undefined {
    if (word[at]! < 0 || right >= word.length) return undefined;
    return this.#ranks[word[at]!]?.get(word[right]!);
  }
}
