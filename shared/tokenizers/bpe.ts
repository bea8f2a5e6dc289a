// Byte-level byte-pair encoding: any text is words of bytes, merged as far as the vocabulary's merges go. GPT-2's
// tokenizer and those trained here are both this, saved as Hugging Face's tokenizer.json.
import { ConfigError } from "../errors.ts";
import { bytesOf, lastWordBoundary, letterOfByte, wordsOf } from "./bytes.ts";
import { type BpeVocabulary, endOfTextToken, writeTokenizerJson } from "./hugging-face.ts";
import { Merges } from "./merges.ts";
import type { StreamDecoder, Tokenizer } from "./tokenizer.ts";

/** Words whose tokens are remembered; the memory is emptied when it is full. */
const rememberedWords = 100_000;

export class BpeTokenizer implements Tokenizer {
  readonly name: "gpt2" | "bpe";
  readonly vocabulary: BpeVocabulary;
  readonly ordinarySize: number;
  readonly endOfText?: number;
  readonly #ids: ReadonlyMap<string, number>;
  readonly #bytes: readonly (Uint8Array | undefined)[];
  readonly #idOfByte: readonly (number | undefined)[];
  readonly #special: RegExp | undefined;
  readonly #merges = new Merges();
  readonly #remembered = new Map<string, readonly number[]>();

  /** @throws ConfigError where tokens, merges and special tokens do not fit each other */
  constructor(name: "gpt2" | "bpe", vocabulary: BpeVocabulary) {
    this.name = name;
    this.vocabulary = vocabulary;
    const { tokens, merges, special } = vocabulary;
    this.#ids = idsOf(tokens);
    const idOf = (token: string, user: string): number => {
      const id = this.#ids.get(token);
      if (id !== undefined) return id;
      throw new ConfigError(`tokenizer ${name}: ${user} needs ${JSON.stringify(token)}, which its vocabulary lacks`);
    };
    merges.forEach(([left, right], rank) => {
      const user = `merge ${rank}`;
      this.#merges.add(idOf(left, user), idOf(right, user), idOf(left + right, user));
    });
    const specialIds = new Set(special.map((token) => idOf(token, "its list of special tokens")));
    this.ordinarySize = 1 + tokens.findLastIndex((token, id) => token !== undefined && !specialIds.has(id));
    this.#idOfByte = letterOfByte.map((letter) => this.#ids.get(letter));
    this.#bytes = tokens.map((token, id) => {
      if (token === undefined) return undefined;
      const bytes = specialIds.has(id) ? new TextEncoder().encode(token) : bytesOf(token);
      if (bytes) return bytes;
      throw new ConfigError(`tokenizer ${name}: token ${id} is ${JSON.stringify(token)}, which spells no bytes`);
    });
    this.#special = patternOf(special);
    const end = this.#ids.get(endOfTextToken);
    if (end !== undefined && specialIds.has(end)) this.endOfText = end;
  }

  get vocabSize(): number {
    return this.vocabulary.tokens.length;
  }

  encode(text: string, at = 0): Int32Array {
    const lone = /\p{Surrogate}/u.exec(text);
    if (lone)
      throw new ConfigError(
        `half a character (a lone surrogate) at position ${at + lone.index}; it has no UTF-8 bytes`,
      );
    const ids: number[] = [];
    // With a capturing pattern, split puts the special tokens at the odd places.
    (this.#special ? text.split(this.#special) : [text]).forEach((part, i) => {
      if (i % 2 === 1) ids.push(this.#ids.get(part)!);
      else for (const word of wordsOf(part)) for (const id of this.#encodeWord(word)) ids.push(id);
    });
    return Int32Array.from(ids);
  }

  has(id: number): boolean {
    return this.#bytes[id] !== undefined;
  }

  cut(text: string): number {
    // A special token with white space in it could stand across any place.
    if (this.vocabulary.special.some((token) => /\s/.test(token))) return 0;
    return lastWordBoundary(text);
  }

  decode(ids: Iterable<number>): string {
    const decoder = this.decoder();
    let text = "";
    for (const id of ids) text += decoder.push(id);
    return text + decoder.end();
  }

  decoder(): StreamDecoder {
    const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
    return {
      push: (id) => utf8.decode(this.#bytesOfId(id), { stream: true }),
      end: () => utf8.decode(),
    };
  }

  toFiles(): ReadonlyMap<string, string> {
    return writeTokenizerJson(this.name, this.vocabulary);
  }

  #encodeWord(word: string): readonly number[] {
    const remembered = this.#remembered.get(word);
    if (remembered) return remembered;
    const symbols: number[] = [];
    for (const byte of new TextEncoder().encode(word)) {
      const id = this.#idOfByte[byte];
      if (id === undefined)
        throw new ConfigError(`tokenizer ${this.name}: its vocabulary lacks byte ${byte} of ${JSON.stringify(word)}`);
      symbols.push(id);
    }
    const ids = this.#merges.apply(symbols);
    if (this.#remembered.size >= rememberedWords) this.#remembered.clear();
    if (word.length < 100) this.#remembered.set(word, ids);
    return ids;
  }

  #bytesOfId(id: number): Uint8Array {
    const bytes = this.#bytes[id];
    if (bytes) return bytes;
    throw new ConfigError(`tokenizer ${this.name}: id ${id} is outside its vocabulary of ${this.vocabSize}`);
  }
}

function idsOf(tokens: readonly (string | undefined)[]): Map<string, number> {
  const ids = new Map<string, number>();
  tokens.forEach((token, id) => {
    if (token !== undefined) ids.set(token, id);
  });
  return ids;
}

/** Any of these tokens, the longest first, as one capturing group. */
function patternOf(tokens: readonly string[]): RegExp | undefined {
  if (tokens.length === 0) return undefined;
  const byLength = [...tokens].sort((a, b) => b.length - a.length);
  return new RegExp(`(${byLength.map((token) => token.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&")).join("|")})`);
}
