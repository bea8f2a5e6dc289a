// tokenizer.json, the file of Hugging Face's tokenizers library. Reading refuses by name whatever would make other ids
// than Weft does.
import { z } from "zod";
import { brief, checked } from "../check.ts";
import { ConfigError } from "../errors.ts";
import type { AddedToken } from "./added.ts";
import { Adding, endOfTextToken, roles, type TokenizerPlan } from "./plan.ts";
import { readWordSteps, type WordSteps } from "./word-steps.ts";

export type { BpeVocabulary, TokenizerPlan } from "./plan.ts";

export const tokenizerJson = "tokenizer.json";
export const configJson = "tokenizer_config.json";

const wordEnd = "</w>";

/** Highest id that a vocabulary may have. */
export const highestId = 999_999;

const id = z.int().min(0).max(highestId);

const addedSchema = z.object({
  content: z.string().min(1),
  lstrip: z.boolean().default(false),
  rstrip: z.boolean().default(false),
  single_word: z.boolean().default(false),
  normalized: z.boolean().optional(),
  special: z.boolean().default(false),
});

/** tokenizer.json leaves nothing to be guessed. */
const wholeSchema = z.looseObject({
  single_word: z.boolean(),
  lstrip: z.boolean(),
  rstrip: z.boolean(),
  normalized: z.boolean(),
  special: z.boolean(),
});

/** An added token as tokenizer.json and tokenizer_config.json write it; `special` as the place says where it does not. */
export function addedToken(value: unknown, where: string, special?: boolean): Omit<AddedToken, "id"> {
  const { single_word, normalized, ...token } = checked(
    addedSchema,
    typeof value === "string" ? { content: value } : value,
    where,
  );
  if (/\p{Surrogate}/u.test(token.content))
    throw new ConfigError(`${where}: ${brief(token.content)} holds half a character (a lone surrogate)`);
  const isSpecial = special ?? token.special;
  return { ...token, special: isSpecial, singleWord: single_word, normalized: normalized ?? !isSpecial };
}

const component = z.looseObject({ type: z.string() });

const fileOf = <Model extends z.ZodType>(model: Model) =>
  z.strictObject({
    version: z.literal("1.0").optional(),
    truncation: z.unknown(),
    padding: z.unknown(),
    added_tokens: z.array(z.looseObject({ id })).nullish(),
    normalizer: component.nullish(),
    pre_tokenizer: component.nullish(),
    post_processor: component.nullish(),
    decoder: component.nullish(),
    model,
  });
const bpeFile = fileOf(
  z.strictObject({
    type: z.literal("BPE").optional(),
    dropout: z.number().nullish(),
    unk_token: z.string().nullish(),
    continuing_subword_prefix: z.string().nullish(),
    end_of_word_suffix: z.string().nullish(),
    fuse_unk: z.boolean().nullish(),
    byte_fallback: z.boolean().nullish(),
    ignore_merges: z.boolean().nullish(),
    vocab: z.unknown(),
    merges: z.unknown(),
  }),
);
const wordFile = fileOf(z.strictObject({ type: z.literal("WordLevel"), unk_token: z.string(), vocab: z.unknown() }));

/** What a model brings to a plan besides the vocabulary. */
type Steps = Pick<
  TokenizerPlan,
  "kind" | "steps" | "addPrefixSpace" | "cutWords" | "ignoreMerges" | "unknown" | "fuseUnknown"
>;

