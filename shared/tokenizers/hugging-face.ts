// Tokenizer files in Hugging Face's formats: tokenizer.json (the tokenizers library), and the older pair of vocab.json
// and merges.txt, which OpenAI's GPT-2 release calls encoder.json and vocab.bpe. Reading refuses by name whatever would
// tokenize otherwise than Weft does.
import { z } from "zod";
import { ConfigError } from "../errors.ts";

/** Ends a document, in GPT-2's vocabulary and in those trained here. */
export const endOfTextToken = "<|endoftext|>";

export interface BpeVocabulary {
  /** By id: bytes spelled as in vocab.json ("Ġall"), special tokens as they are; a gap is undefined. */
  readonly tokens: readonly (string | undefined)[];
  /** In the order of their ranks. */
  readonly merges: readonly (readonly [left: string, right: string])[];
  /** Tokens that are found in a text as a whole, before anything else. */
  readonly special: readonly string[];
}

/** What a file describes: byte-level BPE, or GPT-1's BPE over lower-cased characters with "</w>" at a word's end. */
export type ReadVocabulary = BpeVocabulary & { readonly kind: "bytes" | "gpt1" };

export const tokenizerJson = "tokenizer.json";
export const configJson = "tokenizer_config.json";

/** Vocabulary and merges file: Hugging Face's names and OpenAI's. */
export const vocabularyPairs = [
  ["vocab.json", "merges.txt"],
  ["encoder.json", "vocab.bpe"],
] as const;

const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true } as const;

