// GPT-2's own tokenizer, 50,257 tokens: its merges ship with the package gpt-tokenizer, as bytes by rank.
import { createRequire } from "node:module";
import { isDeepStrictEqual } from "node:util";
import { specialToken } from "./added.ts";
import { BpeTokenizer } from "./bpe.ts";
import { spellBytes } from "./bytes.ts";
import { Merges } from "./merges.ts";
import { endOfTextToken, plainPlan, type TokenizerPlan } from "./plan.ts";

/** Its merges and bytes, and the end of a text. */
export const gpt2Ids = 50_257;

const require = createRequire(import.meta.url);
/** Loaded where a text is GPT-2's: that takes longer than everything else at a start. */
const readRanks = () =>
  (require("gpt-tokenizer/bpeRanks/r50k_base") as typeof import("gpt-tokenizer/bpeRanks/r50k_base")).default;

/** The tokenizer of every GPT-2 and of nanoGPT's OpenWebText data. Takes some tenths of a second. */
export function gpt2Tokenizer(): BpeTokenizer {
  const tokens = readRanks().map(spell);
  return new BpeTokenizer("gpt2", plainPlan(tokens, mergesOf(tokens)));
}

/** Is this GPT-2's tokenizer, to the last token and step? */
export function isGpt2({
  kind,
  vocabulary,
  addPrefixSpace,
  cutWords,
  ignoreMerges,
  before,
  after,
}: TokenizerPlan): boolean {
  const { tokens, added } = vocabulary;
  const [end] = added;
  return (
    kind === "bytes" &&
    !(addPrefixSpace || ignoreMerges || before.length > 0 || after.length > 0) &&
    cutWords &&
    tokens.length === gpt2Ids &&
    added.length === 1 &&
    isDeepStrictEqual({ ...end, normalized: false }, specialToken(gpt2Ids - 1, endOfTextToken)) &&
    readRanks().every((token, id) => spell(token) === tokens[id])
  );
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
    const [left, right] = merges.apply(Int32Array.from(token, (letter) => idOfLetter.get(letter)!)) as unknown as [
      number,
      number,
    ];
    merges.add(left, right, 256 + i);
    return [tokens[left]!, tokens[right]!];
  });
}
