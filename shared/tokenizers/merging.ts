// What the tokenizers of Hugging Face have in common: tokens that are found as a whole, words merged from symbols, tokens
// put before and after a text. Subclasses say what a word is, of which symbols, and how tokens become text again.
import { brief } from "../check.ts";
import { ConfigError } from "../errors.ts";
import { type AddedToken, AddedTokens } from "./added.ts";
import { IdBuffer } from "./id-buffer.ts";
import { Merges } from "./merges.ts";
import { type Piece, type StreamDecoder, type Tokenizer, wholeText } from "./tokenizer.ts";
import { type BpeVocabulary, type TokenizerPlan, writeTokenizerJson } from "./tokenizer-json.ts";
import { WordMemory } from "./word-memory.ts";

export abstract class MergingTokenizer implements Tokenizer {
  abstract readonly name: Tokenizer["name"];
  readonly vocabulary: BpeVocabulary;
  readonly ordinarySize: number;
  readonly endOfText?: number;
  readonly template: readonly number[];
  protected readonly plan: TokenizerPlan;
  protected readonly added: AddedTokens;
  /** Ids of the vocabulary without the added tokens. */
  protected readonly ids: ReadonlyMap<string, number>;
  readonly #merges = new Merges();
  readonly #known = new WordMemory();
  readonly #unknown: number | undefined;
  /** Text by id; an added token that is found in normalized text is written so too. */
  protected readonly texts: readonly (string | undefined)[];
  readonly #special: ReadonlySet<number | undefined>;
  #symbols = new Int32Array(1024);

  /** @throws ConfigError where tokens, merges and added tokens do not fit each other */
  constructor(plan: TokenizerPlan, normalize?: (text: string) => string) {
    this.plan = plan;
    this.vocabulary = plan.vocabulary;
    const { tokens, merges, added } = plan.vocabulary;
    this.added = new AddedTokens(added, normalize);
    const { own } = plan;
    this.ids = own;
    const idOf = (token: string, user: string): number => {
      const id = own.get(token);
      if (id !== undefined) return id;
      throw new ConfigError(`tokenizer: ${user} needs ${brief(token)}, which its vocabulary lacks`);
    };
    for (const [rank, [left, right]] of merges.entries()) {
      const user = `merge ${rank}`;
      this.#merges.add(idOf(left, user), idOf(right, user), idOf(left + right, user));
    }
    const texts = [...tokens];
    if (normalize)
      for (const { id, content, normalized } of added)
        if (id !== undefined && normalized) texts[id] = normalize(content);
    this.texts = texts;
    this.#special = new Set(added.filter(({ special }) => special).map(({ id }) => id));
    if (plan.unknown !== undefined) this.#unknown = own.get(plan.unknown);
    const extra = new Set(added.map(({ id }) => id));
    this.ordinarySize = 1 + tokens.findLastIndex((token, id) => token !== undefined && !extra.has(id));
    this.template = [...plan.before, ...plan.after];
    if (plan.endOfText !== undefined) this.endOfText = plan.endOfText;
  }

  get vocabSize(): number {
    return this.vocabulary.tokens.length;
  }

  encode(text: string, at = 0, { first, last }: Piece = wholeText): Int32Array {
    const lone = /\p{Surrogate}/u.exec(text);
    if (lone)
      throw new ConfigError(
        `half a character (a lone surrogate) at position ${at + lone.index}; it has no UTF-8 bytes`,
      );
    const out = new IdBuffer();
    if (first) for (const id of this.plan.before) out.push(id);
    for (const part of this.added.split(text))
      if (part.token) out.push(usable(part.token, at + part.at));
      else this.encodeBetween(part.text, first || part.at > 0, out);
    if (last) for (const id of this.plan.after) out.push(id);
    return out.ids;
  }

  has(id: number): boolean {
    return this.vocabulary.tokens[id] !== undefined;
  }

  /**
   * What an id stands for in a decoder.
   * @param meanings by id
   * @returns undefined for an id without a token, and for a special one that is to be left out
   * @throws ConfigError outside the vocabulary
   */
  protected meaningOf<T>(meanings: readonly (T | undefined)[], id: number, skipSpecial: boolean): T | undefined {
    if (!(id >= 0 && id < this.vocabSize))
      throw new ConfigError(`tokenizer ${this.name}: id ${id} is outside its vocabulary of ${this.vocabSize}`);
    return skipSpecial && this.#special.has(id) ? undefined : meanings[id];
  }

  abstract cut(text: string, from?: number): number;

  decode(ids: Iterable<number>, skipSpecial = false): string {
    const decoder = this.decoder(skipSpecial);
    let text = "";
    for (const id of ids) text += decoder.push(id);
    return text + decoder.end();
  }

  abstract decoder(skipSpecial?: boolean): StreamDecoder;

  toFiles(): ReadonlyMap<string, string> {
    return writeTokenizerJson(this.name === "gpt2", this.plan);
  }

  /** Ids of a normalized text without added tokens, which begins a text or follows such a token if `begins`. */
  protected abstract encodeBetween(text: string, begins: boolean, out: IdBuffer): void;

  /** Symbols of a word: ids of the vocabulary, -1 for what it lacks. @returns how many `into` has now */
  protected abstract symbolsOf(word: string, into: Int32Array): number;

  /** The word as the vocabulary spells it. */
  protected abstract spell(word: string): string;

  /** Ids of the word text[from, to). */
  protected encodeWord(text: string, from: number, to: number, out: IdBuffer): void {
    if (this.#known.recall(text, from, to, out)) return;
    const ids = this.#tokensOf(text.slice(from, to));
    out.append(ids);
    this.#known.keep(text, from, to, ids);
  }

  #tokensOf(word: string): Int32Array {
    if (this.plan.ignoreMerges) {
      const whole = this.ids.get(this.spell(word));
      if (whole !== undefined) return Int32Array.of(whole);
    }
    // A UTF-16 unit is at most three bytes.
    if (this.#symbols.length < 3 * word.length) this.#symbols = new Int32Array(3 * word.length);
    let symbols: Int32Array = this.#symbols.subarray(0, this.symbolsOf(word, this.#symbols));
    if (symbols.includes(-1)) symbols = this.#withUnknown(symbols, word);
    const tokens = this.#merges.apply(symbols);
    if (this.#symbols.length > 1 << 20) this.#symbols = new Int32Array(1024);
    return tokens;
  }

  #withUnknown(symbols: Int32Array, word: string): Int32Array {
    const unknown = this.#unknown;
    if (unknown === undefined)
      throw new ConfigError(
        `tokenizer ${this.name}: its vocabulary lacks ${this.plan.kind === "words" ? "" : "a character of "}${brief(word)} ` +
          "and has no token for unknown ones; leave it out",
      );
    const known = symbols.map((id) => (id < 0 ? unknown : id));
    return this.plan.fuseUnknown ? known.filter((_, i) => !(i > 0 && symbols[i]! < 0 && symbols[i - 1]! < 0)) : known;
  }
}

function usable({ id, content }: AddedToken, at: number): number {
  if (id !== undefined) return id;
  throw new ConfigError(
    `the added token ${brief(content)} at position ${at} has another id in the tokenizer's files than Hugging ` +
      "Face's library gives it (the next free one); leave it out of the text, or write the files anew with that library",
  );
}
