// A tokenizer and a model that differ in size. Models pad their vocabulary (50,304 rows for 50,257 tokens): decoding
// leaves out the ids without a token, by Tokenizer.has. The other way round, a token was added and the embedding not
// resized ([PAD]): that token cannot be used, all others can.
import { ConfigError } from "../errors.ts";
import type { Piece, StreamDecoder, Tokenizer } from "./tokenizer.ts";

/**
 * The tokenizer as a model of `vocabSize` ids can use it; the same one where it has no more tokens than that.
 * @param where the model's path, for messages
 * @throws ConfigError where the model lacks more than special tokens: the two do not belong together
 */
export function fitted(tokenizer: Tokenizer, vocabSize: number, where: string): Tokenizer {
  if (tokenizer.vocabSize <= vocabSize) return tokenizer;
  if ((tokenizer.ordinarySize ?? tokenizer.vocabSize) <= vocabSize) return new CutTokenizer(tokenizer, vocabSize);
  throw new ConfigError(
    `${where}: its tokenizer has ${tokenizer.vocabSize} tokens, its model ${vocabSize}; they do not belong together`,
  );
}

class CutTokenizer implements Tokenizer {
  readonly name: Tokenizer["name"];
  readonly vocabSize: number;
  readonly endOfText?: number;
  readonly template: readonly number[];
  readonly #whole: Tokenizer;

  constructor(whole: Tokenizer, vocabSize: number) {
    this.#whole = whole;
    this.name = whole.name;
    this.template = whole.template ?? [];
    this.vocabSize = vocabSize;
    if (whole.endOfText !== undefined && whole.endOfText < vocabSize) this.endOfText = whole.endOfText;
  }

  encode(text: string, at?: number, piece?: Piece): Int32Array {
    const ids = this.#whole.encode(text, at, piece);
    const beyond = ids.find((id) => id >= this.vocabSize);
    if (beyond === undefined) return ids;
    throw new ConfigError(
      `the text has ${JSON.stringify(this.#whole.decode([beyond]))}, token ${beyond}, which was added to the tokenizer ` +
        `but not to the model, whose embedding has ${this.vocabSize} rows; leave it out, or resize the embedding`,
    );
  }

  has(id: number): boolean {
    return id < this.vocabSize && this.#whole.has(id);
  }

  cut(text: string, from?: number): number {
    return this.#whole.cut(text, from);
  }

  decode(ids: Iterable<number>, skipSpecial?: boolean): string {
    return this.#whole.decode(ids, skipSpecial);
  }

  decoder(skipSpecial?: boolean): StreamDecoder {
    return this.#whole.decoder(skipSpecial);
  }

  toFiles(): ReadonlyMap<string, string> {
    return this.#whole.toFiles();
  }
}