/** @throws ConfigError naming the file and what in it is not as Weft tokenizes */
export function parseTokenizerJson(json: string, path: string): TokenizerPlan {
  const value = parseJson(json, path);
  const half = halfCharacter(json);
  if (half)
    throw new ConfigError(
      `${path}: ${half} is half a character (a lone surrogate), which Hugging Face's library refuses too`,
    );
  const type = (value as { model?: { type?: unknown } } | null)?.model?.type;
  if (typeof type === "string" && type !== "BPE" && type !== "WordLevel")
    throw new ConfigError(`${path}: a ${type.slice(0, 60)} model; Weft reads BPE and WordLevel`);
  const file = type === "WordLevel" ? checked(wordFile, value, path) : checked(bpeFile, value, path);
  const { model } = file;
  const refuse: Refuse = (what, expected) => {
    throw new ConfigError(`${path}: ${what.slice(0, 200)}; Weft reads ${expected}`);
  };
  for (const name of ["truncation", "padding"] as const)
    if (file[name] != null) refuse(name, "none: set it to null, texts of any length are cut into blocks here");
  const steps =
    model.type === "WordLevel" ? wordsOf({ ...file, model }, path) : mergingOf({ ...file, model }, path, refuse);

  const { tokens, ids } = vocabularyOf(model.vocab, path);
  if ("byte_fallback" in model && model.byte_fallback) {
    const fallback = tokens.some((token) => token !== undefined && /^<0x[0-9A-F]{2}>$/.test(token));
    if (steps.kind === "gpt1" || fallback) refuse("byte_fallback", "byte-level BPE, whose vocabulary has every byte");
  }
  const adding = new Adding(ids, tokens);
  for (const entry of file.added_tokens ?? []) {
    const token = addedToken(checked(wholeSchema, entry, `${path}: added token ${entry.id}`), path);
    if (adding.get(token.content)) refuse(`added token ${brief(token.content)} twice`, "one entry a token");
    const taken = tokens[entry.id];
    if (taken !== undefined && taken !== token.content)
      refuse(`added token ${brief(token.content)} has the id of ${brief(taken)}`, "one token an id");
    adding.add(token, entry.id);
  }
  const known = (tokenId: number): boolean => tokens[tokenId] !== undefined;
  const { before, after } = templateOf(file.post_processor, known, path);
  const end = adding.get(endOfTextToken);
  return {
    ...steps,
    vocabulary: { tokens, merges: "merges" in model ? mergesOf(model.merges, path) : [], added: adding.added },
    own: ids,
    before,
    after,
    endOfText: end?.special ? end.id : undefined,
    roles: end?.special ? { bos_token: endOfTextToken, eos_token: endOfTextToken } : {},
  };
}

type Refuse = (what: string, expected: string) => void;

function mergingOf(file: z.infer<typeof bpeFile>, path: string, refuse: Refuse): Steps {
  const { model, normalizer, pre_tokenizer: words, decoder } = file;
  if (model.dropout) refuse(`dropout ${model.dropout}`, "BPE that merges without chance: set it to null");
  if (model.continuing_subword_prefix) refuse(`continuing_subword_prefix ${model.continuing_subword_prefix}`, "none");
  const gpt1 = model.end_of_word_suffix === wordEnd;
  if (model.end_of_word_suffix && !gpt1) refuse(`end_of_word_suffix ${model.end_of_word_suffix}`, "none or </w>");
  if (gpt1) {
    if (normalizer?.type !== "BertNormalizer" || words?.type !== "BertPreTokenizer")
      refuse(`normalizer ${normalizer?.type} and pre_tokenizer ${words?.type}`, "GPT-1's with Bert's of both");
    for (const name of ["clean_text", "handle_chinese_chars", "strip_accents", "lowercase"])
      if (normalizer?.[name] !== true && !(name === "strip_accents" && normalizer?.[name] == null))
        refuse(`BertNormalizer with ${name} ${normalizer?.[name]}`, "GPT-1's, which has true");
    if (model.ignore_merges) refuse("ignore_merges", "GPT-1's BPE, which merges");
    if (decoder && (decoder.type !== "BPEDecoder" || decoder.suffix !== wordEnd))
      refuse(`decoder ${decoder.type}`, "GPT-1's with BPEDecoder");
  } else {
    if (normalizer) refuse(`normalizer ${normalizer.type}`, "byte-level BPE with none");
    if (words?.type !== "ByteLevel") refuse(`pre_tokenizer ${words?.type}`, "byte-level BPE");
    checked(bytesSchema, words, `${path}: pre_tokenizer ByteLevel`);
    if (decoder && decoder.type !== "ByteLevel") refuse(`decoder ${decoder.type}`, "byte-level BPE with ByteLevel");
    if (decoder) checked(bytesSchema, decoder, `${path}: decoder ByteLevel`);
  }
  return {
    kind: gpt1 ? "gpt1" : "bytes",
    addPrefixSpace: words?.add_prefix_space === true,
    cutWords: words?.use_regex !== false,
    ignoreMerges: model.ignore_merges ?? false,
    unknown: model.unk_token ?? undefined,
    fuseUnknown: model.fuse_unk ?? false,
  };
}

