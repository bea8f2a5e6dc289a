// Where text comes from: a file, a folder, a glob, or `shakespeare`. Text is UTF-8 and is read piece by piece, so it may
// be larger than memory. A file of text is one document; JSON lines and Parquet hold many.
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { pipeline, Readable } from "node:stream";
import { createGunzip } from "node:zlib";
import { glob, isDynamicPattern } from "tinyglobby";
import { ConfigError } from "../../shared/errors.ts";
import { otherEncoding } from "../../shared/json.ts";
import { jsonLines, parquet } from "./records.ts";

/** Stands between the pieces of a file of many documents, after each of them. */
export const documentEnd: unique symbol = Symbol("end of a document");

export interface TextDocument {
  /** For messages: a path or a title. */
  readonly name: string;
  readonly bytes: number;
  /** Where another thread finds it; none for what is in memory. */
  readonly path?: string;
  /**
   * The text in order; no character is split between two pieces. Can be called again for a second pass.
   * @param onRead hears of bytes of the file that have been read
   */
  pieces(onRead?: (bytes: number) => void): AsyncIterable<string | typeof documentEnd>;
}

/** A text that is in memory already. */
export function documentOf(name: string, text: string): TextDocument {
  return {
    name,
    bytes: Buffer.byteLength(text),
    async *pieces(onRead) {
      yield text;
      onRead?.(Buffer.byteLength(text));
    },
  };
}

/** Column of JSON lines and Parquet files that holds the text, where nothing else is said. */
const usualColumn = "text";
const textFiles = "**/*.{txt,jsonl,ndjson,txt.gz,jsonl.gz,ndjson.gz,parquet}";

/**
 * The documents behind a path or glob, folders and globs in the order of their names.
 * @throws ConfigError where there is nothing to read
 */
export async function findDocuments(source: string, column = usualColumn): Promise<TextDocument[]> {
  const openDocument = (path: string) => documentAt(path, column);
  if (source === "-" || source === "/dev/stdin") return [await readStream(process.stdin, "standard input")];
  const found = await stat(source).catch(() => undefined);
  // A pipe, as of <(zcat book.gz), can be read once only.
  if (found?.isFIFO()) return [await readStream(createReadStream(source), source)];
  if (found?.isFile()) return [await openDocument(source)];
  let paths: string[];
  if (found?.isDirectory()) {
    paths = await glob(textFiles, { cwd: source, onlyFiles: true, caseSensitiveMatch: false });
    paths = paths.map((path) => join(source, path));
    if (paths.length === 0)
      throw new ConfigError(
        `data ${source}: the folder holds no .txt, .jsonl or .parquet file; name others with a glob, as '${source}/**/*.md'`,
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
    pieces: () =>
      document.pieces((bytes) => {
        done = Math.min(total, done + bytes);
        progress(done, total);
      }),
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

/** A file of text, JSON lines or Parquet, by the end of its name. */
export async function documentAt(path: string, column = usualColumn): Promise<TextDocument> {
  const { size } = await stat(path);
  return { name: path, bytes: size, path, pieces: (onRead = () => {}) => piecesOf(path, column, onRead) };
}

async function* piecesOf(path: string, column: string, onRead: (bytes: number) => void) {
  const kind = /\.(parquet|jsonl|ndjson)(?:\.gz)?$/i.exec(path)?.[1]?.toLowerCase();
  if (kind === undefined) return yield* decoded(bytesOf(path, onRead), path);
  const rows =
    kind === "parquet" ? parquet(path, column, onRead) : jsonLines(decoded(bytesOf(path, onRead), path), path, column);
  for await (const text of rows) {
    if (text !== "") yield text;
    yield documentEnd;
  }
}

/** The file's bytes, unpacked where its name ends in .gz. */
function bytesOf(path: string, onRead: (bytes: number) => void): AsyncIterable<Buffer> {
  const file = counted(readable(createReadStream(path, { highWaterMark: 1 << 20 }), path), onRead);
  if (!/\.gz$/i.test(path)) return file;
  const unpacked = pipeline(Readable.from(file), createGunzip({ chunkSize: 1 << 20 }), () => {
    // Whoever reads the end of the pipe hears of it.
  });
  return readable(unpacked, path);
}

async function* counted(stream: AsyncIterable<Buffer>, onRead: (bytes: number) => void): AsyncGenerator<Buffer> {
  for await (const piece of stream) {
    yield piece;
    onRead(piece.length);
  }
}

/** @throws ConfigError where the stream breaks */
async function* readable(stream: AsyncIterable<Buffer>, name: string): AsyncGenerator<Buffer> {
  try {
    yield* stream;
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    const { code = "" } = error as NodeJS.ErrnoException;
    throw new ConfigError(`${name}: ${unpacking[code] ?? `cannot be read (${code})`}`, { cause: error });
  }
}

/** What zlib's codes mean to whoever has the file. */
const unpacking: Readonly<Record<string, string>> = {
  Z_BUF_ERROR: "ends in the middle of its packed data; copy or download it again",
  Z_DATA_ERROR: "is not gzip data, or damaged; copy it again, or leave the .gz out of its name if it is not packed",
};

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
