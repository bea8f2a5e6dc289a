// Byte-level byte-pair encoding: any text is words of bytes, merged as far as the vocabulary's merges go. GPT-2's
// tokenizer and those trained here are both this, saved as Hugging Face's tokenizer.json.
import { bytesOf, lastWordBoundary, letterOfByte, spellBytes, wordEnd } from "./bytes.ts";
import type { IdBuffer } from "./id-buffer.ts";
import { MergingTokenizer } from "./merging.ts";
import type { StreamDecoder } from "./tokenizer.ts";
import type { TokenizerPlan } from "./tokenizer-json.ts";

const utf8 = new TextEncoder();

export class BpeTokenizer extends MergingTokenizer {
  readonly name: "gpt2" | "bpe";
  readonly #bytes: readonly (Uint8Array | undefined)[];
  readonly #idOfByte: readonly number[];

  /** @throws ConfigError where tokens, merges and added tokens do not fit each other */
  constructor(name: "gpt2" | "bpe", plan: TokenizerPlan) {
    super(plan);
    this.name = name;
    this.#idOfByte = letterOfByte.map((letter) => this.ids.get(letter) ?? -1);
    // What is not spelled in letters of bytes is itself, as Hugging Face decodes it.
    this.#bytes = plan.vocabulary.tokens.map((token) =>
      token === undefined ? undefined : (bytesOf(token) ?? utf8.encode(token)),
    );
  }

  cut(text: string, from = 0): number {
    const { cutWords } = this.plan;
    // Without words a text is cut before a token only.
    return this.added.cut(text, from, (low, high) => (cutWords ? lastWordBoundary(text, low, high) : 0));
  }

  decoder(skipSpecial = false): StreamDecoder {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    return {
      push: (id) => {
        const bytes = this.meaningOf(this.#bytes, id, skipSpecial);
        return bytes ? decoder.decode(bytes, { stream: true }) : "";
      },
      end: () => decoder.decode(),
    };
  }

  protected encodeBetween(text: string, begins: boolean, out: IdBuffer): void {
    const { addPrefixSpace, cutWords } = this.plan;
    const whole = addPrefixSpace && begins && !text.startsWith(" ") ? ` ${text}` : text;
    if (!cutWords) {
      this.encodeWord(whole, 0, whole.length, out);
      return;
    }
    for (let at = 0; at < whole.length; ) {
      const end = wordEnd(whole, at);
      this.encodeWord(whole, at, end, out);
      at = end;
    }
  }

  protected symbolsOf(word: string, into: Int32Array): number {
    const idOfByte = this.#idOfByte;
    for (let i = 0; i < word.length; i++) {
      const unit = word.charCodeAt(i);
      if (unit >= 0x80) return this.#symbolsOfBytes(word, into);
      into[i] = idOfByte[unit]!;
    }
    return word.length;
  }

  protected spell(word: string): string {
    return spellBytes(utf8.encode(word));
  }

  #symbolsOfBytes(word: string, into: Int32Array): number {
    const bytes = utf8.encode(word);
    for (let i = 0; i < bytes.length; i++) into[i] = this.#idOfByte[bytes[i]!]!;
    return bytes.length;
  }
}
