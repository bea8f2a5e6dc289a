// Tokenizer folders as people have them: the files that stand beside each other, and what they add to each other.
import { gpt2Tokenizer } from "../../../shared/tokenizers/gpt2.ts";
import { BpeTrainer } from "../../../shared/tokenizers/train-bpe.ts";
import golden from "./tokenizers.golden.json" with { type: "json" };

type Files = Record<string, unknown>;

const trainer = new BpeTrainer();
trainer.push(`${golden.text} Hello world, hello the user's <|user|>. `.repeat(3));
const written = JSON.parse(trainer.train(360).toFiles().get("tokenizer.json")!);
const { vocab, merges } = written.model as { vocab: Record<string, number>; merges: string[] };
const end = vocab["<|endoftext|>"]!;
const withoutEnd = Object.fromEntries(Object.entries(vocab).filter(([, id]) => id !== end));

const pair: Files = { "vocab.json": vocab, "merges.txt": `#version: 0.2\n${merges.join("\n")}\n` };
const json = (changes: object = {}): Files => ({ "tokenizer.json": { ...written, ...changes } });
const prefixed = { pre_tokenizer: { ...written.pre_tokenizer, add_prefix_space: true } };
const gpt2 = (config: object = {}): Files => ({
  "tokenizer_config.json": { tokenizer_class: "GPT2Tokenizer", ...config },
});
const fast = (config: object = {}): Files => ({
  "tokenizer_config.json": { tokenizer_class: "PreTrainedTokenizerFast", ...config },
});
const flags = { lstrip: true, normalized: true, rstrip: true, single_word: false, special: true };
const user = { added_tokens_decoder: { [end + 1]: { content: "<|user|>", ...flags } } };
const withoutSign = Object.fromEntries(Object.entries(vocab).filter(([token]) => token !== "!"));
const mask = { content: "<|user|>", lstrip: true, normalized: false, rstrip: false, single_word: false, special: true };
/** A token that tokenizer.json adds as text. */
const text = { ...mask, lstrip: false, special: false };
const withText = json({ added_tokens: [...written.added_tokens, { id: end + 1, ...text }] });
const gpt1: Files = {
  "vocab.json": JSON.parse(golden.gpt1.vocab),
  "merges.txt": golden.gpt1.merges,
  "config.json": { model_type: "openai-gpt" },
};
const next = Object.keys(gpt1["vocab.json"] as object).length;

