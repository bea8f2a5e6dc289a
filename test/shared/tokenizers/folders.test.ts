// Tokenizer folders against transformers 4.38, 4.57 and 5.24 (folders.golden.json, which test/system/tokenizers.system.ts makes
// and checks with many more texts): equal ids, or refused by the name of what they disagree about.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openTokenizer } from "../../../shared/tokenizers/open.ts";
import golden from "./folders.golden.json" with { type: "json" };
import { folders, folderTexts } from "./folders.ts";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "weft-folders-"));
});
afterEach(() => rm(directory, { recursive: true }));

const refused: Record<string, RegExp> = {
  "pair, add_eos_token": /tokenizer_config\.json: add_eos_token; /,
  "pair, split_special_tokens": /tokenizer_config\.json: split_special_tokens; /,
  "json, add_prefix_space beside it": /add_prefix_space true; tokenizer\.json has false/,
  "json of GPT-2, add_prefix_space beside it": /add_prefix_space true; tokenizer\.json has false/,
  "json of GPT-2 with add_prefix_space": /add_prefix_space false; tokenizer\.json has true/,
  "json with add_prefix_space and a model": /add_prefix_space false; tokenizer\.json has true/,
  "json, added_tokens_decoder with other flags": /"<\|endoftext\|>" has lstrip true, tokenizer\.json false/,
  "json, a role's flags beside added_tokens.json":
    /tokenizer_config\.json: mask_token: added token "<\|user\|>" has lstrip true, added_tokens\.json false: describe/,
  "pair, a role's flags beside added_tokens.json":
    /special_tokens_map\.json: mask_token: added token "<\|user\|>" has lstrip true, added_tokens\.json false: /,
  "json, a list's flags beside it":
    /additional_special_tokens: added token "<\|user\|>" has lstrip true, tokenizer\.json or added_tokens_decoder false/,
  "json with add_prefix_space": /tokenizer_config\.json: does not say add_prefix_space; tokenizer\.json has true/,
  "json with add_prefix_space, of another model": /does not say add_prefix_space; tokenizer\.json has true/,
  "pair without #version": /merges\.txt: has no first line #version, without which transformers 4 drops a merge; put/,
  "pair without a last line break": /merges\.txt: its last line has no line break, without which/,
  "json of GPT-2 that lacks a byte": /GPT2Tokenizer; its vocabulary lacks bytes, .* unk_token "<\|endoftext\|>": make/,
  "json of GPT-1, fused": /OpenAIGPTTokenizer; tokenizer\.json has fuse_unk true, .*: make it false/,
  "json, a token of another name": /tokenizer_config\.json: image_token "<new>"; .*: name it in additional_special/,
  "json, a token of another name in special_tokens_map.json": /special_tokens_map\.json: boi_token "<new>"; /,
  "json of OpenAI-GPT": /OpenAIGPTTokenizer; tokenizer\.json has byte-level BPE: make it GPT2Tokenizer/,
  "json with OpenAI-GPT's model": /of model_type openai-gpt; tokenizer\.json has byte-level BPE: make it GPT2/,
  "json of another class": /tokenizer_class "RobertaTokenizer"/,
};

async function save(files: Record<string, unknown>): Promise<void> {
  for (const [file, content] of Object.entries(files)) {
    const text = typeof content === "string" ? content : JSON.stringify(content);
    // Windows' editors put a byte order mark before a text.
    await writeFile(join(directory, file), `\uFEFF${text}`);
  }
}

test.each(Object.entries(folders))("%s", async (name, files) => {
  await save(files);
  if (refused[name]) {
    await expect(openTokenizer(directory)).rejects.toThrow(refused[name]);
    return;
  }
  const tokenizer = await openTokenizer(directory);
  for (const [version, answers] of Object.entries(golden)) {
    const ids = (answers as Record<string, number[][] | null>)[name];
    if (!ids) continue; // this version refuses the folder itself
    for (const [i, text] of folderTexts.entries()) {
      if (name === "pair, added_tokens.json with a gap" && text.includes("<|user|>"))
        expect(() => tokenizer.encode(text)).toThrow('added token "<|user|>" at position');
      else expect([...tokenizer.encode(text)], `transformers ${version}: ${text}`).toEqual(ids[i]);
    }
  }
});

test.each([
  "json that adds nothing, of GPT-2",
  "json that adds nothing, with a model",
  "json without <|endoftext|>, of GPT-2",
])("%s: a document ends with its class's token", async (name) => {
  await save(folders[name]!);
  // eos_token_id of transformers 4.57.1 and 5.24.0.
  expect((await openTokenizer(directory)).endOfText).toBe(359);
});

test.each([
  "json, a role's token that is text there",
  "json, a token that is special in added_tokens_decoder",
  "json, a listed token of added_tokens.json",
])("%s: decoding leaves it out with the special ones", async (name) => {
  await save(folders[name]!);
  const tokenizer = await openTokenizer(directory);
  // decode(ids, skip_special_tokens=True) of transformers 4.57.1 and 5.24.0.
  expect(tokenizer.decode(tokenizer.encode("hi <|user|> the"), true)).toBe("hi  the");
});
