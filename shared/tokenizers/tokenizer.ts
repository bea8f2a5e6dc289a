// The contract of a tokenizer: text to ids and back, in one piece or as a stream, and the files in which it travels
// inside a checkpoint. Implementations lie beside this file; open.ts finds and opens each of them.
import { ConfigError } from "../errors.ts";

/** A directory holds no file that says a tokenizer: whoever names one may go on. */
export class NoTokenizerError extends ConfigError {}

export interface Tokenizer {
  readonly name: "char" | "word" | "gpt2" | "gpt1" | "bpe" | "wordlevel";
  /** V: ids are 0 .. vocabSize - 1. */
  readonly vocabSize: number;
  /** Ids from here on are special tokens, which a model may lack; default: vocabSize, none may be lacking. */
  readonly ordinarySize?: number;
  /** Id that ends a document, where the vocabulary has one. */
  readonly endOfText?: number;
  /** Characters or words that were left out so far, of a tokenizer that does so (see skippingUnknown). */
  readonly skipped?: number;
  /** Ids that encode puts around every text, where it does. */
  readonly template?: readonly number[];

  /**
   * Ids of a text.
   * @param at position of the text's first code unit in the whole input, for messages
   * @param piece which part of a longer text it is; default: all of it
   * @throws ConfigError naming what the vocabulary lacks and its position
   */
  encode(text: string, at?: number, piece?: Piece): Int32Array;

  /** Is there a token of this id? Vocabularies may have gaps, and a model more ids than its tokenizer. */
  has(id: number): boolean;

  /**
   * Where the beginning of a longer text may be cut off so that head and rest can be encoded apart; 0: not yet.
   * This is what lets files larger than memory be encoded piece by piece.
   * @param from there was no place before text.slice(0, from) grew longer
   */
  cut(text: string, from?: number): number;

  /**
   * Text of ids; an id without a token has none.
   * @param skipSpecial leave special tokens out
   * @throws ConfigError on an id outside the vocabulary
   */
  decode(ids: Iterable<number>, skipSpecial?: boolean): string;

  /** Text of a growing sequence: characters whose bytes are split over tokens appear once they are whole. */
  decoder(skipSpecial?: boolean): StreamDecoder;

  /** Names and contents of the files that hold this tokenizer in a checkpoint. */
  toFiles(): ReadonlyMap<string, string>;
}

export interface StreamDecoder {
  /** The text that this id completes. */
  push(id: number): string;
  /** What is left, once no more ids come. */
  end(): string;
}

/** Which part of a longer text a piece is. */
export interface Piece {
  readonly first: boolean;
  readonly last: boolean;
}

export const wholeText: Piece = { first: true, last: true };

/** A text without a place to cut it is held as a whole, up to this many UTF-16 units. */
const longestHeld = 2 ** 28;

/** Encodes a text that comes in pieces. */
export class StreamEncoder {
  readonly #tokenizer: Tokenizer;
  #held = "";
  /** No place to cut was found before here. */
  #searched = 0;
  /** Length in which none was found at all: looked for again where there is twice as much, so that looking is linear. */
  #unbroken = 0;
  #position = 0;
  #first = true;

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer;
  }

  /** The ids that are certain so far. */
  push(text: string): Int32Array {
    const whole = this.#held + text;
    if (whole.length < Math.min(2 * this.#unbroken, longestHeld)) {
      this.#held = whole;
      return new Int32Array(0);
    }
    const cut = this.#tokenizer.cut(whole, this.#searched);
    this.#held = whole.slice(cut);
    this.#searched = this.#held.length;
    this.#unbroken = cut === 0 ? whole.length : 0;
    if (this.#held.length > longestHeld)
      throw new ConfigError(
        `the tokenizer ${this.#tokenizer.name} finds no place to cut the ${this.#held.length} characters from position ` +
          `${this.#position} on; put white space between them`,
      );
    return cut === 0 ? new Int32Array(0) : this.#take(whole.slice(0, cut), false);
  }

  /** The rest, once no more text comes. */
  end(): Int32Array {
    const rest = this.#held;
    this.#held = "";
    return this.#take(rest, true);
  }

  #take(text: string, last: boolean): Int32Array {
    const ids = this.#tokenizer.encode(text, this.#position, { first: this.#first, last });
    this.#position += text.length;
    this.#first = false;
    return ids;
  }
}