export function writeTokenizerJson(name: "gpt2" | "bpe", vocabulary: BpeVocabulary): ReadonlyMap<string, string> {
  const { tokens, merges, special } = vocabulary;
  const vocab = idsByToken(tokens);
  const content = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: special.map((token) => ({
      id: vocab[token],
      content: token,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab,
      merges,
    },
  };
  const end = special.includes(endOfTextToken) ? endOfTextToken : null;
  const config = {
    tokenizer_class: name === "gpt2" ? "GPT2TokenizerFast" : "PreTrainedTokenizerFast",
    add_prefix_space: false,
    bos_token: end,
    eos_token: end,
    unk_token: name === "gpt2" ? end : null,
    clean_up_tokenization_spaces: false,
  };
  return new Map([
    [tokenizerJson, `${JSON.stringify(content)}\n`],
    [configJson, `${JSON.stringify(config, null, 2)}\n`],
  ]);
}

/** vocab.json and merges.txt, for the classes whose tokenizer.json would say more than the tokenizer does. */
export function writeVocabularyPair(tokenizerClass: string, vocabulary: BpeVocabulary): ReadonlyMap<string, string> {
  const [vocabName, mergesName] = vocabularyPairs[0];
  const merges = vocabulary.merges.map(([left, right]) => `${left} ${right}\n`).join("");
  return new Map([
    [vocabName, `${JSON.stringify(idsByToken(vocabulary.tokens))}\n`],
    [mergesName, `#version: 0.2\n${merges}`],
    [configJson, `${JSON.stringify({ tokenizer_class: tokenizerClass, unk_token: "<unk>" }, null, 2)}\n`],
  ]);
}

function idsByToken(tokens: BpeVocabulary["tokens"]): Record<string, number> {
  return Object.fromEntries(tokens.flatMap((token, id) => (token === undefined ? [] : [[token, id]])));
}

const vocabSchema = z.record(z.string(), z.int().min(0).max(999_999));

const tokenizerSchema = z.object({
  added_tokens: z.array(z.object({ id: z.int().min(0).max(999_999), content: z.string().min(1) })).default([]),
  normalizer: z.looseObject({ type: z.string() }).nullish(),
  pre_tokenizer: z.looseObject({ type: z.string() }).nullish(),
  model: z.object({
    type: z.string(),
    vocab: vocabSchema,
    merges: z.array(z.union([z.string(), z.tuple([z.string(), z.string()])])),
    continuing_subword_prefix: z.string().nullish(),
    end_of_word_suffix: z.string().nullish(),
    ignore_merges: z.boolean().nullish(),
  }),
});

/** @throws ConfigError naming the file and what in it is not as Weft tokenizes */
export function parseTokenizerJson(json: string, path: string): ReadVocabulary {
  const file = check(tokenizerSchema, parseJson(json, path), path);
  const { model, normalizer, pre_tokenizer: words } = file;
  const refuse = (what: string, expected: string): never => {
    throw new ConfigError(`${path}: ${what}; Weft reads ${expected}`);
  };
  if (model.type !== "BPE") refuse(`a ${model.type} model`, "BPE");
  if (model.continuing_subword_prefix) refuse(`continuing_subword_prefix ${model.continuing_subword_prefix}`, "none");
  if (model.ignore_merges) refuse("ignore_merges", "BPE that merges");
  const gpt1 = model.end_of_word_suffix === "</w>";
  if (model.end_of_word_suffix && !gpt1) refuse(`end_of_word_suffix ${model.end_of_word_suffix}`, "none or </w>");
  if (gpt1) {
    if (normalizer?.type !== "BertNormalizer" || words?.type !== "BertPreTokenizer")
      refuse(`normalizer ${normalizer?.type} and pre_tokenizer ${words?.type}`, "GPT-1's with Bert's of both");
  } else {
    if (normalizer) refuse(`normalizer ${normalizer.type}`, "byte-level BPE with none");
    if (words?.type !== "ByteLevel") refuse(`pre_tokenizer ${words?.type}`, "byte-level BPE");
    if (words?.add_prefix_space === true) refuse("add_prefix_space", "byte-level BPE that puts no space before a text");
    if (words?.use_regex === false) refuse("use_regex false", "byte-level BPE with GPT-2's pattern");
  }
  const tokens = tokensOf(model.vocab, path);
  for (const { id, content } of file.added_tokens) {
    if (tokens[id] !== undefined && tokens[id] !== content)
      refuse(`added token ${JSON.stringify(content)} has the id of ${JSON.stringify(tokens[id])}`, "one token an id");
    tokens[id] = content;
  }
  const merges = model.merges.map((merge, rank) => (typeof merge === "string" ? pairOf(merge, rank, path) : merge));
  return { kind: gpt1 ? "gpt1" : "bytes", tokens, merges, special: file.added_tokens.map(({ content }) => content) };
}

/** @throws ConfigError naming the file and line that cannot be read */
export function parseVocabularyPair(
  vocabJson: string,
  vocabPath: string,
  mergesTxt: string,
  mergesPath: string,
): ReadVocabulary {
  const tokens = tokensOf(check(vocabSchema, parseJson(vocabJson, vocabPath), vocabPath), vocabPath);
  const lines = mergesTxt.split("\n").map((line) => line.replace(/\r$/, ""));
  const merges = lines.flatMap((line, i) =>
    line === "" || (i === 0 && line.startsWith("#version")) ? [] : [pairOf(line, i, mergesPath)],
  );
  const gpt1 = merges.some(([, right]) => right.endsWith("</w>"));
  return {
    kind: gpt1 ? "gpt1" : "bytes",
    tokens,
    merges,
    special: tokens.includes(endOfTextToken) ? [endOfTextToken] : [],
  };
}

function parseJson(json: string, path: string): unknown {
  try {
    return JSON.parse(json);
  } catch (error) {
    throw new ConfigError(`${path}: not JSON; copy it again from where it came from`, { cause: error });
  }
}

function check<T>(schema: z.ZodType<T>, value: unknown, path: string): T {
  const parsed = schema.safeParse(value);
  if (!parsed.success) throw new ConfigError(`${path}: ${z.prettifyError(parsed.error)}`);
  return parsed.data;
}

/** Tokens by id. */
function tokensOf(vocab: Readonly<Record<string, number>>, path: string): (string | undefined)[] {
  const tokens: (string | undefined)[] = [];
  for (const [token, id] of Object.entries(vocab)) {
    while (tokens.length <= id) tokens.push(undefined);
    if (tokens[id] !== undefined)
      throw new ConfigError(`${path}: id ${id} belongs to ${JSON.stringify(tokens[id])} and ${JSON.stringify(token)}`);
    tokens[id] = token;
  }
  return tokens;
}

function pairOf(merge: string, line: number, path: string): [string, string] {
  const [left, right, more] = merge.split(" ");
  if (!left || !right || more !== undefined)
    throw new ConfigError(
      `${path}: merge ${line} is ${JSON.stringify(merge)}, expected two tokens and a space between`,
    );
  return [left, right];
}
