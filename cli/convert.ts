// `weft convert`: any model that Weft reads (a checkpoint, a Hugging Face directory, OpenAI's GPT-2 release) into a
// directory that Hugging Face's transformers opens as it is. Whole or not at all.
import { mkdir, readdir, readFile, rename, rm } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { Command } from "commander";
import { configOf, differencesInTransformers, tensorsOf } from "../shared/checkpoint/huggingface.ts";
import { syncDirectory, writeProven } from "../shared/checkpoint/manifest.ts";
import { releaseTokenizerFiles } from "../shared/checkpoint/openai-release.ts";
import { type LoadedModel, loadModel } from "../shared/checkpoint/rundir.ts";
import { encode } from "../shared/checkpoint/safetensors.ts";
import { ConfigError } from "../shared/errors.ts";
import { isAbsent } from "../shared/json.ts";
import { ownFile } from "../shared/tokenizers/own-file.ts";
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
  await rm(temporary, { recursive: true, force: true });
  await mkdir(temporary, { recursive: true });
  try {
    const copied: string[] = [];
    for (const [from, to] of tokenizerFiles) {
      const bytes = await readFile(join(model.directory, from)).catch((error) => {
        if (isAbsent(error)) return undefined;
        throw error;
      });
      if (!bytes || copied.includes(to)) continue;
      await writeProven(join(temporary, to), [bytes]);
      copied.push(to);
    }
    await writeProven(join(temporary, "config.json"), [
      Buffer.from(`${JSON.stringify(configOf(model.model), null, 2)}\n`),
    ]);
    const tensors = tensorsOf(model.model, model.weights);
    await writeProven(join(temporary, "model.safetensors"), encode(tensors, { format: "pt" }));
    await syncDirectory(temporary);
    await rename(temporary, target);
    await syncDirectory(dirname(target));
    return copied;
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

export function convertCommand(): Command {
  return new Command("convert")
    .description("write a model as a directory that Hugging Face's transformers opens as it is")
    .argument("<from>", "a checkpoint, a run's folder, a Hugging Face GPT-2 or OpenAI-GPT folder, or GPT-2's release")
    .requiredOption("--out <DIR>", "folder to write; must not exist yet")
    .action(async (from: string, { out }: { out: string }) => {
      const model = await loadModel(from, say);
      const tokenizer = await convertModel(model, out);
      tell(
        `${model.what}: ${model.model.family}, ${model.layout.size.toLocaleString("en")} parameters, written to ${out}`,
      );
      tell(tokenizer.length > 0 ? `tokenizer: ${tokenizer.join(", ")}` : "no tokenizer beside the model");
      for (const difference of differencesInTransformers(model.model)) tell(`note: ${difference}`);
    });
}
