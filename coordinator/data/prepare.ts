// `weft data prepare`: text of any size to a prepared folder. The documents are parted, the parts encoded side by side in
// threads; those that are finished stay when it is interrupted. When the number of all tokens is known, the parts become
// the shards of the two splits. data.json comes last: a folder without it is not finished.
import { createHash } from "node:crypto";
import { copyFile, link, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { diskError, makeFolder, onDisk } from "../../shared/disk.ts";
import { ConfigError, messageOf } from "../../shared/errors.ts";
import { widthOf } from "../../shared/token-array.ts";
import type { Tokenizer } from "../../shared/tokenizers/tokenizer.ts";
import { openDocuments, skippedLine, vocabularyOf } from "./dataset.ts";
import { type Encoded, encodePart, finishedPart, type Part, type PartOrder } from "./part.ts";
import type { PartAnswer, PartThreadData } from "./part-thread.ts";
import { type Description, descriptionFile, trainLength } from "./prepared.ts";
import { type TextDocument, withProgress } from "./text-source.ts";
import { TokenFile, TokenWriter } from "./tokens.ts";

export interface PrepareOptions {
  /** `shakespeare`, a file of text, JSON lines or Parquet, a folder of them, or a glob. */
  readonly source: string;
  /** Column of JSON lines and Parquet files that holds the text. */
  readonly textColumn?: string;
  /** Folder to make. */
  readonly out: string;
  /** Without it: the sorted characters of the text. */
  readonly tokenizer?: Tokenizer;
  readonly valFraction?: number;
  /** Does the tokenizer leave out what it lacks (skippingUnknown)? */
  readonly skips?: boolean;
  /** Threads that encode. Default: one for each core. */
  readonly threads?: number;
  /** Bytes of files in one part: what is lost at most by an interruption, and about the size of a shard. */
  readonly partBytes?: number;
  readonly notify?: (line: string) => void;
  /** Bytes of the files read so far in a pass over all of them. */
  readonly progress?: (pass: "vocabulary" | "tokens", done: number, total: number) => void;
}

const usualPartBytes = 256 * 2 ** 20;

/** @throws ConfigError where there is no text, the tokenizer lacks a part of it, or `out` holds data already */
export async function prepareData(options: PrepareOptions): Promise<Description> {
  const { source, out, textColumn, threads = availableParallelism() } = options;
  if (await stat(join(out, descriptionFile)).catch(() => undefined))
    throw new ConfigError(`${out}: holds prepared data already; remove it or choose another --out`);
  const documents = await openDocuments(options);
  // Before anything takes time: a folder that cannot be written is said at once.
  await makeFolder(out);
  const scratch = join(out, ".parts");
  await makeFolder(join(scratch, "tokenizer"));
  const progress = options.progress ?? (() => {});
  const tokenizer =
    options.tokenizer ?? (await vocabularyOf(withProgress(documents, (...at) => progress("vocabulary", ...at))));
  const writeText = (path: string, text: string) =>
    onDisk(path, "written", () => writeFile(path, text, { flush: true }));
  for (const [name, content] of tokenizer.toFiles()) await writeText(join(scratch, "tokenizer", name), content);

  const parts = planParts(documents, scratch, options.partBytes ?? usualPartBytes);
  const made = await Promise.all(parts.map((part) => finishedPart(part, tokenizer)));
  const total = documents.reduce((sum, { bytes }) => sum + bytes, 0);
  const bytesOf = (part: Part): number => part.documents.reduce((sum, { bytes }) => sum + bytes, 0);
  const kept = parts.filter((_, i) => made[i] !== undefined);
  let done = kept.reduce((sum, part) => sum + bytesOf(part), 0);
  if (kept.length > 0) options.notify?.(`${out}: ${kept.length} of ${parts.length} parts are there already`);
  const missing = parts.flatMap((_, i) => (made[i] === undefined ? [i] : []));
  const encoders = Math.min(threads, missing.length);
  const onRead = (bytes: number): void => {
    done = Math.min(total, done + bytes);
    progress("tokens", done, total);
  };
  const encodeNext = async (encode: (part: Part) => Promise<Encoded>): Promise<void> => {
    for (let i = missing.shift(); i !== undefined; i = missing.shift()) made[i] = await encode(parts[i]!);
  };
  const canMove = documents.every(({ path }) => path !== undefined);
  if (encoders < 2 || !canMove) await encodeNext((part) => encodePart(part, tokenizer, onRead));
  else {
    const data = { folder: join(scratch, "tokenizer"), skips: options.skips ?? false };
    await inThreads(encoders, data, textColumn, onRead, encodeNext);
  }
  progress("tokens", total, total);

  const skipped = made.reduce((sum, part) => sum + part!.skipped, 0);
  if (skipped > 0) options.notify?.(skippedLine(skipped));
  const all = made.reduce((sum, part) => sum + part!.tokens, 0);
  const trainTokens = trainLength(all, options.valFraction);
  // What an interrupted start has placed is placed again.
  for (const name of await readdir(out)) if (/^(train|val)(-\d{5})?\.bin$/.test(name)) await rm(join(out, name));
  const files = parts.map(({ file }, i) => ({ file, length: made[i]!.tokens }));
  const digest = createHash("sha256");
  for (const path of await placeShards(files, trainTokens, out, tokenizer)) {
    const file = await TokenFile.open(path, tokenizer, widthOf(tokenizer.vocabSize));
    await file.addTo(digest).finally(() => file.close());
  }
  const description: Description = {
    format: "weft-tokens",
    version: 1,
    source,
    tokenizer: tokenizer.name,
    vocabSize: tokenizer.vocabSize,
    dtype: widthOf(tokenizer.vocabSize) === 2 ? "uint16" : "uint32",
    trainTokens,
    valTokens: all - trainTokens,
    sha256: digest.digest("hex"),
  };
  for (const [name, content] of tokenizer.toFiles()) await writeText(join(out, name), content);
  const unfinished = join(scratch, descriptionFile);
  await writeText(unfinished, `${JSON.stringify(description, null, 2)}\n`);
  await rename(unfinished, join(out, descriptionFile));
  await rm(scratch, { recursive: true }).catch((error) => {
    options.notify?.(`${messageOf(diskError(error, scratch, "removed"))}; the data is whole without it`);
  });
  return description;
}

/** Documents in order, some together where they are small. */
function planParts(documents: readonly TextDocument[], folder: string, partBytes: number): Part[] {
  const groups: TextDocument[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const document of documents) {
    if (bytes + document.bytes > partBytes) {
      groups.push([]);
      bytes = 0;
    }
    groups.at(-1)!.push(document);
    bytes += document.bytes;
  }
  const several = documents.length > 1;
  return groups.map((group, i) => ({ file: join(folder, `${number(i)}.bin`), documents: group, several }));
}

const number = (i: number): string => String(i).padStart(5, "0");

/** From sources (tests) the compiled twin runs: Node 20 cannot load TypeScript into a thread. */
const entry = new URL(
  import.meta.url.endsWith(".ts") ? "../../dist/coordinator/data/part-thread.js" : "./part-thread.js",
  import.meta.url,
);

/** @throws ConfigError the first fault of any thread, after all have ended */
async function inThreads(
  count: number,
  workerData: PartThreadData,
  column: string | undefined,
  onRead: (bytes: number) => void,
  work: (encode: (part: Part) => Promise<Encoded>) => Promise<void>,
): Promise<void> {
  const threads = Array.from({ length: count }, () => new Worker(entry, { workerData }));
  try {
    await Promise.all(threads.map((thread) => work((part) => order(thread, part, column, onRead))));
  } finally {
    await Promise.all(threads.map((thread) => thread.terminate()));
  }
}

function order(
  thread: Worker,
  { file, documents, several }: Part,
  column: string | undefined,
  onRead: (bytes: number) => void,
): Promise<Encoded> {
  return new Promise((resolve, reject) => {
    const settle = (act: () => void): void => {
      thread.off("message", onMessage).off("error", onError);
      act();
    };
    const onError = (error: Error): void => settle(() => reject(error));
    const onMessage = (answer: PartAnswer): void => {
      if ("read" in answer) onRead(answer.read);
      else if ("tokens" in answer) settle(() => resolve(answer));
      else settle(() => reject(new ConfigError(answer.fault)));
    };
    thread.on("message", onMessage).on("error", onError);
    const message: PartOrder = { file, paths: documents.map(({ path }) => path!), column, several };
    thread.postMessage(message);
  });
}

/**
 * The parts as shards of the two splits: train-00000.bin, ..., or train.bin where there is one. They are linked, not moved:
 * an interruption leaves the parts as they are.
 * @returns paths in the order of the tokens
 */
async function placeShards(
  parts: readonly { file: string; length: number }[],
  trainTokens: number,
  out: string,
  tokenizer: Tokenizer,
): Promise<string[]> {
  const shards: Record<"train" | "val", { file: string; from: number; to: number; whole: boolean }[]> = {
    train: [],
    val: [],
  };
  let before = 0;
  for (const { file, length } of parts) {
    const cut = Math.min(length, Math.max(0, trainTokens - before));
    if (cut > 0) shards.train.push({ file, from: 0, to: cut, whole: cut === length });
    if (cut < length) shards.val.push({ file, from: cut, to: length, whole: cut === 0 });
    before += length;
  }
  const placed: string[] = [];
  for (const split of ["train", "val"] as const) {
    // A split without a token is an empty file.
    const pieces = shards[split].length > 0 ? shards[split] : [undefined];
    for (const [i, piece] of pieces.entries()) {
      const path = join(out, pieces.length === 1 ? `${split}.bin` : `${split}-${number(i)}.bin`);
      if (!piece) await (await TokenWriter.create(path, tokenizer.vocabSize)).close();
      else if (!piece.whole) await copyIds(piece, path, tokenizer);
      else await link(piece.file, path).catch(() => onDisk(path, "written", () => copyFile(piece.file, path)));
      placed.push(path);
    }
  }
  return placed;
}

/** Copy ids [from, to) into another file. */
async function copyIds(
  { file: path, from, to }: { file: string; from: number; to: number },
  target: string,
  tokenizer: Tokenizer,
): Promise<void> {
  const file = await TokenFile.open(path, tokenizer, widthOf(tokenizer.vocabSize));
  try {
    const writer = await TokenWriter.create(target, tokenizer.vocabSize);
    try {
      const piece = new Int32Array(1 << 20);
      for (let offset = from; offset < to; offset += piece.length) {
        const some = piece.subarray(0, Math.min(piece.length, to - offset));
        await file.read(offset, some);
        await writer.write(some);
      }
    } finally {
      await writer.close();
    }
  } finally {
    await file.close();
  }
}