function wordsOf(file: z.infer<typeof wordFile>, path: string): Steps {
  const { unk_token: unknown } = file.model;
  const steps = readWordSteps(file, path);
  return {
    kind: "words",
    steps,
    addPrefixSpace: false,
    cutWords: true,
    ignoreMerges: false,
    unknown,
    fuseUnknown: false,
  };
}

/** The first escape of JSON that is a surrogate without its other half. */
function halfCharacter(json: string): string | undefined {
  const escapes = /\\u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}|\\u[\da-fA-F]{4}|\\./g;
  for (const [found] of json.matchAll(escapes)) if (/^\\u[dD][89a-fA-F]..$/.test(found)) return found;
  return undefined;
}

const pair = z.tuple([z.string(), id]);
const typeId = z.int().min(0).max(0xffffffff);
const special = z.strictObject({ SpecialToken: z.strictObject({ id: z.string(), type_id: typeId }) });
const sequence = <T extends "A" | "B">(...names: [T, ...T[]]) =>
  z.strictObject({ Sequence: z.strictObject({ id: z.enum(names), type_id: typeId }) });
const templateSchema = z.looseObject({
  single: z.array(z.union([sequence("A"), special])),
  pair: z.array(z.union([sequence("A", "B"), special])),
  special_tokens: z.record(
    z.string(),
    z
      .looseObject({ id: z.string(), ids: z.array(id), tokens: z.array(z.string()) })
      .refine(({ ids, tokens }) => ids.length === tokens.length, "has not as many ids as tokens"),
  ),
});
const bytesSchema = z.looseObject({
  add_prefix_space: z.boolean(),
  trim_offsets: z.boolean(),
  use_regex: z.boolean().optional(),
});

/** Ids that a post-processor puts around a text. */
function templateOf(
  processor: z.infer<typeof component> | null | undefined,
  known: (id: number) => boolean,
  path: string,
): { before: number[]; after: number[] } {
  const around = { before: [] as number[], after: [] as number[] };
  if (!processor) return around;
  if (processor.type === "ByteLevel") {
    checked(bytesSchema, processor, `${path}: post_processor ByteLevel`);
    return around;
  }
  if (processor.type === "Sequence") {
    let templates = 0;
    for (const inner of checked(z.array(component), processor.processors, `${path}: post_processor`)) {
      const { before, after } = templateOf(inner, known, path);
      if (before.length + after.length > 0 && ++templates > 1)
        throw new ConfigError(
          `${path}: post_processor Sequence with two templates, which Hugging Face's library has not`,
        );
      around.before = [...around.before, ...before];
      around.after = [...around.after, ...after];
    }
    return around;
  }
  if (processor.type === "TemplateProcessing") {
    const { single, special_tokens } = checked(templateSchema, processor, `${path}: TemplateProcessing`);
    let texts = 0;
    for (const piece of single) {
      if ("Sequence" in piece) texts++;
      else {
        const { id: name } = piece.SpecialToken;
        const special = Object.hasOwn(special_tokens, name) ? special_tokens[name] : undefined;
        if (!special) throw new ConfigError(`${path}: TemplateProcessing names ${brief(name)} without its ids`);
        for (const tokenId of special.ids) (texts === 0 ? around.before : around.after).push(tokenId);
      }
    }
    if (texts !== 1) throw new ConfigError(`${path}: TemplateProcessing has the text ${texts} times; Weft reads once`);
  } else if (processor.type === "RobertaProcessing" || processor.type === "BertProcessing") {
    around.before.push(checked(pair, processor.cls, `${path}: ${processor.type} cls`)[1]);
    around.after.push(checked(pair, processor.sep, `${path}: ${processor.type} sep`)[1]);
  } else
    throw new ConfigError(
      `${path}: post_processor ${processor.type.slice(0, 60)}; Weft reads ByteLevel and TemplateProcessing`,
    );
  for (const tokenId of [...around.before, ...around.after])
    if (!known(tokenId))
      throw new ConfigError(`${path}: ${processor.type} puts id ${tokenId} around a text, which has no token`);
  return around;
}

