// One token a word of a given vocabulary; text is words with single spaces between them (the tokenizer of "GPT in 60
// lines of NumPy", whose bare KeyError is a named error here).
import { brief } from "../check.ts";
import { ConfigError } from "../errors.ts";
import { writeOwnFile } from "./own-file.ts";
import { type Piece, type StreamDecoder, type Tokenizer, wholeText } from "./tokenizer.ts";

export class WordTokenizer implements Tokenizer {
  readonly name = "word";
  readonly #tokens: readonly string[];
  readonly #ids: ReadonlyMap<string, number>;

  readonly #skips: boolean;
  #skipped = 0;

  /**
   * @param tokens words without spaces, all different; the place in the list is the id
   * @param skips leave out what the vocabulary lacks
   */
  constructor(tokens: readonly string[], skips = false) {
    this.#tokens = tokens;
    this.#skips = skips;
    this.#ids = new Map(tokens.map((token, id) => [token, id]));
    tokens.forEach((token, id) => {
      if (token === "" || token.includes(" "))
        throw new ConfigError(`tokenizer word: token ${id} is ${brief(token)}, expected a word without spaces`);
      if (this.#ids.get(token) !== id)
        throw new ConfigError(`tokenizer word: ${brief(token)} is token ${id} and token ${this.#ids.get(token)}`);
    });
  }

  /** The same vocabulary; words that it lacks are left out. */
  skippingUnknown(): WordTokenizer {
    return new WordTokenizer(this.#tokens, true);
  }

  get skipped(): number {
    return this.#skipped;
  }

  get vocabSize(): number {
    return this.#tokens.length;
  }

  encode(text: string, at = 0, { first }: Piece = wholeText): Int32Array {
    if (text === "" && first)
      throw new ConfigError("the text is empty; expected words with single spaces between them");
    if (text === "") return new Int32Array(0);
    // A piece that is not the first may begin with the space that divides it from the one before.
    const skipped = !first && text.startsWith(" ") ? 1 : 0;
    let position = at + skipped;
    const ids: number[] = [];
    for (const [i, word] of text.slice(skipped).split(" ").entries()) {
      const id = this.#ids.get(word);
      if (id !== undefined) ids.push(id);
      else if (this.#skips) this.#skipped++;
      else
        throw new ConfigError(
          word === ""
            ? `an empty word at position ${position} (word ${i + 1}); expected single spaces, between words only`
            : `word ${brief(word)} at position ${position} (word ${i + 1}) is not in the vocabulary of ` +
                `${this.vocabSize} words`,
        );
      position += word.length + 1;
    }
    return Int32Array.from(ids);
  }

  has(id: number): boolean {
    return id in this.#tokens;
  }

  /** Before a space. */
  cut(text: string): number {
    return Math.max(0, text.lastIndexOf(" "));
  }

  decode(ids: Iterable<number>): string {
    return Array.from(ids, (id) => this.#word(id)).join(" ");
  }

  decoder(): StreamDecoder {
    let separator = "";
    return {
      push: (id) => {
        const text = separator + this.#word(id);
        separator = " ";
        return text;
      },
      end: () => "",
    };
  }

  toFiles(): ReadonlyMap<string, string> {
    return writeOwnFile("word", this.#tokens);
  }

  #word(id: number): string {
    const word = this.#tokens[id];
    if (word !== undefined) return word;
    throw new ConfigError(`tokenizer word: id ${id} is outside its vocabulary of ${this.vocabSize}`);
  }
}
