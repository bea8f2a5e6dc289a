// Training of a byte-level BPE: the most frequent pair of neighbours becomes a token, again and again (Sennrich et al.
// 2016, algorithm 1), kept up by changing the counts of the words that a merge touches. Ties go to the pair with the
// smaller ids, as in Hugging Face's trainer, so that the same text gives the same vocabulary anywhere.
import { ConfigError } from "../errors.ts";
import { BpeTokenizer } from "./bpe.ts";
import { copyOf, lastWordBoundary, letterOfByte, wordEnd } from "./bytes.ts";
import { Heap } from "./heap.ts";
import { endOfTextToken, plainPlan } from "./plan.ts";

/** Ids are below this: a pair is one exact double. */
const base = 2 ** 21;

export class BpeTrainer {
  readonly #wordCounts = new Map<string, number>();
  #held = "";

  /** The next piece of text. */
  push(text: string): void {
    const whole = this.#held + text;
    const cut = lastWordBoundary(whole, Math.max(0, this.#held.length - 2));
    this.#count(whole.slice(0, cut));
    this.#held = whole.slice(cut);
  }

  /** A text ends here: no word goes on into the next one. */
  endDocument(): void {
    this.#count(this.#held);
    this.#held = "";
  }

  #count(text: string): void {
    for (let at = 0; at < text.length; ) {
      const end = wordEnd(text, at);
      const word = text.slice(at, end);
      const count = this.#wordCounts.get(word);
      this.#wordCounts.set(count === undefined ? copyOf(word) : word, (count ?? 0) + 1);
      at = end;
    }
  }

  /**
   * @param vocabSize tokens in all: 256 bytes, the merges, and <|endoftext|> as the last
   * @throws ConfigError where vocabSize leaves no room for merges, or the text has too few pairs for it
   */
  train(vocabSize: number): BpeTokenizer {
    this.endDocument();
    if (!Number.isInteger(vocabSize) || vocabSize < 257 || vocabSize > 1_000_000)
      throw new ConfigError(
        `--vocab-size must be from 257 (bytes and ${endOfTextToken}) to 1,000,000, got ${vocabSize}`,
      );

    // Ids in the order in which GPT-2 and Hugging Face number the bytes: by the letter that spells them.
    const tokens = [...letterOfByte].sort();
    const ids = new Map(tokens.map((token, id) => [token, id]));
    const text = new MergedText(this.#wordCounts, ids);
    const merges: [string, string][] = [];
    while (tokens.length < vocabSize - 1) {
      const pair = text.mostFrequent();
      if (pair === undefined)
        throw new ConfigError(
          `the text has pairs for ${tokens.length + 1} tokens only, --vocab-size is ${vocabSize}; use more text or a smaller one`,
        );
      const [left, right] = [tokens[Math.floor(pair / base)]!, tokens[pair % base]!];
      // Two different pairs can spell the same token; it keeps its first id.
      let merged = ids.get(left + right);
      if (merged === undefined) {
        merged = tokens.push(left + right) - 1;
        ids.set(left + right, merged);
      }
      merges.push([left, right]);
      text.merge(pair, merged);
    }
    return new BpeTokenizer("bpe", plainPlan(tokens, merges));
  }
}

interface Pair {
  /** Occurrences in the text, overlapping ones too. */
  count: number;
  /** Where it stood when it came to be; it may not stand there any more. */
  positions: number[];
}

/**
 * The different words one after another, as linked lists of symbols. A merge touches the places of its pair alone, so
 * that words of megabytes cost no more than short ones.
 */
class MergedText {
  /** -1 where a symbol was merged into the one before. */
  readonly #symbols: Int32Array;
  /** -1 at the end, or the beginning, of a word. */
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  readonly #wordOf: Int32Array;
  readonly #counts: readonly number[];
  readonly #pairs = new Map<number, Pair>();
  /** Entries go stale when counts change; they are checked when they come up. */
  readonly #queue = new Heap<{ pair: number; count: number }>(
    (a, b) => a.count > b.count || (a.count === b.count && a.pair < b.pair),
  );

  /** Pairs whose count may have grown since the queue last saw them. */
  readonly #touched = new Set<number>();

  /** @param ids of the letters that spell bytes */
  constructor(words: ReadonlyMap<string, number>, ids: ReadonlyMap<string, number>) {
    const utf8 = new TextEncoder();
    const idOfByte = letterOfByte.map((letter) => ids.get(letter)!);
    let length = 0;
    for (const word of words.keys()) length += Buffer.byteLength(word);
    this.#counts = [...words.values()];
    this.#symbols = new Int32Array(length);
    this.#next = new Int32Array(length);
    this.#previous = new Int32Array(length);
    this.#wordOf = new Int32Array(length);
    let [start, index] = [0, 0];
    for (const word of words.keys()) {
      const bytes = utf8.encode(word);
      for (const [i, byte] of bytes.entries()) {
        const at = start + i;
        this.#symbols[at] = idOfByte[byte]!;
        this.#next[at] = i + 1 < bytes.length ? at + 1 : -1;
        this.#previous[at] = i > 0 ? at - 1 : -1;
        this.#wordOf[at] = index;
      }
      start += bytes.length;
      index++;
    }
    for (let at = 0; at < length; at++) if (this.#next[at]! >= 0) this.#appear(at);
  }

  /** left * base + right */
  mostFrequent(): number | undefined {
    for (const pair of this.#touched) this.#queue.push({ pair, count: this.#pairs.get(pair)!.count });
    this.#touched.clear();
    for (let top = this.#queue.pop(); top; top = this.#queue.pop()) {
      const { count } = this.#pairs.get(top.pair)!;
      if (count === top.count && count > 0) return top.pair;
      if (count > 0 && count < top.count) this.#queue.push({ pair: top.pair, count });
    }
    return undefined;
  }

  /** Every occurrence of a pair becomes `merged`, from left to right. */
  merge(pair: number, merged: number): void {
    const [symbols, next, previous] = [this.#symbols, this.#next, this.#previous];
    const [left, right] = [Math.floor(pair / base), pair % base];
    const entry = this.#pairs.get(pair)!;
    const positions = Float64Array.from(entry.positions).sort();
    entry.positions = [];
    for (const at of positions) {
      const second = next[at]!;
      if (symbols[at] !== left || second < 0 || symbols[second] !== right) continue;
      const before = previous[at]!;
      const after = next[second]!;
      if (before >= 0) this.#vanish(before);
      this.#vanish(at);
      if (after >= 0) this.#vanish(second);
      symbols[at] = merged;
      symbols[second] = -1;
      next[at] = after;
      if (after >= 0) previous[after] = at;
      if (before >= 0) this.#appear(before);
      if (after >= 0) this.#appear(at);
    }
  }

  #appear(at: number): void {
    const pair = this.#pairAt(at);
    const count = this.#counts[this.#wordOf[at]!]!;
    const entry = this.#pairs.get(pair);
    if (entry) {
      entry.count += count;
      entry.positions.push(at);
    } else this.#pairs.set(pair, { count, positions: [at] });
    this.#touched.add(pair);
  }

  #vanish(at: number): void {
    this.#pairs.get(this.#pairAt(at))!.count -= this.#counts[this.#wordOf[at]!]!;
  }

  #pairAt(at: number): number {
    return this.#symbols[at]! * base + this.#symbols[this.#next[at]!]!;
  }
}
