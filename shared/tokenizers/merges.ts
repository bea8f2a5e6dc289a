// Byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909): while a word holds a pair that has a merge, the pair
// with the earliest merge becomes one token, the leftmost first. Works on ids, so bytes and characters are alike.
import { ConfigError } from "../errors.ts";
import { Heap } from "./heap.ts";

/** Longer words keep their pairs in a heap. */
const short = 64;

export class Merges {
  /** Result of each merge, by rank. */
  readonly #merged: number[] = [];
  /** Open addressing: left, right and rank of each merge, rank -1 where a place is free. */
  #table = new Int32Array(3 * 1024).fill(-1);
  #shift = 22;
  /** First and last of the symbols that a token was merged from, where it was merged. */
  readonly #first: number[] = [];
  readonly #last: number[] = [];
  /** Neighbouring symbols over which a merge can reach, as left * 2^21 + right. */
  readonly #joined = new Set<number>();
  readonly #ranks = new Int32Array(short);

  /** The next merge: `left` and `right` become `merged`. */
  add(left: number, right: number, merged: number): void {
    const rank = this.#merged.length;
    const known = this.#rank(left, right);
    if (known >= 0) throw new ConfigError(`merge ${rank} is there already, as merge ${known}`);
    this.#merged.push(merged);
    if (2 * this.#merged.length > this.#table.length / 3) this.#grow();
    this.#insert(left, right, rank);
    this.#first[merged] = this.#first[left] ?? left;
    this.#last[merged] = this.#last[right] ?? right;
    this.#joined.add((this.#last[left] ?? left) * 2 ** 21 + (this.#first[right] ?? right));
  }

  /**
   * Merge as far as it goes, in O(n log n) for a word of n symbols.
   * @param word overwritten
   * @returns the tokens, a view of `word`
   */
  apply(word: Int32Array): Int32Array {
    if (word.length <= short) return this.#applyShort(word);
    // No merge reaches over some neighbours: the parts between them are words of their own.
    let length = 0;
    for (let start = 0, end = 1; end <= word.length; end++) {
      if (end < word.length && this.#joined.has(word[end - 1]! * 2 ** 21 + word[end]!)) continue;
      const part = word.subarray(start, end);
      const tokens = part.length <= short ? this.#applyShort(part) : this.#applyLong(part);
      word.copyWithin(length, start, start + tokens.length);
      length += tokens.length;
      start = end;
    }
    return word.subarray(0, length);
  }

  #applyShort(word: Int32Array): Int32Array {
    const ranks = this.#ranks;
    let length = word.length;
    for (let i = 0; i + 1 < length; i++) ranks[i] = this.#rank(word[i]!, word[i + 1]!);
    for (;;) {
      let best = -1;
      let rank = 2 ** 31;
      for (let i = 0; i + 1 < length; i++)
        if (ranks[i]! >= 0 && ranks[i]! < rank) {
          best = i;
          rank = ranks[i]!;
        }
      if (best < 0) return word.subarray(0, length);
      word[best] = this.#merged[rank]!;
      word.copyWithin(best + 1, best + 2, length);
      ranks.copyWithin(best, best + 1, length - 1);
      length--;
      if (best > 0) ranks[best - 1] = this.#rank(word[best - 1]!, word[best]!);
      if (best + 1 < length) ranks[best] = this.#rank(word[best]!, word[best + 1]!);
    }
  }

  #applyLong(word: Int32Array): Int32Array {
    // A doubly linked list in arrays; a token that was merged into its left neighbour is -1.
    const next = new Int32Array(word.length);
    const previous = new Int32Array(word.length);
    const queue = new Heap<number>((a, b) => a < b);
    const offer = (at: number): void => {
      const right = next[at]!;
      const rank = right < word.length ? this.#rank(word[at]!, word[right]!) : -1;
      // Rank first, then position: exact for up to 2^21 merges and 2^32 symbols.
      if (rank >= 0) queue.push(rank * 2 ** 32 + at);
    };
    for (let i = 0; i < word.length; i++) {
      next[i] = i + 1;
      previous[i] = i - 1;
    }
    for (let i = 0; i + 1 < word.length; i++) offer(i);
    for (let top = queue.pop(); top !== undefined; top = queue.pop()) {
      const at = top % 2 ** 32;
      const rank = Math.floor(top / 2 ** 32);
      const right = next[at]!;
      // An earlier merge may have taken either side away.
      if (word[at]! < 0 || right >= word.length || this.#rank(word[at]!, word[right]!) !== rank) continue;
      word[at] = this.#merged[rank]!;
      word[right] = -1;
      next[at] = next[right]!;
      if (next[at]! < word.length) {
        previous[next[at]!] = at;
        offer(at);
      }
      if (previous[at]! >= 0) offer(previous[at]!);
    }
    let length = 0;
    for (const id of word) if (id >= 0) word[length++] = id;
    return word.subarray(0, length);
  }

  /** Rank of the merge of a pair, -1 where it has none. */
  #rank(left: number, right: number): number {
    const table = this.#table;
    for (let slot = this.#slot(left, right); ; slot = slot + 3 === table.length ? 0 : slot + 3) {
      const rank = table[slot + 2]!;
      if (rank < 0 || (table[slot] === left && table[slot + 1] === right)) return rank;
    }
  }

  #slot(left: number, right: number): number {
    return 3 * ((Math.imul(Math.imul(left, 0x9e3779b1) + right, 0x85ebca6b) >>> this.#shift) | 0);
  }

  #insert(left: number, right: number, rank: number): void {
    const table = this.#table;
    let slot = this.#slot(left, right);
    while (table[slot + 2]! >= 0) slot = slot + 3 === table.length ? 0 : slot + 3;
    table[slot] = left;
    table[slot + 1] = right;
    table[slot + 2] = rank;
  }

  #grow(): void {
    const old = this.#table;
    this.#table = new Int32Array(2 * old.length).fill(-1);
    this.#shift--;
    for (let slot = 0; slot < old.length; slot += 3)
      if (old[slot + 2]! >= 0) this.#insert(old[slot]!, old[slot + 1]!, old[slot + 2]!);
  }
}
