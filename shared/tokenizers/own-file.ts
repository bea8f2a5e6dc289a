// weft-tokenizer.json: the file of the two tokenizers that are lists of tokens, `char` and `word`.
// { "kind": "char", "version": 1, "tokens": ["\n", " ", ...] }: a token's place in the list is its id.
import { isDeepStrictEqual } from "node:util";
import { z } from "zod";
import { checked } from "../check.ts";
import { ConfigError } from "../errors.ts";
import { type TokenizerPlan, wordPlan } from "./plan.ts";
import { writeTokenizerJson } from "./tokenizer-json.ts";
import type { WordSteps } from "./word-steps.ts";

export const ownFile = "weft-tokenizer.json";

const schema = z.strictObject({
  kind: z.enum(["char", "word"]),
  version: z.literal(1),
  tokens: z.array(z.string()).min(1).max(1_000_000),
});

/** Every character is a word and words are joined without anything between them, or words are what single spaces divide. */
const steps: Readonly<Record<"char" | "word", WordSteps>> = {
  char: {
    normalizer: null,
    pre_tokenizer: { type: "Split", pattern: { Regex: "[\\s\\S]" }, behavior: "Isolated", invert: false },
    decoder: { type: "Fuse" },
  },
  word: {
    normalizer: null,
    pre_tokenizer: { type: "Split", pattern: { String: " " }, behavior: "Removed", invert: false },
    decoder: null,
  },
};

/** The file, and the same as a WordLevel tokenizer.json, which transformers' AutoTokenizer opens. */
export function writeOwnFile(kind: "char" | "word", tokens: readonly string[]): ReadonlyMap<string, string> {
  return new Map([
    [ownFile, `${JSON.stringify({ kind, version: 1, tokens })}\n`],
    ...writeTokenizerJson(false, wordPlan(tokens, steps[kind])),
  ]);
}

/** Which of the two wrote this tokenizer.json, where one did. */
export function ownKindOf(plan: TokenizerPlan): "char" | "word" | undefined {
  const { tokens } = plan.vocabulary;
  if (plan.kind !== "words" || tokens.includes(undefined)) return undefined;
  return (["char", "word"] as const).find((kind) =>
    isDeepStrictEqual(plan, wordPlan(tokens as readonly string[], steps[kind])),
  );
}

/** @throws ConfigError naming the file and the field that is wrong */
export function parseOwnFile(json: string, path: string): z.infer<typeof schema> {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch (error) {
    throw new ConfigError(`${path}: not JSON; copy it again from where it was written`, { cause: error });
  }
  return checked(schema, value, path);
}
