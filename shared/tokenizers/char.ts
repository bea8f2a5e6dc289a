// One token a character: the sorted set of a text's Unicode code points, as in Karpathy's lecture and nanoGPT.
import { brief } from "../check.ts";
import { ConfigError } from "../errors.ts";
import { writeOwnFile } from "./own-file.ts";
import type { StreamDecoder, Tokenizer } from "./tokenizer.ts";

/** A character as a message shows it: quoted, control characters escaped, with its code point. */
function shown(character: string): string {
  const code = character.codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0");
  return `${JSON.stringify(character)} (U+${code})`;
}

/** Collect the code points of a text. */
export function addCodePoints(text: string, into: Set<number>): void {
  for (let i = 0; i < text.length; i++) {
    const code = text.codePointAt(i)!;
    if (code > 0xffff) i++;
    into.add(code);
  }
}

/** Where a text may be cut off: anywhere but inside a surrogate pair. */
export function cutBetweenCharacters(text: string): number {
  const last = text.charCodeAt(text.length - 1);
  return last >= 0xd800 && last < 0xdc00 ? text.length - 1 : text.length;
}

export class CharTokenizer implements Tokenizer {
  readonly name = "char";
  readonly #tokens: readonly string[];
  readonly #ids: ReadonlyMap<string, number>;
  /** Ids of code points below 128, which are nearly all of them: -1 where the vocabulary has none. */
  readonly #ascii = new Int32Array(128).fill(-1);

  readonly #skips: boolean;
  #skipped = 0;

  /**
   * @param tokens one code point each, all different; the place in the list is the id
   * @param skips leave out what the vocabulary lacks
   */
  constructor(tokens: readonly string[], skips = false) {
    this.#tokens = tokens;
    this.#skips = skips;
    this.#ids = new Map(tokens.map((token, id) => [token, id]));
    if (this.#ids.size !== tokens.length)
      throw new ConfigError(`tokenizer char: ${tokens.length - this.#ids.size} of its characters are there twice`);
    for (const [token, id] of this.#ids) {
      const code = token.codePointAt(0);
      if (code === undefined || String.fromCodePoint(code) !== token)
        throw new ConfigError(`tokenizer char: token ${id} is ${brief(token)}, expected one character`);
      if (code < 128) this.#ascii[code] = id;
    }
  }

  /** The vocabulary of a text. */
  static of(text: string): CharTokenizer {
    const codes = new Set<number>();
    addCodePoints(text, codes);
    return CharTokenizer.fromCodePoints(codes);
  }

  /** The vocabulary in the order of code points, whatever order they come in. */
  static fromCodePoints(codes: Iterable<number>): CharTokenizer {
    const sorted = [...codes].sort((a, b) => a - b);
    if (sorted.length === 0) throw new ConfigError("tokenizer char: the text is empty, so there is no vocabulary");
    return new CharTokenizer(sorted.map((code) => String.fromCodePoint(code)));
  }

  /** The same vocabulary and, after it, the characters that it lacks, in the order of code points. */
  extendedBy(codes: Iterable<number>): CharTokenizer {
    const fresh = [...codes].sort((a, b) => a - b).map((code) => String.fromCodePoint(code));
    return new CharTokenizer([...this.#tokens, ...fresh.filter((token) => !this.#ids.has(token))]);
  }

  /** The same vocabulary; what it lacks is left out. */
  skippingUnknown(): CharTokenizer {
    return new CharTokenizer(this.#tokens, true);
  }

  get skipped(): number {
    return this.#skipped;
  }

  get vocabSize(): number {
    return this.#tokens.length;
  }

  encode(text: string, at = 0): Int32Array {
    const ids = new Int32Array(text.length);
    let n = 0;
    for (let i = 0; i < text.length; i++) {
      const code = text.charCodeAt(i);
      let id = code < 128 ? this.#ascii[code]! : -1;
      if (id < 0) {
        const character = String.fromCodePoint(text.codePointAt(i)!);
        const found = this.#ids.get(character);
        i += character.length - 1;
        if (found === undefined && this.#skips) {
          this.#skipped++;
          continue;
        }
        if (found === undefined)
          throw new ConfigError(
            `character ${shown(character)} at position ${at + i + 1 - character.length} is not in the vocabulary of ` +
              `${this.vocabSize} characters; training can leave such out (--unknown skip) or learn them (--extend-vocabulary)`,
          );
        id = found;
      }
      ids[n++] = id;
    }
    return ids.subarray(0, n);
  }

  has(id: number): boolean {
    return id in this.#tokens;
  }

  cut(text: string): number {
    return cutBetweenCharacters(text);
  }

  decode(ids: Iterable<number>): string {
    let text = "";
    for (const id of ids) text += this.#token(id);
    return text;
  }

  decoder(): StreamDecoder {
    return { push: (id) => this.#token(id), end: () => "" };
  }

  toFiles(): ReadonlyMap<string, string> {
    return writeOwnFile("char", this.#tokens);
  }

  #token(id: number): string {
    const token = this.#tokens[id];
    if (token === undefined)
      throw new ConfigError(`tokenizer char: id ${id} is outside its vocabulary of ${this.vocabSize}`);
    return token;
  }
}
