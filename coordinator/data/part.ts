// One part of a data set that is being prepared: some documents, encoded into one token file. The same code runs in this
// thread and in others; what is finished says of what it was made, so that a second start does not make it again.
import { createHash } from "node:crypto";
import { rename, stat, writeFile } from "node:fs/promises";
import { z } from "zod";
import { onDisk } from "../../shared/disk.ts";
import { ConfigError } from "../../shared/errors.ts";
import { readJson } from "../../shared/json.ts";
import { widthOf } from "../../shared/token-array.ts";
import type { Tokenizer } from "../../shared/tokenizers/tokenizer.ts";
import { encodeDocuments } from "./dataset.ts";
import { documentAt, type TextDocument, withProgress } from "./text-source.ts";
import { TokenWriter } from "./tokens.ts";

export interface Part {
  /** File of ids; its description lies beside it, with .json at the end. */
  readonly file: string;
  /** What it is made of, in order. */
  readonly documents: readonly TextDocument[];
  /** Is the data set of several files, each of which ends as a document? */
  readonly several: boolean;
}

/** A part as another thread gets it. */
export interface PartOrder {
  readonly file: string;
  readonly paths: readonly string[];
  readonly column: string | undefined;
  readonly several: boolean;
}

/** What came of a part. */
const encodedSchema = z.strictObject({
  tokens: z.int().min(0),
  /** Characters or words that were left out: --unknown skip. */
  skipped: z.int().min(0),
});
export type Encoded = z.infer<typeof encodedSchema>;
const madeSchema = encodedSchema.extend({ of: z.string() });

export async function encodePart(part: Part, tokenizer: Tokenizer, onRead: (bytes: number) => void): Promise<Encoded> {
  const { file, several } = part;
  let before = 0;
  const documents = withProgress(part.documents, (done) => {
    onRead(done - before);
    before = done;
  });
  const of = await identityOf(part, tokenizer);
  const skippedBefore = tokenizer.skipped ?? 0;
  const writer = await TokenWriter.create(`${file}.part`, tokenizer.vocabSize);
  try {
    for await (const ids of encodeDocuments(documents, tokenizer, several)) await writer.write(ids);
  } finally {
    await writer.close();
  }
  await rename(`${file}.part`, file);
  const encoded = { tokens: writer.length, skipped: (tokenizer.skipped ?? 0) - skippedBefore };
  const made = JSON.stringify({ of, ...encoded });
  await onDisk(file, "written", () => writeFile(`${file}.json`, made, { flush: true }));
  return encoded;
}

export async function encodeOrder(
  { file, paths, column, several }: PartOrder,
  tokenizer: Tokenizer,
  onRead: (bytes: number) => void,
): Promise<Encoded> {
  const documents = await Promise.all(paths.map((path) => documentAt(path, column)));
  return await encodePart({ file, documents, several }, tokenizer, onRead);
}

/** A part that an earlier start has finished; undefined where it has to be made. */
export async function finishedPart(part: Part, tokenizer: Tokenizer): Promise<Encoded | undefined> {
  const raw = await readJson(`${part.file}.json`).catch((error) => {
    if (error instanceof ConfigError) return undefined; // absent, or cut short: it is made again
    throw error;
  });
  const made = madeSchema.safeParse(raw).data;
  const size = (await stat(part.file).catch(() => undefined))?.size;
  if (!made || size !== made.tokens * widthOf(tokenizer.vocabSize)) return undefined;
  return made.of === (await identityOf(part, tokenizer)) ? made : undefined;
}

/** SHA-256 of what decides the ids: tokenizer, files with their sizes and times, and how documents end. */
async function identityOf({ documents, several }: Part, tokenizer: Tokenizer): Promise<string> {
  const files = documents.map(async ({ name, bytes, path }) => {
    const time = path === undefined ? 0 : (await stat(path)).mtimeMs;
    return [name, bytes, time];
  });
  const all = [[...tokenizer.toFiles()], await Promise.all(files), several];
  return createHash("sha256").update(JSON.stringify(all)).digest("hex");
}
