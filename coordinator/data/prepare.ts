// `weft data prepare`: text of any size to a prepared folder. Ids are written as they come into train.bin; when their
// number is known, the last part moves to val.bin. data.json comes last: a folder without it is not finished.
import { createHash } from "node:crypto";
import { rename, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { makeFolder, onDisk } from "../../shared/disk.ts";
import { ConfigError } from "../../shared/errors.ts";
import type { Tokenizer } from "../../shared/tokenizers/tokenizer.ts";
import { encodeDocuments, openDocuments, skippedLine, vocabularyOf } from "./dataset.ts";
import { type Description, descriptionFile, trainLength } from "./prepared.ts";
import { withProgress } from "./text-source.ts";
import { widthOf } from "./token-format.ts";
import { TokenFile, TokenWriter } from "./tokens.ts";

export interface PrepareOptions {
  /** `shakespeare`, a text file, a folder of .txt files, or a glob. */
  readonly source: string;
  /** Folder to make. */
  readonly out: string;
  /** Without it: the sorted characters of the text. */
  readonly tokenizer?: Tokenizer;
  readonly valFraction?: number;
  readonly notify?: (line: string) => void;
  /** Bytes of text read so far in a pass over all of it. */
  readonly progress?: (pass: "vocabulary" | "tokens", done: number, total: number) => void;
}

/** @throws ConfigError where there is no text, the tokenizer lacks a part of it, or `out` holds data already */
export async function prepareData(options: PrepareOptions): Promise<Description> {
  const { source, out } = options;
  if (await stat(join(out, descriptionFile)).catch(() => undefined))
    throw new ConfigError(`${out}: holds prepared data already; remove it or choose another --out`);
  const documents = await openDocuments(options);
  const progress = options.progress ?? (() => {});
  const tokenizer =
    options.tokenizer ?? (await vocabularyOf(withProgress(documents, (...at) => progress("vocabulary", ...at))));
  const { vocabSize } = tokenizer;
  await makeFolder(out);
  const partial = (name: string): string => join(out, `${name}.part`);

  const writer = await TokenWriter.create(partial("train.bin"), vocabSize);
  let trainTokens: number;
  let valTokens: number;
  try {
    for await (const ids of encodeDocuments(
      withProgress(documents, (...at) => progress("tokens", ...at)),
      tokenizer,
    ))
      await writer.write(ids);
    if (tokenizer.skipped) options.notify?.(skippedLine(tokenizer.skipped));
    trainTokens = trainLength(writer.length, options.valFraction);
    valTokens = writer.length - trainTokens;
    await copyTail(partial("train.bin"), trainTokens, partial("val.bin"), tokenizer);
    await writer.truncate(trainTokens);
  } finally {
    await writer.close();
  }

  const digest = createHash("sha256");
  for (const name of ["train.bin", "val.bin"]) {
    const file = await TokenFile.open(partial(name), tokenizer, widthOf(vocabSize));
    await file.addTo(digest).finally(() => file.close());
    await rename(partial(name), join(out, name));
  }
  const description: Description = {
    format: "weft-tokens",
    version: 1,
    source,
    tokenizer: tokenizer.name,
    vocabSize,
    dtype: widthOf(vocabSize) === 2 ? "uint16" : "uint32",
    trainTokens,
    valTokens,
    sha256: digest.digest("hex"),
  };
  const writeText = (path: string, text: string) =>
    onDisk(path, "written", () => writeFile(path, text, { flush: true }));
  for (const [name, content] of tokenizer.toFiles()) await writeText(join(out, name), content);
  await writeText(partial(descriptionFile), `${JSON.stringify(description, null, 2)}\n`);
  await rename(partial(descriptionFile), join(out, descriptionFile));
  return description;
}

/** Copy the ids from `start` to the end into another file. */
async function copyTail(from: string, start: number, to: string, tokenizer: Tokenizer): Promise<void> {
  const file = await TokenFile.open(from, tokenizer, widthOf(tokenizer.vocabSize));
  try {
    const writer = await TokenWriter.create(to, tokenizer.vocabSize);
    try {
      const piece = new Int32Array(1 << 20);
      for (let offset = start; offset < file.length; offset += piece.length) {
        const part = piece.subarray(0, Math.min(piece.length, file.length - offset));
        await file.read(offset, part);
        await writer.write(part);
      }
    } finally {
      await writer.close();
    }
  } finally {
    await file.close();
  }
}