export function writeTokenizerJson(isGpt2: boolean, plan: TokenizerPlan): ReadonlyMap<string, string> {
  const { tokens, merges, added } = plan.vocabulary;
  // Where one token's id is in doubt, the others' must not depend on it: the vocabulary says them all.
  const vocab = added.some(({ id }) => id === undefined) ? idsByToken(tokens) : Object.fromEntries(plan.own);
  // transformers 4.38 reads a merge as one string only; tokens with spaces in them cannot be written so.
  const spaced = merges.some(([left, right]) => left.includes(" ") || right.includes(" "));
  const content = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: added.map(({ id, said, content, lstrip, rstrip, singleWord, normalized, special }) => ({
      ...{ id: id ?? said, content, single_word: singleWord, lstrip, rstrip, normalized, special },
    })),
    ...stepsFrom(plan),
    post_processor: templateFrom(plan),
    model: plan.steps
      ? { type: "WordLevel", vocab, unk_token: plan.unknown }
      : {
          type: "BPE",
          dropout: null,
          unk_token: plan.unknown ?? null,
          continuing_subword_prefix: null,
          end_of_word_suffix: plan.kind === "gpt1" ? wordEnd : null,
          fuse_unk: plan.fuseUnknown,
          byte_fallback: false,
          ignore_merges: plan.ignoreMerges,
          vocab,
          merges: spaced ? merges : merges.map(([left, right]) => `${left} ${right}`),
        },
  };
  const config = {
    tokenizer_class: isGpt2 ? "GPT2TokenizerFast" : "PreTrainedTokenizerFast",
    ...(plan.kind !== "words" && { add_prefix_space: plan.addPrefixSpace }),
    ...Object.fromEntries(roles.map((role) => [role, plan.roles[role]])),
    clean_up_tokenization_spaces: false,
  };
  return new Map([
    [tokenizerJson, `${JSON.stringify(content)}\n`],
    [configJson, `${JSON.stringify(config, null, 2)}\n`],
  ]);
}

function stepsFrom({ kind, steps, addPrefixSpace, cutWords }: TokenizerPlan): Record<keyof WordSteps, object | null> {
  if (steps) return steps;
  if (kind === "gpt1")
    return {
      normalizer: {
        ...{ type: "BertNormalizer", clean_text: true, handle_chinese_chars: true, strip_accents: null },
        lowercase: true,
      },
      pre_tokenizer: { type: "BertPreTokenizer" },
      decoder: { type: "BPEDecoder", suffix: wordEnd },
    };
  const bytes = { type: "ByteLevel", add_prefix_space: addPrefixSpace, trim_offsets: true, use_regex: cutWords };
  return { normalizer: null, pre_tokenizer: bytes, decoder: bytes };
}

/**
 * The same tokenizer.json with its merges as text, which transformers 4.38 reads too; as it is where that cannot be said.
 */
