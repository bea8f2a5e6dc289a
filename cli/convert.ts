// `weft convert`: any model that Weft reads (a checkpoint, a Hugging Face directory, OpenAI's GPT-2 release) into a
// directory that Hugging Face's transformers opens as it is. Whole or not at all.
import { readdir, readFile, rename, rm } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { Command } from "commander";
import { z } from "zod";
import { checked } from "../shared/check.ts";
import { configOf, differencesInTransformers, tensorsOf } from "../shared/checkpoint/huggingface.ts";
import { syncDirectory, writeProven } from "../shared/checkpoint/manifest.ts";
import { releaseTokenizerFiles } from "../shared/checkpoint/openai-release.ts";
import type { LoadedModel } from "../shared/checkpoint/rundir.ts";
import { encode } from "../shared/checkpoint/safetensors.ts";
import { makeFolder, onDisk } from "../shared/disk.ts";
import { ConfigError } from "../shared/errors.ts";
import { decodeText, isAbsent, readJson } from "../shared/json.ts";
import { openModel } from "../shared/store/model.ts";
import { openTokenizer, openTokenizerOf } from "../shared/tokenizers/open.ts";
import { ownFile } from "../shared/tokenizers/own-file.ts";
import { mergesAsText, tokenizerJson } from "../shared/tokenizers/tokenizer-json.ts";
import { flagAndHelp } from "./options.ts";
import { say, tell } from "./terminal.ts";

/** Tokenizer files of a source by the name that they get in the copy. */
const tokenizerFiles: ReadonlyMap<string, string> = new Map([
  ...[
    ownFile,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
  ].map((name): [string, string] => [name, name]),
  ...releaseTokenizerFiles,
]);

/**
 * Write a model as a Hugging Face directory.
 * @param out must not exist yet, or be empty
 * @returns names of the tokenizer's files, empty where the source has none
 */
export async function convertModel(model: LoadedModel, out: string): Promise<string[]> {
  const target = resolve(out);
  const inTheWay = await readdir(target).catch((error) => {
    if (isAbsent(error)) return [];
    throw new ConfigError(`${out}: cannot be written (${error.code})`, { cause: error });
  });
  if (inTheWay.length > 0)
    throw new ConfigError(`${out}: exists and is not empty; move it away or choose another --out`);
  const temporary = `${target}.unfinished`;
  await onDisk(temporary, "written", () => rm(temporary, { recursive: true, force: true }));
  await makeFolder(temporary);
  try {
    const files = await filesBeside(model.directory);
    for (const [name, bytes] of files) await writeProven(join(temporary, name), [bytes]);
    await writeProven(join(temporary, "config.json"), [
      Buffer.from(`${JSON.stringify({ ...configOf(model.model), ...(await tokenIdsOf(model)) }, null, 2)}\n`),
    ]);
    const tensors = tensorsOf(model.model, model.weights);
    await writeProven(join(temporary, "model.safetensors"), encode(tensors, { format: "pt" }));
    await syncDirectory(temporary);
    await onDisk(out, "written", () => rename(temporary, target));
    await syncDirectory(dirname(target));
    return [...files.keys()].filter((name) => name !== "generation_config.json");
  } finally {
    await rm(temporary, { recursive: true, force: true }).catch(() => {}); // the next convert removes it
  }
}

/** What lies beside the weights and goes with them, by its name in the copy. */
async function filesBeside(directory: string): Promise<Map<string, Uint8Array>> {
  const files = new Map<string, Uint8Array>();
  for (const [from, to] of tokenizerFiles) {
    const bytes = await readFile(join(directory, from)).catch((error) => {
      if (isAbsent(error)) return undefined;
      throw error;
    });
    if (bytes && !files.has(to)) files.set(to, bytes);
  }
  const whole = files.get(tokenizerJson);
  if (files.has(ownFile))
    for (const [name, text] of (await openTokenizer(directory)).toFiles()) files.set(name, Buffer.from(text));
  else if (whole) {
    const path = join(directory, tokenizerJson);
    files.set(tokenizerJson, Buffer.from(mergesAsText(decodeText(whole, path), path)));
  }
  return files;
}

const idSchema = z.union([z.int().min(0), z.array(z.int().min(0))]).nullish();
const tokenIdsSchema = z.looseObject({ bos_token_id: idSchema, eos_token_id: idSchema, pad_token_id: idSchema });

/** The ids in config.json that begin and end a text: the source's own, else what its tokenizer ends a text with. */
async function tokenIdsOf({ directory, model }: LoadedModel): Promise<Record<string, unknown>> {
  const path = join(directory, "config.json");
  const config = await readJson(path).catch((error) => {
    if (isAbsent(error)) return {};
    throw error;
  });
  const own = Object.entries(checked(tokenIdsSchema, config, path)).filter(
    ([name, id]) => name in tokenIdsSchema.shape && id != null,
  );
  const tokenizer = await openTokenizerOf({ directory, model }).catch((error) => {
    // What Weft cannot read transformers may: the files go along all the same.
    if (error instanceof ConfigError) return undefined;
    throw error;
  });
  const end = tokenizer?.endOfText;
  return { ...(end !== undefined && { bos_token_id: end, eos_token_id: end }), ...Object.fromEntries(own) };
}

export function convertCommand(): Command {
  return new Command("convert")
    .description("write a model as a directory that Hugging Face's transformers opens as it is")
    .argument("<from>", "a checkpoint, a run's folder, a Hugging Face GPT-2 or OpenAI-GPT folder, or GPT-2's release")
    .requiredOption(...flagAndHelp("out", "folder to write; must not exist yet"))
    .action(async (from: string, { out }: { out: string }) => {
      const model = await openModel(from, say);
      const tokenizer = await convertModel(model, out);
      tell(
        `${model.what}: ${model.model.family}, ${model.layout.size.toLocaleString("en")} parameters, written to ${out}`,
      );
      tell(tokenizer.length > 0 ? `tokenizer: ${tokenizer.join(", ")}` : "no tokenizer beside the model");
      for (const difference of differencesInTransformers(model.model)) tell(`note: ${difference}`);
    });
}
