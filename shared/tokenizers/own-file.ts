// weft-tokenizer.json: the file of the two tokenizers that Hugging Face has no format for, `char` and `word`.
// { "kind": "char", "version": 1, "tokens": ["\n", " ", ...] }: a token's place in the list is its id.
import { z } from "zod";
import { ConfigError } from "../errors.ts";

export const ownFile = "weft-tokenizer.json";

const schema = z.strictObject({
  kind: z.enum(["char", "word"]),
  version: z.literal(1),
  tokens: z.array(z.string()).min(1).max(1_000_000),
});

export function writeOwnFile(kind: "char" | "word", tokens: readonly string[]): ReadonlyMap<string, string> {
  return new Map([[ownFile, `${JSON.stringify({ kind, version: 1, tokens })}\n`]]);
}

/** @throws ConfigError naming the file and the field that is wrong */
export function parseOwnFile(json: string, path: string): z.infer<typeof schema> {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch (error) {
    throw new ConfigError(`${path}: not JSON; copy it again from where it was written`, { cause: error });
  }
  const parsed = schema.safeParse(value);
  if (!parsed.success) throw new ConfigError(`${path}: ${z.prettifyError(parsed.error)}`);
  return parsed.data;
}
