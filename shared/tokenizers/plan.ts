// What a byte-pair tokenizer is, whatever files said so: vocabulary, merges, added tokens and the steps around them.
import { type AddedToken, specialToken } from "./added.ts";

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
  /** Byte-level BPE, or GPT-1's BPE over lower-cased characters with "</w>" at a word's end. */
  readonly kind: "bytes" | "gpt1";
  readonly vocabulary: BpeVocabulary;
  /** Ids from here on belong to added tokens alone. */
  readonly modelSize: number;
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
    modelSize: end + 1,
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

/**
 * The ids that Hugging Face's library gives added tokens: the one of the vocabulary, else the next free one. Where the
 * files say otherwise, the token has none.
 * @param vocabulary ids of the model's own tokens
 * @param tokens by id; added tokens are put there
 */
export class Adding {
  readonly added: AddedToken[] = [];
  readonly #ids: ReadonlyMap<string, number>;
  readonly #tokens: (string | undefined)[];
  readonly #byContent = new Map<string, AddedToken>();
  #highest = -1;

  constructor(ids: ReadonlyMap<string, number>, tokens: (string | undefined)[]) {
    this.#ids = ids;
    this.#tokens = tokens;
  }

  /** The token of this content, if it was added. */
  get(content: string): AddedToken | undefined {
    return this.#byContent.get(content);
  }

  /** A token that was added before, as it is. */
  restore(token: AddedToken): void {
    this.#push(token);
    this.#highest = Math.max(this.#highest, token.id ?? this.#ids.get(token.content) ?? this.#highest + 1);
  }

  /** @param said the id by the files, undefined where they leave it to the library */
  add(token: Omit<AddedToken, "id">, said: number | undefined): AddedToken {
    const id = this.#ids.get(token.content) ?? Math.max(this.#highest + 1, this.#ids.size);
    this.#highest = Math.max(this.#highest, id);
    const taken = this.#tokens[id];
    const agreed = (said === undefined || said === id) && (taken === undefined || taken === token.content);
    const added = { ...token, id: agreed ? id : undefined };
    while (this.#tokens.length <= Math.max(id, said ?? 0)) this.#tokens.push(undefined);
    if (agreed) this.#tokens[id] = token.content;
    this.#push(added);
    return added;
  }
  #push(token: AddedToken): void {
    this.added.push(token);
    this.#byContent.set(token.content, token);
  }
}
