// GPT-2's own tokenizer, 50,257 tokens: its merges ship with the package gpt-tokenizer, as bytes by rank.
import ranks from "gpt-tokenizer/bpeRanks/r50k_base";
import { BpeTokenizer } from "./bpe.ts";
import { spellBytes } from "./bytes.ts";
import { type BpeVocabulary, endOfTextToken } from "./hugging-face.ts";
import { Merges } from "./merges.ts";

/** The tokenizer of every GPT-2 and of nanoGPT's OpenWebText data. Takes some tenths of a second. */
export function gpt2Tokenizer(): BpeTokenizer {
  const tokens = ranks.map(spell);
  return new BpeTokenizer("gpt2", {
    tokens: [...tokens, endOfTextToken],
    merges: mergesOf(tokens),
    special: [endOfTextToken],
  });
}

/** Is this GPT-2's vocabulary, to the last token? */
export function isGpt2({ tokens }: BpeVocabulary): boolean {
  return tokens.length === ranks.length + 1 && ranks.every((token, id) => spell(token) === tokens[id]);
}

function spell(token: string | readonly number[]): string {
  return spellBytes(typeof token === "string" ? new TextEncoder().encode(token) : Uint8Array.from(token));
}

/**
 * The pair that each token was merged from: what is left of its bytes when only the earlier merges apply.
 * @param tokens by rank, the 256 single bytes first
 */
function mergesOf(tokens: readonly string[]): [string, string][] {
  const idOfLetter = new Map(tokens.slice(0, 256).map((letter, id) => [letter, id]));
  const merges = new Merges();
  return tokens.slice(256).map((token, i) => {
    const [left, right] = merges.apply([...token].map((letter) => idOfLetter.get(letter)!)) as [number, number];
    merges.add(left, right, 256 + i);
    return [tokens[left]!, tokens[right]!];
  });
}
