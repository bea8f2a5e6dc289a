// Where text comes from: a file, a folder of .txt files, a glob, or `shakespeare`. Text is UTF-8 and is read piece by
// piece, so it may be larger than memory.
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { glob, isDynamicPattern } from "tinyglobby";
import { ConfigError } from "../../shared/errors.ts";
import { otherEncoding } from "../../shared/json.ts";

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
  if (source === "-" || source === "/dev/stdin") return [await readStream(process.stdin, "standard input")];
  const found = await stat(source).catch(() => undefined);
  // A pipe, as of <(zcat book.gz), can be read once only.
  if (found?.isFIFO()) return [await readStream(createReadStream(source), source)];
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

/** A text of more bytes than this is not held in memory. */
export const largestTextBytes = 2 ** 30;

/** A stream, which is read now and kept, because a text may be asked for twice. */
async function readStream(stream: AsyncIterable<Buffer>, name: string): Promise<TextDocument> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  for await (const piece of readable(stream, name)) {
    bytes += piece.length;
    if (bytes > largestTextBytes)
      throw new ConfigError(`data ${name}: more than ${largestTextBytes} bytes; write them to a file and name that`);
    pieces.push(piece);
  }
  return { name, bytes, pieces: () => decoded(pieces, name) };
}

async function openDocument(path: string): Promise<TextDocument> {
  const { size } = await stat(path);
  return { name: path, bytes: size, pieces: () => piecesOf(path) };
}

function piecesOf(path: string): AsyncGenerator<string> {
  return decoded(readable(createReadStream(path, { highWaterMark: 1 << 20 }), path), path);
}

/** @throws ConfigError where the stream breaks */
async function* readable(stream: AsyncIterable<Buffer>, name: string): AsyncGenerator<Buffer> {
  try {
    yield* stream;
  } catch (error) {
    throw new ConfigError(`${name}: cannot be read (${(error as NodeJS.ErrnoException).code})`, { cause: error });
  }
}

/** @throws ConfigError where the bytes are not UTF-8, naming about where */
async function* decoded(stream: AsyncIterable<Buffer> | Iterable<Buffer>, path: string): AsyncGenerator<string> {
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
  for await (const chunk of stream) {
    const other = position === 0 ? otherEncoding(chunk) : undefined;
    if (other) throw new ConfigError(`${path}: is ${other} text; convert it to UTF-8 first`);
    const text = decode(chunk);
    position += chunk.length;
    if (text !== "") yield text;
  }
  const rest = decode();
  if (rest !== "") yield rest;
}
