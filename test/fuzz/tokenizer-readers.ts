// Readers of tokenizer files. What is read must encode as Hugging Face's own library does with the same file, and what
// Weft writes of it again must mean the same to that library.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import * as hf from "tokenizers";
import { ConfigError } from "../../shared/errors.ts";
import { openTokenizer } from "../../shared/tokenizers/open.ts";
import type { Tokenizer } from "../../shared/tokenizers/tokenizer.ts";
import { BpeTrainer } from "../../shared/tokenizers/train-bpe.ts";
import type { FuzzReader } from "./reader.ts";

const texts = ["", "the fox's fur, the <s> end", " a<s>\n\n b <u> 12é日<|endoftext|>", "<s><s>x", "hehe the\t"];

const trainer = new BpeTrainer();
trainer.push("the fox, the fur of the fox; he then the fox's end ".repeat(3));
const plain = JSON.parse(trainer.train(270).toFiles().get("tokenizer.json")!);
const added = (id: number, content: string, flags: object = {}) => ({
  ...{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true },
  ...flags,
});
const full = {
  ...plain,
  added_tokens: [
    ...plain.added_tokens,
    added(270, "<s>", { lstrip: true }),
    added(271, "<u>", { rstrip: true, special: false }),
  ],
  post_processor: {
    type: "TemplateProcessing",
    single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
    pair: [{ Sequence: { id: "A", type_id: 0 } }, { Sequence: { id: "B", type_id: 1 } }],
    special_tokens: { "<s>": { id: "<s>", ids: [270], tokens: ["<s>"] } },
  },
};
/** Few tokens, so that mutations meet something other than the vocabulary. */
const letters = Object.fromEntries([..."Ġabehtx<s>/n"].map((letter, id) => [letter, id]));
const small = (file: typeof full) => ({
  ...file,
  added_tokens: [added(15, "<s>", { lstrip: true }), added(16, "<u>", { normalized: true })],
  post_processor: { ...full.post_processor, special_tokens: { "<s>": { id: "<s>", ids: [15], tokens: ["<s>"] } } },
  model: {
    ...file.model,
    unk_token: "x",
    vocab: { ...letters, th: 12, the: 13, Ġthe: 14 },
    merges: ["t h", "th e", "Ġ the"],
  },
});
const gpt1 = {
  ...small(full),
  normalizer: {
    type: "BertNormalizer",
    clean_text: true,
    handle_chinese_chars: true,
    strip_accents: null,
    lowercase: true,
  },
  pre_tokenizer: { type: "BertPreTokenizer" },
  decoder: { type: "BPEDecoder", suffix: "</w>" },
  model: {
    ...small(full).model,
    end_of_word_suffix: "</w>",
    vocab: { ...letters, "e</w>": 12, th: 13, "the</w>": 14 },
    merges: ["t h", "th e</w>"],
  },
};

const words = {
  ...small(full),
  normalizer: { type: "Lowercase" },
  pre_tokenizer: {
    type: "Sequence",
    pretokenizers: [{ type: "Whitespace" }, { type: "Punctuation", behavior: "Isolated" }],
  },
  decoder: { type: "Fuse" },
  model: { type: "WordLevel", unk_token: "x", vocab: { ...letters, end: 12, fox: 13, fur: 14 } },
};

const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));

type Ids = number[] | { readonly refused: string };

function encode(tokenizer: Tokenizer, text: string): Ids {
  try {
    return [...tokenizer.encode(text)];
  } catch (error) {
    if (error instanceof ConfigError) return { refused: error.message };
    throw error;
  }
}

/** The library reads 1e3 and -0 as other numbers than JSON has: it is asked about the same JSON, plainly written. */
async function theirs(file: string): Promise<Ids[] | { readonly refused: string }> {
  const refusal = (error: unknown) => ({ refused: String(error).slice(0, 300) });
  try {
    const oracle = hf.Tokenizer.fromString(JSON.stringify(JSON.parse(file.replace(/^\uFEFF/, ""))));
    const encode = async (text: string): Promise<Ids> => (await oracle.encode(text)).getIds();
    return await Promise.all(texts.map((text) => encode(text).catch(refusal)));
  } catch (error) {
    return refusal(error);
  }
}

interface Read {
  readonly ours: Ids[];
  readonly theirs: Ids[] | { readonly refused: string };
}

function compare({ ours, theirs }: Read): string | undefined {
  if (!Array.isArray(theirs)) return `Hugging Face's library refuses it: ${theirs.refused}`;
  const at = ours.findIndex((ids, i) => Array.isArray(ids) && !isDeepStrictEqual(ids, theirs[i]));
  return at < 0
    ? undefined
    : `${JSON.stringify(texts[at])}: ${JSON.stringify(ours[at])}, theirs ${JSON.stringify(theirs[at])}`;
}

const pair = {
  "vocab.json": json({ ...letters, th: 12, the: 13, Ġthe: 14 }),
  "merges.txt": Buffer.from("#version: 0.2\nt h\nth e\nĠ the\n"),
  "tokenizer_config.json": json({
    ...{ tokenizer_class: "GPT2Tokenizer", add_prefix_space: false, add_bos_token: true, bos_token: "<s>" },
    added_tokens_decoder: {
      16: { content: "<u>", lstrip: true, rstrip: false, normalized: true, single_word: false, special: false },
    },
  }),
  "special_tokens_map.json": json({
    eos_token: "<s>",
    pad_token: { content: "x", lstrip: false, rstrip: true, normalized: false, single_word: true },
  }),
  "added_tokens.json": json({ "<s>": 15 }),
};

/** @param said the tokenizer.json that the library is asked about */
function tokenizerReader(
  name: string,
  seeds: FuzzReader["seeds"],
  said: (read: Tokenizer, folder: string) => Promise<string>,
): FuzzReader {
  return {
    name,
    seeds,
    async read(folder): Promise<Read> {
      const tokenizer = await openTokenizer(folder);
      return {
        ours: texts.map((text) => encode(tokenizer, text)),
        theirs: await theirs(await said(tokenizer, folder)),
      };
    },
    complaint: (value) => compare(value as Read),
  };
}

export const tokenizerReaders: readonly FuzzReader[] = [
  tokenizerReader(
    "tokenizer-json",
    [plain, full, small(full), gpt1, words].map((file) => ({
      files: { "tokenizer.json": json(file) },
      target: "tokenizer.json",
    })),
    async (_, folder) => await readFile(join(folder, "tokenizer.json"), "utf8"),
  ),
  tokenizerReader(
    "tokenizer-folder",
    Object.keys(pair).map((target) => ({ files: pair, target })),
    async (read) => read.toFiles().get("tokenizer.json")!,
  ),
];
