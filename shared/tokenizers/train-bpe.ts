// Training of a byte-level BPE: the most frequent pair of neighbours becomes a token, again and again (Sennrich et al.
// 2016, algorithm 1), kept up by changing the counts of the words that a merge touches. Ties go to the pair with the
// smaller ids, as in Hugging Face's trainer, so that the same text gives the same vocabulary anywhere.
import { ConfigError } from "../errors.ts";
import { BpeTokenizer } from "./bpe.ts";
import { copyOf, lastWordBoundary, letterOfByte, spellBytes, wordEnd } from "./bytes.ts";
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
    const cut = lastWordBoundary(whole);
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
    const words = [...this.#wordCounts].map(([word, count]) => ({
      symbols: [...spellBytes(new TextEncoder().encode(word))].map((letter) => ids.get(letter)!),
      count,
    }));
    const pairs = new PairCounts();
    words.forEach((word, index) => {
      pairs.add(word.symbols, word.count, index);
    });

    const merges: [string, string][] = [];
    while (tokens.length < vocabSize - 1) {
      const pair = pairs.mostFrequent();
      if (pair === undefined)
        throw new ConfigError(
          `the text has pairs for ${tokens.length + 1} tokens only, --vocab-size is ${vocabSize}; use more text or a smaller one`,
        );
      const left = Math.floor(pair / base);
      const right = pair % base;
      const token = tokens[left]! + tokens[right]!;
      // Two different pairs can spell the same token; it keeps its first id.
      let merged = ids.get(token);
      if (merged === undefined) {
        merged = tokens.push(token) - 1;
        ids.set(token, merged);
      }
      merges.push([tokens[left]!, tokens[right]!]);
      for (const index of pairs.wordsWith(pair)) {
        const word = words[index]!;
        pairs.remove(word.symbols, word.count);
        word.symbols = join(word.symbols, left, right, merged);
        pairs.add(word.symbols, word.count, index);
      }
    }
    return new BpeTokenizer("bpe", plainPlan(tokens, merges));
  }
}

/** Every pair of neighbours: how often it stands in the text, and in which words it has stood. */
class PairCounts {
  readonly #counts = new Map<number, number>();
  readonly #words = new Map<number, Set<number>>();
  /** Entries go stale when counts change; they are checked when they come up. */
  readonly #queue = new Heap<{ pair: number; count: number }>(
    (a, b) => a.count > b.count || (a.count === b.count && a.pair < b.pair),
  );

  /** Pairs whose count may have grown since the queue last saw them. */
  readonly #touched = new Set<number>();

  add(symbols: readonly number[], count: number, word: number): void {
    this.#change(symbols, count);
    for (let i = 0; i + 1 < symbols.length; i++) {
      const pair = symbols[i]! * base + symbols[i + 1]!;
      const words = this.#words.get(pair);
      if (words) words.add(word);
      else this.#words.set(pair, new Set([word]));
      this.#touched.add(pair);
    }
  }

  remove(symbols: readonly number[], count: number): void {
    this.#change(symbols, -count);
  }

  mostFrequent(): number | undefined {
    for (const pair of this.#touched) this.#queue.push({ pair, count: this.#counts.get(pair)! });
    this.#touched.clear();
    for (let top = this.#queue.pop(); top; top = this.#queue.pop()) {
      const count = this.#counts.get(top.pair)!;
      if (count === top.count && count > 0) return top.pair;
      if (count > 0 && count < top.count) this.#queue.push({ pair: top.pair, count });
    }
    return undefined;
  }

  /** Words that held the pair when they were added; some may not any more. */
  wordsWith(pair: number): readonly number[] {
    const words = [...(this.#words.get(pair) ?? [])];
    this.#words.delete(pair);
    return words;
  }

  #change(symbols: readonly number[], by: number): void {
    for (let i = 0; i + 1 < symbols.length; i++) {
      const pair = symbols[i]! * base + symbols[i + 1]!;
      this.#counts.set(pair, (this.#counts.get(pair) ?? 0) + by);
    }
  }
}

/** Every `left right` becomes `merged`, from left to right. */
function join(symbols: readonly number[], left: number, right: number, merged: number): number[] {
  const joined: number[] = [];
  for (let i = 0; i < symbols.length; i++) {
    if (symbols[i] === left && symbols[i + 1] === right) {
      joined.push(merged);
      i++;
    } else joined.push(symbols[i]!);
  }
  return joined;
}