export function mergesAsText(json: string, path: string): string {
  const file = parseJson(json, path) as { model?: { merges?: unknown } } | null;
  const merges = file?.model?.merges;
  if (!Array.isArray(merges) || typeof merges[0] === "string") return json;
  const pairs = mergesOf(merges, path);
  if (pairs.some((pair) => pair.join("").includes(" "))) return json;
  return `${JSON.stringify({ ...file, model: { ...file?.model, merges: pairs.map((pair) => pair.join(" ")) } })}\n`;
}

function templateFrom({ before, after, vocabulary }: TokenizerPlan): object | null {
  if (before.length + after.length === 0) return null;
  const special = (id: number) => ({ SpecialToken: { id: vocabulary.tokens[id]!, type_id: 0 } });
  const text = (name: string, type_id: number) => ({ Sequence: { id: name, type_id } });
  const around = (...texts: object[]) => [...before.map(special), ...texts, ...after.map(special)];
  return {
    type: "TemplateProcessing",
    single: around(text("A", 0)),
    pair: around(text("A", 0), text("B", 1)),
    special_tokens: Object.fromEntries(
      [...before, ...after].map((tokenId) => {
        const name = vocabulary.tokens[tokenId]!;
        return [name, { id: name, ids: [tokenId], tokens: [name] }];
      }),
    ),
  };
}

function idsByToken(tokens: readonly (string | undefined)[]): Record<string, number> {
  return Object.fromEntries(tokens.flatMap((token, tokenId) => (token === undefined ? [] : [[token, tokenId]])));
}

export function parseJson(json: string, path: string): unknown {
  try {
    return JSON.parse(json);
  } catch (error) {
    throw new ConfigError(`${path}: not JSON; copy it again from where it came from`, { cause: error });
  }
}

/** A vocabulary by id and by token. Read by hand: a schema would lose the token "__proto__". */
export function vocabularyOf(
  value: unknown,
  path: string,
): { tokens: (string | undefined)[]; ids: ReadonlyMap<string, number> } {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new ConfigError(`${path}: its vocabulary is not an object of ids by token`);
  const tokens: (string | undefined)[] = [];
  const ids = new Map<string, number>();
  for (const [token, tokenId] of Object.entries(value as Record<string, unknown>)) {
    if (typeof tokenId !== "number" || !Number.isInteger(tokenId) || tokenId < 0 || tokenId > highestId)
      throw new ConfigError(
        `${path}: the id of ${brief(token)} is ${brief(tokenId)}, expected a whole number up to ${highestId}`,
      );
    while (tokens.length <= tokenId) tokens.push(undefined);
    if (tokens[tokenId] !== undefined)
      throw new ConfigError(`${path}: id ${tokenId} belongs to ${brief(tokens[tokenId])} and ${brief(token)}`);
    if (/\p{Surrogate}/u.test(token))
      throw new ConfigError(`${path}: token ${tokenId} holds half a character (a lone surrogate)`);
    tokens[tokenId] = token;
    ids.set(token, tokenId);
  }
  return { tokens, ids };
}

function mergesOf(value: unknown, path: string): [string, string][] {
  if (!Array.isArray(value)) throw new ConfigError(`${path}: its merges are not a list`);
  return value.map((merge: unknown, rank) => {
    if (typeof merge === "string") return pairOf(merge, rank, path);
    if (Array.isArray(merge) && merge.length === 2 && merge.every((side) => typeof side === "string"))
      return merge as [string, string];
    throw new ConfigError(`${path}: merge ${rank} is ${brief(merge)}, expected two tokens`);
  });
}

export function pairOf(merge: string, line: number, path: string): [string, string] {
  const [left, right, more] = merge.split(" ");
  if (!left || !right || more !== undefined)
    throw new ConfigError(`${path}: merge ${line} is ${brief(merge)}, expected two tokens and a space between`);
  return [left, right];
}
