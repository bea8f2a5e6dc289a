// A tokenizer.json of Hugging Face's WordLevel model: one token a word, whatever its steps say a word is.
import type { IdBuffer } from "./id-buffer.ts";
import { MergingTokenizer } from "./merging.ts";
import type { TokenizerPlan } from "./plan.ts";
import type { StreamDecoder } from "./tokenizer.ts";
import { WordCutter, type WordSteps } from "./word-steps.ts";

export class WordLevelTokenizer extends MergingTokenizer {
  readonly name = "wordlevel";
  readonly #cutter: WordCutter;
  readonly #separator: string;

  constructor(plan: TokenizerPlan, steps: WordSteps) {
    const cutter = new WordCutter(steps);
    super(plan, (text) => cutter.normalize(text));
    this.#cutter = cutter;
    this.#separator = steps.decoder ? "" : " ";
  }

  cut(text: string, from = 0): number {
    return this.added.cut(text, from, (low, high) => this.#cutter.lastBoundary(text, low, high));
  }

  decoder(skipSpecial = false): StreamDecoder {
    let separator = "";
    return {
      push: (id) => {
        const token = this.meaningOf(this.texts, id, skipSpecial);
        if (token === undefined) return "";
        const text = separator + token;
        separator = this.#separator;
        return text;
      },
      end: () => "",
    };
  }

  protected encodeBetween(text: string, _begins: boolean, out: IdBuffer): void {
    this.#cutter.eachWord(text, (word) => this.encodeWord(word, 0, word.length, out));
  }

  /** A word is one symbol, and nothing is merged. */
  protected symbolsOf(word: string, into: Int32Array): number {
    into[0] = this.ids.get(word) ?? -1;
    return 1;
  }

  protected spell(word: string): string {
    return word;
  }
}
