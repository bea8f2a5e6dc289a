// What a tokenizer is, whatever files said so: vocabulary, merges, added tokens and the steps around them.
import { type AddedToken, specialToken } from "./added.ts";
import type { WordSteps } from "./word-steps.ts";

/** Ends a document, in GPT-2's vocabulary and in those trained here. */
export const endOfTextToken = "<|endoftext|>";

export interface BpeVocabulary {
  /** By id: bytes spelled as in vocab.json ("Ġall"), added tokens as they are; a gap is undefined. */
  readonly tokens: readonly (string | undefined)[];
  /** In the order of their ranks. */
  readonly merges: readonly (readonly [left: string, right: string])[];
  readonly added: readonly AddedToken[];
}

/** Tokens with a part to play, by transformers' names for it. */
export const roles = [
  "bos_token",
  "eos_token",
  "unk_token",
  "sep_token",
  "pad_token",
  "cls_token",
  "mask_token",
] as const;

export interface TokenizerPlan {
  /** Byte-level BPE, GPT-1's BPE over lower-cased characters with "</w>" at a word's end, or a token a word by `steps`. */
  readonly kind: "bytes" | "gpt1" | "words";
  readonly steps?: WordSteps;
  readonly vocabulary: BpeVocabulary;
  /** Ids of the model's own vocabulary; added tokens may be there too. */
  readonly own: ReadonlyMap<string, number>;
  /** Put a space before text that begins without one: a text, and what follows an added token. */
  readonly addPrefixSpace: boolean;
  /** Cut text into GPT-2's words before merging. */
  readonly cutWords: boolean;
  /** A word that is a token as a whole is not merged. */
  readonly ignoreMerges: boolean;
  /** Stands for a symbol that the vocabulary lacks; several in a row become one if fused. */
  readonly unknown: string | undefined;
  readonly fuseUnknown: boolean;
  /** Ids around every text (TemplateProcessing). */
  readonly before: readonly number[];
  readonly after: readonly number[];
  readonly endOfText: number | undefined;
  readonly roles: Readonly<Partial<Record<(typeof roles)[number], string>>>;
}

/** Byte-level BPE as GPT-2 and train-bpe.ts have it: the last token is <|endoftext|>. */
export function plainPlan(tokens: readonly string[], merges: BpeVocabulary["merges"]): TokenizerPlan {
  const end = tokens.length;
  return {
    kind: "bytes",
    vocabulary: { tokens: [...tokens, endOfTextToken], merges, added: [specialToken(end, endOfTextToken)] },
    own: new Map([...tokens, endOfTextToken].map((token, id) => [token, id])),
    addPrefixSpace: false,
    cutWords: true,
    ignoreMerges: false,
    unknown: undefined,
    fuseUnknown: false,
    before: [],
    after: [],
    endOfText: end,
    roles: { bos_token: endOfTextToken, eos_token: endOfTextToken },
  };
}

/** A list of words, of which the place is the id, and nothing around them. */
export function wordPlan(tokens: readonly string[], steps: WordSteps): TokenizerPlan {
  return {
    ...plainPlan([], []),
    kind: "words",
    steps,
    vocabulary: { tokens, merges: [], added: [] },
    own: new Map(tokens.map((token, id) => [token, id])),
    // No token has this name: what the vocabulary lacks is an error there as here.
    unknown: "",
    endOfText: undefined,
    roles: {},
  };
}

/**
 * The ids that Hugging Face's library gives added tokens, in their order: the one of the vocabulary, else the next free
 * one. That is the size of the vocabulary and the number of such tokens before (tokenizers 0.23), or one more than the
 * highest added one (0.15). Where these, or the files, say otherwise, the token has none.
 */
export class Adding {
  readonly added: AddedToken[] = [];
  readonly #own: ReadonlyMap<string, number>;
  readonly #tokens: (string | undefined)[];
  readonly #byContent = new Map<string, AddedToken>();
  #highest = -1;
  #fresh = 0;

  /**
   * @param own ids of the model's own vocabulary
   * @param tokens by id; added tokens are put there
   */
  constructor(own: ReadonlyMap<string, number>, tokens: (string | undefined)[]) {
    this.#own = own;
    this.#tokens = tokens;
  }

  /** The token of this content, if it was added. */
  get(content: string): AddedToken | undefined {
    return this.#byContent.get(content);
  }

  /** A token that was added before, as it is. */
  restore(token: AddedToken): void {
    this.#next(token.content);
    this.#push(token);
  }

  /** @param said the id by the files, undefined where they leave it to the library */
  add(token: Omit<AddedToken, "id">, said: number | undefined): AddedToken {
    const id = this.#next(token.content);
    const taken = id === undefined ? undefined : this.#tokens[id];
    const agreed = id !== undefined && (said ?? id) === id && (taken === undefined || taken === token.content);
    const free = said !== undefined && this.#tokens[said] === undefined ? said : this.#tokens.length;
    const added: AddedToken = agreed ? { ...token, id } : { ...token, id: undefined, said: free };
    while (this.#tokens.length <= (agreed ? id : free)) this.#tokens.push(undefined);
    if (agreed) this.#tokens[id] = token.content;
    this.#push(added);
    return added;
  }

  /** Makes a token that was added a mark of the format; its other flags stay. */
  markSpecial(token: AddedToken): void {
    const special = { ...token, special: true };
    this.added[this.added.indexOf(token)] = special;
    this.#byContent.set(token.content, special);
  }

  /** The id that every version gives the next token. */
  #next(content: string): number | undefined {
    const own = this.#own.get(content);
    const { size } = this.#own;
    const above = own ?? Math.max(this.#highest + 1, size);
    const counted = own ?? size + this.#fresh;
    if (own === undefined) this.#fresh++;
    this.#highest = Math.max(this.#highest, above);
    return above === counted ? above : undefined;
  }

  #push(token: AddedToken): void {
    this.added.push(token);
    this.#byContent.set(token.content, token);
  }
}
