// Where text comes from: a file, a folder of .txt files, a glob, or `shakespeare`. Text is UTF-8 and is read piece by
// piece, so it may be larger than memory.
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { glob, isDynamicPattern } from "tinyglobby";
import { ConfigError } from "../../shared/errors.ts";

export interface TextDocument {
  /** For messages: a path or a title. */
  readonly name: string;
  readonly bytes: number;
  /** The text in order; no character is split between two pieces. Can be called again for a second pass. */
  pieces(): AsyncIterable<string>;
}

/** A text that is in memory already. */
export function documentOf(name: string, text: string): TextDocument {
  return {
    name,
    bytes: Buffer.byteLength(text),
    async *pieces() {
      yield text;
    },
  };
}

/**
 * The documents behind a path or glob, folders and globs in the order of their names.
 * @throws ConfigError where there is nothing to read
 */
export async function findDocuments(source: string): Promise<TextDocument[]> {
  const found = await stat(source).catch(() => undefined);
  if (found?.isFile()) return [await openDocument(source)];
  let paths: string[];
  if (found?.isDirectory()) {
    paths = await glob("**/*.txt", { cwd: source, onlyFiles: true });
    paths = paths.map((path) => join(source, path));
    if (paths.length === 0)
      throw new ConfigError(
        `data ${source}: the folder holds no .txt file; name others with a glob, as '${source}/**/*.md'`,
      );
  } else {
    paths = isDynamicPattern(source) ? await glob(source, { onlyFiles: true }) : [];
    if (paths.length === 0) throw new ConfigError(`data ${source}: no such file or folder, and no glob that matches`);
  }
  return Promise.all(paths.sort().map(openDocument));
}

/** The same documents, telling how many bytes of all have been read. */
export function withProgress(
  documents: readonly TextDocument[],
  progress: (done: number, total: number) => void,
): readonly TextDocument[] {
  const total = documents.reduce((sum, { bytes }) => sum + bytes, 0);
  let done = 0;
  return documents.map((document) => ({
    ...document,
    async *pieces() {
      for await (const piece of document.pieces()) {
        yield piece;
        done += Buffer.byteLength(piece);
        progress(done, total);
      }
    },
  }));
}

async function openDocument(path: string): Promise<TextDocument> {
  const { size } = await stat(path);
  return { name: path, bytes: size, pieces: () => piecesOf(path) };
}

/** @throws ConfigError where the bytes are not UTF-8, naming about where */
async function* piecesOf(path: string): AsyncGenerator<string> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let position = 0;
  const decode = (bytes?: Uint8Array): string => {
    try {
      return bytes ? decoder.decode(bytes, { stream: true }) : decoder.decode();
    } catch (error) {
      const end = position + (bytes?.length ?? 0);
      throw new ConfigError(`${path}: not UTF-8 text between bytes ${position} and ${end}; convert it to UTF-8 first`, {
        cause: error,
      });
    }
  };
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>) {
      const text = decode(chunk);
      position += chunk.length;
      if (text !== "") yield text;
    }
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    throw new ConfigError(`${path}: cannot be read (${(error as NodeJS.ErrnoException).code})`, { cause: error });
  }
  const rest = decode();
  if (rest !== "") yield rest;
}
