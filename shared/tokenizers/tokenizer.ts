// The contract of a tokenizer: text to ids and back, in one piece or as a stream, and the files in which it travels
// inside a checkpoint. Implementations lie beside this file; open.ts finds and opens each of them.

export interface Tokenizer {
  readonly name: "char" | "word" | "gpt2" | "gpt1" | "bpe";
  /** V: ids are 0 .. vocabSize - 1. */
  readonly vocabSize: number;
  /** Ids from here on are special tokens, which a model may lack; default: vocabSize, none may be lacking. */
  readonly ordinarySize?: number;
  /** Id that ends a document, where the vocabulary has one. */
  readonly endOfText?: number;

  /**
   * Ids of a text.
   * @param at position of the text's first code unit in the whole input, for messages
   * @throws ConfigError naming what the vocabulary lacks and its position
   */
  encode(text: string, at?: number): Int32Array;

  /** Is there a token of this id? Vocabularies may have gaps, and a model more ids than its tokenizer. */
  has(id: number): boolean;

  /**
   * Where the beginning of a longer text may be cut off so that head and rest can be encoded apart; 0: not yet.
   * This is what lets files larger than memory be encoded piece by piece.
   */
  cut(text: string): number;

  /** @throws ConfigError on an id outside the vocabulary */
  decode(ids: Iterable<number>): string;

  /** Text of a growing sequence: characters whose bytes are split over tokens appear once they are whole. */
  decoder(): StreamDecoder;

  /** Names and contents of the files that hold this tokenizer in a checkpoint. */
  toFiles(): ReadonlyMap<string, string>;
}

export interface StreamDecoder {
  /** The text that this id completes. */
  push(id: number): string;
  /** What is left, once no more ids come. */
  end(): string;
}

/** Encodes a text that comes in pieces. */
export class StreamEncoder {
  readonly #tokenizer: Tokenizer;
  #held = "";
  #position = 0;

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer;
  }

  /** The ids that are certain so far. */
  push(text: string): Int32Array {
    const whole = this.#held + text;
    const cut = this.#tokenizer.cut(whole);
    this.#held = whole.slice(cut);
    return this.#take(whole.slice(0, cut));
  }

  /** The rest, once no more text comes. */
  end(): Int32Array {
    const rest = this.#held;
    this.#held = "";
    return this.#take(rest);
  }

  #take(text: string): Int32Array {
    if (text === "") return new Int32Array(0);
    const ids = this.#tokenizer.encode(text, this.#position);
    this.#position += text.length;
    return ids;
  }
}