/** By name; every one is read as transformers reads it, or refused. */
export const folders: Record<string, Files> = {
  "pair with a class": { ...pair, ...gpt2() },
  "pair with a model": { ...pair, "config.json": { model_type: "gpt2" } },
  "pair without <|endoftext|>": { ...pair, "vocab.json": withoutEnd, ...gpt2() },
  "pair, add_prefix_space": { ...pair, ...gpt2({ add_prefix_space: true }) },
  "pair, add_bos_token": { ...pair, ...gpt2({ add_bos_token: true }) },
  "pair, add_bos_token of another": { ...pair, ...gpt2({ add_bos_token: true, bos_token: "Hello" }) },
  "pair, add_eos_token": { ...pair, ...gpt2({ add_eos_token: true }) },
  "pair, added_tokens.json": { ...pair, ...gpt2(), "added_tokens.json": { "<|user|>": end + 1, "<|bot|>": end + 2 } },
  "pair, added_tokens.json with a gap": { ...pair, ...gpt2(), "added_tokens.json": { "<|user|>": end + 4 } },
  "pair, added_tokens_decoder": { ...pair, ...gpt2(user) },
  "pair, added_tokens_decoder over added_tokens.json": {
    ...pair,
    ...gpt2(user),
    "added_tokens.json": { "<|bot|>": end + 1 },
  },
  "pair, special_tokens_map.json": {
    ...pair,
    ...gpt2(),
    "special_tokens_map.json": {
      eos_token: { ...flags, content: "the", rstrip: false },
      additional_special_tokens: ["hello", "<new>"],
    },
  },
  "pair, special tokens of tokenizer_config.json": { ...pair, ...gpt2({ eos_token: "the", pad_token: "<pad>" }) },
  "pair, special_tokens_map.json against tokenizer_config.json": {
    ...pair,
    ...gpt2({ eos_token: "the" }),
    "special_tokens_map.json": { eos_token: "hello" },
  },
  "pair, split_special_tokens": { ...pair, ...gpt2({ split_special_tokens: true }) },
  json: { ...json(), ...fast() },
  "json with a model": { ...json(), "config.json": { model_type: "gpt2" } },
  "json that adds nothing, of GPT-2": { ...json({ added_tokens: [] }), ...gpt2() },
  "json that adds nothing, with a model": { ...json({ added_tokens: [] }), "config.json": { model_type: "gpt2" } },
  "json without <|endoftext|>, of GPT-2": {
    ...json({ added_tokens: [], model: { ...written.model, vocab: withoutEnd } }),
    ...gpt2(),
  },
  "json, add_bos_token": { ...json(), ...fast({ add_bos_token: true, bos_token: "<|endoftext|>" }) },
  "json of GPT-2, add_bos_token": { ...json(), ...gpt2({ add_bos_token: true, bos_token: "<|endoftext|>" }) },
  "json, add_prefix_space beside it": { ...json(), ...fast({ add_prefix_space: true }) },
  "json of GPT-2, add_prefix_space beside it": { ...json(), ...gpt2({ add_prefix_space: true }) },
  "json with add_prefix_space": { ...json(prefixed), ...fast() },
  "json with add_prefix_space in both": { ...json(prefixed), ...gpt2({ add_prefix_space: true }) },
  "json of GPT-2 with add_prefix_space": { ...json(prefixed), ...gpt2() },
  "json with add_prefix_space and a model": { ...json(prefixed), "config.json": { model_type: "gpt2" } },
  "json, added_tokens_decoder": { ...json(), ...fast(user) },
  "json, added_tokens_decoder with other flags": {
    ...json(),
    ...fast({ added_tokens_decoder: { [end]: { content: "<|endoftext|>", ...flags } } }),
  },
  "json, added_tokens.json": { ...json(), ...gpt2(), "added_tokens.json": { "<|user|>": end + 1 } },
  "json, special_tokens_map.json": {
    ...json(),
    ...fast(),
    "special_tokens_map.json": { eos_token: "the", pad_token: "<new>" },
  },
  "json, special tokens of tokenizer_config.json": { ...json(), ...fast({ eos_token: "the" }) },
  "json, a role's flags beside added_tokens.json": {
    ...json(),
    ...gpt2({ mask_token: { ...mask, __type: "AddedToken" } }),
    "added_tokens.json": { "<|user|>": end + 1 },
  },
  "pair, a role's flags beside added_tokens.json": {
    ...pair,
    ...gpt2(),
    "special_tokens_map.json": { mask_token: mask },
    "added_tokens.json": { "<|user|>": end + 1 },
  },
  "json, a list's flags beside it": {
    ...withText,
    ...gpt2({ additional_special_tokens: [{ ...mask, __type: "AddedToken" }] }),
  },
  "json, a role's token that is text there": {
    ...withText,
    ...fast({ pad_token: "<|user|>" }),
  },
  "json, a token that is special in added_tokens_decoder": {
    ...withText,
    ...fast({ added_tokens_decoder: { [end + 1]: { ...text, special: true } } }),
  },
  "json, a listed token of added_tokens.json": {
    ...json(),
    ...fast({ additional_special_tokens: ["<|user|>"] }),
    "added_tokens.json": { "<|user|>": end + 1 },
  },
  "json with add_prefix_space, of another model": { ...json(prefixed), "config.json": { model_type: "gpt_neox" } },
  "pair without #version": { ...pair, ...gpt2(), "merges.txt": `${merges.join("\n")}\n` },
  "pair without a last line break": { ...pair, ...gpt2(), "merges.txt": `#version: 0.2\n${merges.join("\n")}` },
  "json of GPT-2 that lacks a byte": {
    ...json({ model: { ...written.model, unk_token: "<|endoftext|>", vocab: withoutSign } }),
    ...gpt2(),
  },
  "json of GPT-1, fused": {
    "tokenizer.json": {
      ...{ version: "1.0", truncation: null, padding: null, added_tokens: [], post_processor: null },
      normalizer: {
        ...{ type: "BertNormalizer", clean_text: true, handle_chinese_chars: true },
        ...{ strip_accents: null, lowercase: true },
      },
      pre_tokenizer: { type: "BertPreTokenizer" },
      decoder: { type: "BPEDecoder", suffix: "</w>" },
      model: {
        ...{ ...written.model, unk_token: "<unk>", end_of_word_suffix: "</w>", fuse_unk: true },
        ...{ vocab: gpt1["vocab.json"], merges: golden.gpt1.merges.split("\n").slice(1, -1) },
      },
    },
    "tokenizer_config.json": { tokenizer_class: "OpenAIGPTTokenizer" },
  },
  "json, a token of another name": { ...json(), ...gpt2({ image_token: "<new>" }) },
  "json, a token of another name in special_tokens_map.json": {
    ...json(),
    ...gpt2(),
    "special_tokens_map.json": { boi_token: "<new>" },
  },
  "json of OpenAI-GPT": { ...json(), "tokenizer_config.json": { tokenizer_class: "OpenAIGPTTokenizer" } },
  "json with OpenAI-GPT's model": { ...json(), "config.json": { model_type: "openai-gpt" } },
  "json beside a pair": { ...json(), ...pair, ...gpt2() },
  "json of another class": { ...json(), "tokenizer_config.json": { tokenizer_class: "RobertaTokenizer" } },
  gpt1: gpt1,
  "gpt1 with tokens": {
    ...gpt1,
    "tokenizer_config.json": {
      tokenizer_class: "OpenAIGPTTokenizer",
      pad_token: "<Pad>",
      added_tokens_decoder: { 0: { content: "<unk>", special: true }, [next]: { content: "<U>", special: false } },
    },
  },
  "GPT-2 as it is written here": Object.fromEntries(
    [...gpt2Tokenizer().toFiles()].map(([name, text]) => [name, JSON.parse(text)]),
  ),
};

/** The texts that folders.golden.json has the ids of. */
export const folderTexts = [
  "hello the <|user|> hi<|bot|><|endoftext|> <new> hello",
  "\nHello world",
  "the<pad>  the <|user|>\n<U> <u>!",
];
