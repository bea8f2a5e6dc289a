// GPT-1's tokenizer (Radford et al. 2018): text is cleaned, lower-cased and cut into words and signs; each is merged
// from its characters, the last of which carries "</w>". The vocabulary (40,478 tokens in OpenAI's release) and merges
// come from files that the user has. Cleaning follows BERT's basic tokenizer, as transformers' OpenAIGPTTokenizer does.
import { ConfigError } from "../errors.ts";
import { lastWordBoundary } from "./bytes.ts";
import { type BpeVocabulary, writeVocabularyPair } from "./hugging-face.ts";
import { Merges } from "./merges.ts";
import type { StreamDecoder, Tokenizer } from "./tokenizer.ts";

const wordEnd = "</w>";

export class Gpt1Tokenizer implements Tokenizer {
  readonly name = "gpt1";
  readonly #vocabulary: BpeVocabulary;
  readonly #ids: ReadonlyMap<string, number>;
  readonly #merges = new Merges();

  /** @throws ConfigError where merges name tokens that the vocabulary lacks */
  constructor(vocabulary: BpeVocabulary) {
    this.#vocabulary = vocabulary;
    this.#ids = new Map(vocabulary.tokens.flatMap((token, id) => (token === undefined ? [] : [[token, id]])));
    vocabulary.merges.forEach(([left, right], rank) => {
      const ids = [left, right, left + right].map((token) => this.#ids.get(token));
      if (ids.includes(undefined))
        throw new ConfigError(
          `tokenizer gpt1: merge ${rank}, "${left} ${right}", needs a token that its vocabulary lacks`,
        );
      const [l, r, merged] = ids as [number, number, number];
      this.#merges.add(l, r, merged);
    });
  }

  get vocabSize(): number {
    return this.#vocabulary.tokens.length;
  }

  /** decode(encode(text)) is normalize(text). */
  encode(text: string): Int32Array {
    return Int32Array.from(wordsOf(text).flatMap((word) => this.#encodeWord(word)));
  }

  has(id: number): boolean {
    return this.#vocabulary.tokens[id] !== undefined;
  }

  cut(text: string): number {
    return lastWordBoundary(text);
  }

  decode(ids: Iterable<number>): string {
    const decoder = this.decoder();
    let text = "";
    for (const id of ids) text += decoder.push(id);
    return text;
  }

  /** The space after a word is held back until another token follows. */
  decoder(): StreamDecoder {
    let separator = "";
    return {
      push: (id) => {
        const token = this.#vocabulary.tokens[id];
        if (token === undefined)
          throw new ConfigError(`tokenizer gpt1: id ${id} is outside its vocabulary of ${this.vocabSize}`);
        const before = separator;
        const ends = token.endsWith(wordEnd);
        separator = ends ? " " : "";
        return before + (ends ? token.slice(0, -wordEnd.length) : token);
      },
      end: () => "",
    };
  }

  toFiles(): ReadonlyMap<string, string> {
    return writeVocabularyPair("OpenAIGPTTokenizer", this.#vocabulary);
  }

  #encodeWord(word: string): number[] {
    const characters = [...word];
    const symbols = characters.map((character, i) => {
      const symbol = i === characters.length - 1 ? character + wordEnd : character;
      const id = this.#ids.get(symbol);
      if (id !== undefined) return id;
      throw new ConfigError(
        `character ${JSON.stringify(character)} of the word ${JSON.stringify(word)} is not in GPT-1's vocabulary; leave it out`,
      );
    });
    return this.#merges.apply(symbols);
  }
}

/** What GPT-1 sees of a text: words and signs with one space between them. */
export function normalize(text: string): string {
  return wordsOf(text).join(" ");
}

const ideographs =
  /[\u{3400}-\u{4DBF}\u{4E00}-\u{9FFF}\u{F900}-\u{FAFF}\u{20000}-\u{2A6DF}\u{2A700}-\u{2CEAF}\u{2F800}-\u{2FA1F}]/gu;
/** Characters that are neither letter, digit nor space in ASCII, and Unicode's punctuation. */
const signs = /[!-/:-@[-`{-~\p{P}]/gu;

function wordsOf(text: string): string[] {
  return text
    .replace(/[\t\n\r\p{Zs}]/gu, " ")
    .replace(/[\p{C}\uFFFD]/gu, "")
    .replace(ideographs, " $& ")
    .toLowerCase()
    .normalize("NFD")
    .replace(/\p{Mn}/gu, "")
    .replace(signs, " $& ")
    .split(/\p{White_Space}+/u)
    .filter((word) => word !== "");
}
