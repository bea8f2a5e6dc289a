// weft-tokenizer.json: the file of the two tokenizers that are lists of tokens, `char` and `word`.
// { "kind": "char", "version": 1, "tokens": ["\n", " ", ...] }: a token's place in the list is its id.
import { z } from "zod";
import { checked } from "../check.ts";
import { ConfigError } from "../errors.ts";
import { configJson, tokenizerJson } from "./tokenizer-json.ts";

export const ownFile = "weft-tokenizer.json";

const schema = z.strictObject({
  kind: z.enum(["char", "word"]),
  version: z.literal(1),
  tokens: z.array(z.string()).min(1).max(1_000_000),
});

/**
 * The file, and the same as a WordLevel tokenizer.json, which transformers' AutoTokenizer opens: every character is a word
 * and words are joined without anything between them, or words are what single spaces divide.
 */
export function writeOwnFile(kind: "char" | "word", tokens: readonly string[]): ReadonlyMap<string, string> {
  const split = (pattern: object, behavior: string) => ({ type: "Split", pattern, behavior, invert: false });
  const content = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: kind === "char" ? split({ Regex: "[\\s\\S]" }, "Isolated") : split({ String: " " }, "Removed"),
    post_processor: null,
    decoder: kind === "char" ? { type: "Fuse" } : null,
    // No token has this name: what the vocabulary lacks is an error there as here.
    model: { type: "WordLevel", vocab: Object.fromEntries(tokens.map((token, id) => [token, id])), unk_token: "" },
  };
  const config = { tokenizer_class: "PreTrainedTokenizerFast", clean_up_tokenization_spaces: false };
  return new Map([
    [ownFile, `${JSON.stringify({ kind, version: 1, tokens })}\n`],
    [tokenizerJson, `${JSON.stringify(content)}\n`],
    [configJson, `${JSON.stringify(config, null, 2)}\n`],
  ]);
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
