// Finds and opens the tokenizer that a directory holds or a command line names.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { ConfigError } from "../errors.ts";
import { decodeText } from "../json.ts";
import { BpeTokenizer } from "./bpe.ts";
import { CharTokenizer } from "./char.ts";
import { fitted } from "./fitted.ts";
import { Gpt1Tokenizer } from "./gpt1.ts";
import { gpt2Ids, gpt2Tokenizer, isGpt2 } from "./gpt2.ts";
import { metaFile, parseMeta } from "./nanogpt-meta.ts";
import { ownFile, ownKindOf, parseOwnFile } from "./own-file.ts";
import type { TokenizerPlan } from "./plan.ts";
import { NoTokenizerError, type Tokenizer } from "./tokenizer.ts";
import { readTokenizerFolder, vocabularyPairs } from "./tokenizer-folder.ts";
import { tokenizerJson } from "./tokenizer-json.ts";
import { WordTokenizer } from "./word.ts";
import { WordLevelTokenizer } from "./word-level.ts";

/** The text of a file without its byte order mark, or undefined where there is none. */
async function textOf(path: string): Promise<string | undefined> {
  const bytes = await bytesOf(path);
  return bytes && decodeText(bytes, path);
}

async function bytesOf(path: string): Promise<Uint8Array | undefined> {
  try {
    return await readFile(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw new ConfigError(`${path}: cannot be read (${code})`, { cause: error });
  }
}

/**
 * The tokenizer whose files lie in a directory: a checkpoint, a prepared data set or a Hugging Face model.
 * @throws NoTokenizerError where there is none, ConfigError where its files are not what they should be
 */
export async function openTokenizer(directory: string): Promise<Tokenizer> {
  const at = (name: string): string => join(directory, name);
  const own = await textOf(at(ownFile));
  if (own !== undefined) {
    const { kind, tokens } = parseOwnFile(own, at(ownFile));
    return listed(kind, tokens);
  }
  const plan = await readTokenizerFolder((name) => textOf(at(name)), at);
  if (plan) return tokenizerOf(plan, directory);
  const meta = await bytesOf(at(metaFile));
  if (meta !== undefined) return parseMeta(meta, at(metaFile));
  const names = [ownFile, tokenizerJson, ...vocabularyPairs.map((pair) => pair.join(" + ")), metaFile];
  throw new NoTokenizerError(`${directory}: holds no tokenizer; looked for ${names.join(", ")}`);
}

/**
 * The tokenizer of a model's directory, as a model of `vocabSize` ids can use it.
 * @throws NoTokenizerError where there is none, ConfigError where it does not belong to the model
 */
export async function openTokenizerOf(model: { directory: string; model: { vocabSize: number } }): Promise<Tokenizer> {
  return fitted(await openTokenizer(model.directory), model.model.vocabSize, model.directory);
}

/**
 * The same tokenizer, leaving out what its list of characters or words lacks; byte-level ones lack nothing.
 * @throws ConfigError where it cannot
 */
export function skippingUnknown(tokenizer: Tokenizer): Tokenizer {
  if (tokenizer instanceof CharTokenizer || tokenizer instanceof WordTokenizer) return tokenizer.skippingUnknown();
  if (tokenizer.name !== "gpt1" && tokenizer.name !== "wordlevel") return tokenizer;
  throw new ConfigError(
    `config: --unknown skip leaves out characters or words; the tokenizer ${tokenizer.name} cannot: it gives them its unknown token`,
  );
}

function listed(kind: "char" | "word", tokens: readonly string[]): Tokenizer {
  return kind === "char" ? new CharTokenizer(tokens) : new WordTokenizer(tokens);
}

function tokenizerOf(plan: TokenizerPlan, directory: string): Tokenizer {
  try {
    const own = ownKindOf(plan);
    if (own) return listed(own, plan.vocabulary.tokens as readonly string[]);
    if (plan.steps) return new WordLevelTokenizer(plan, plan.steps);
    if (plan.kind === "gpt1") return new Gpt1Tokenizer(plan);
    return new BpeTokenizer(isGpt2(plan) ? "gpt2" : "bpe", plan);
  } catch (error) {
    if (error instanceof ConfigError) throw new ConfigError(`${directory}: ${error.message}`, { cause: error });
    throw error;
  }
}

/**
 * The tokenizer that a command line names: `gpt2`, `word:FILE` with a word a line, or a directory that holds one.
 * `char` has no vocabulary before it has seen a text: undefined.
 * @throws ConfigError
 */
export async function tokenizerNamed(name: string): Promise<Tokenizer | undefined> {
  if (name === "char") return undefined;
  if (name === "gpt2") return gpt2Tokenizer();
  if (!name.startsWith("word:")) return openTokenizer(name);
  const path = name.slice("word:".length);
  const words = await textOf(path);
  if (words === undefined) throw new ConfigError(`--tokenizer ${name}: there is no file ${path} with a word a line`);
  return new WordTokenizer(words.split(/\r?\n/).filter((word) => word !== ""));
}

/** How many ids the tokenizer that a command line names has at least, told without opening it. */
export function leastIds(name: string): number {
  return name === "gpt2" ? gpt2Ids : 1;
}
