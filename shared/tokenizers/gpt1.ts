// GPT-1's tokenizer (Radford et al. 2018): text is cleaned, lower-cased and cut into words and signs; each is merged
// from its characters, the last of which carries "</w>". The vocabulary (40,478 tokens in OpenAI's release) and merges
// come from files that the user has.
import { clean, eachWord } from "./bert.ts";
import { lastWordBoundary } from "./bytes.ts";
import type { IdBuffer } from "./id-buffer.ts";
import { MergingTokenizer } from "./merging.ts";
import type { StreamDecoder } from "./tokenizer.ts";
import type { TokenizerPlan } from "./tokenizer-json.ts";

const wordEnd = "</w>";

export class Gpt1Tokenizer extends MergingTokenizer {
  readonly name = "gpt1";

  /** @throws ConfigError where merges name tokens that the vocabulary lacks */
  constructor(plan: TokenizerPlan) {
    super(plan, clean);
  }

  cut(text: string, from = 0): number {
    return this.added.cut(text, from, (low, high) => {
      let at = lastWordBoundary(text, low, high, true);
      // Some white space is dropped, and the words around it are one.
      while (at > low && clean(text[at]!) !== " ") at = lastWordBoundary(text, low, at - 1, true);
      return at;
    });
  }

  /** The space after a word is held back until another token follows. */
  decoder(skipSpecial = false): StreamDecoder {
    let separator = "";
    return {
      push: (id) => {
        const token = this.meaningOf(this.texts, id, skipSpecial);
        if (token === undefined) return "";
        const before = separator;
        const ends = token.endsWith(wordEnd);
        separator = ends ? " " : "";
        return before + (ends ? token.slice(0, -wordEnd.length) : token);
      },
      end: () => "",
    };
  }

  protected encodeBetween(text: string, _begins: boolean, out: IdBuffer): void {
    eachWord(text, (word) => this.encodeWord(word, 0, word.length, out));
  }

  protected symbolsOf(word: string, into: Int32Array): number {
    let length = 0;
    for (let i = 0; i < word.length; length++) {
      const character = String.fromCodePoint(word.codePointAt(i)!);
      i += character.length;
      into[length] = this.ids.get(i === word.length ? character + wordEnd : character) ?? -1;
    }
    return length;
  }

  protected spell(word: string): string {
    return word;
  }
}

/** What GPT-1 sees of a text: words and signs with one space between them. decode(encode(text)) is this. */
export function normalize(text: string): string {
  const words: string[] = [];
  eachWord(clean(text), (word) => void words.push(word));
  return words.join(" ");
}
