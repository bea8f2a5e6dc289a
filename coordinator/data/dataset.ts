// The data of a run: token ids of a training and a validation split, read by offset, with the tokenizer that made them
// and a fingerprint by which a resumed run knows that they are the same.
import { createHash } from "node:crypto";
import { ConfigError } from "../../shared/errors.ts";
import { tokenArray } from "../../shared/token-array.ts";
import { addCodePoints, CharTokenizer } from "../../shared/tokenizers/char.ts";
import { StreamEncoder, type Tokenizer } from "../../shared/tokenizers/tokenizer.ts";
import { openTokenFiles, splitTokens, trainLength } from "./prepared.ts";
import { openShakespeare } from "./shakespeare.ts";
import { isTokenSource } from "./shards.ts";
import { documentEnd, findDocuments, largestTextBytes, type TextDocument } from "./text-source.ts";
import { MemoryTokens, type Tokens } from "./tokens.ts";

const splits = ["train", "val"] as const;
export type Split = (typeof splits)[number];

export interface DatasetOptions {
  /** `shakespeare`, a text file, a folder of .txt files, a glob, a .bin file, or a prepared folder. */
  readonly source: string;
  /** T: no split may be shorter than a window of T tokens and its last target; a validation split may be empty. */
  readonly blockSize: number;
  /** What encodes the text; without it the characters of the text, or what lies beside the token files. */
  readonly tokenizer?: Tokenizer;
  /** The last part of the tokens, for validation, where the source has no val.bin; 0: none. Default: a tenth. */
  readonly valFraction?: number;
  /** Do not split what is not split already: the training split is all of it. */
  readonly whole?: boolean;
  /** Splits that are going to be read: only they have to be long enough. Default: both. */
  readonly splits?: readonly Split[];
  /** One split that is long enough will do: the others may be empty. */
  readonly anySplit?: boolean;
  /** Column of JSON lines and Parquet files that holds the text. Default: "text". */
  readonly textColumn?: string;
  /** For `shakespeare`: train on another book where there is no network, instead of refusing. */
  readonly substitute?: boolean;
  /** Read all of the token files and compare their digest, however large they are. */
  readonly verify?: boolean;
  /** Text of more bytes is not encoded in memory. Default: 1 GiB. */
  readonly mostTextBytes?: number;
  /** One line for people. */
  readonly notify?: (line: string) => void;
}

/** Windows of B sequences: targets are the tokens one place further on. */
export interface Windows {
  /** (B, T) */
  readonly tokens: Int32Array;
  /** (B, T) */
  readonly targets: Int32Array;
}

export class Dataset {
  /** For people: where the text came from. */
  readonly name: string;
  readonly tokenizer: Tokenizer;
  /** sha256 of all ids in order. */
  readonly fingerprint: string;
  readonly blockSize: number;
  readonly train: { readonly length: number };
  readonly val: { readonly length: number };
  readonly #splits: Readonly<Record<Split, Tokens>>;
  readonly #close: () => Promise<void>;

  constructor(parts: {
    name: string;
    tokenizer: Tokenizer;
    fingerprint: string;
    blockSize: number;
    train: Tokens;
    val: Tokens;
    close?: () => Promise<void>;
  }) {
    this.name = parts.name;
    this.tokenizer = parts.tokenizer;
    this.fingerprint = parts.fingerprint;
    this.blockSize = parts.blockSize;
    this.train = parts.train;
    this.val = parts.val;
    this.#splits = { train: parts.train, val: parts.val };
    this.#close = parts.close ?? (async () => {});
  }

  /** Fill out[0 .. length) with the ids of a split from `offset` on. */
  async read(split: Split, offset: number, length: number, out: Int32Array): Promise<void> {
    const tokens = this.#splits[split];
    if (offset < 0 || offset + length > tokens.length)
      throw new RangeError(`${split} split has ${tokens.length} tokens, asked for ${offset} to ${offset + length}`);
    await tokens.read(offset, out.subarray(0, length));
  }

  /**
   * The windows of T tokens that start at these offsets, each in [0, length - T).
   * @returns (B, T) tokens and targets, B = starts.length
   */
  async windows(split: Split, starts: ArrayLike<number>, T = this.blockSize): Promise<Windows> {
    const tokens = new Int32Array(starts.length * T);
    const targets = new Int32Array(starts.length * T);
    const row = new Int32Array(T + 1);
    for (let b = 0; b < starts.length; b++) {
      await this.read(split, starts[b]!, T + 1, row);
      tokens.set(row.subarray(0, T), b * T);
      targets.set(row.subarray(1), b * T);
    }
    return { tokens, targets };
  }

  /** Starts of all windows that follow each other without overlap: 0, T, 2T, ... */
  consecutive(split: Split, T = this.blockSize): Float64Array {
    return windowStarts(0, this.#splits[split].length, T);
  }

  /**
   * Those of a text that lies whole in the training split: of both parts that it would be cut into, so that the figure is
   * their mean; of a text that is too short to be cut, those of the whole.
   */
  uncut(T: number): Float64Array {
    const { length } = this.train;
    const cut = trainLength(length);
    if (Math.min(cut, length - cut) <= T) return windowStarts(0, length, T);
    const [first, second] = [windowStarts(0, cut, T), windowStarts(cut, length, T)];
    const starts = new Float64Array(first.length + second.length);
    starts.set(first);
    starts.set(second, first.length);
    return starts;
  }

  /** Close the files. Nothing may be read afterwards. */
  async close(): Promise<void> {
    await this.#close();
  }
}

/** Starts of the windows of T tokens, and their last target, that lie one after another in [begin, end). */
function windowStarts(begin: number, end: number, T: number): Float64Array {
  const count = Math.max(0, Math.floor((end - begin - 1) / T));
  return Float64Array.from({ length: count }, (_, i) => begin + i * T);
}

/** @throws ConfigError where the data is missing, empty, foreign, or shorter than a block */
export async function openDataset(wished: DatasetOptions): Promise<Dataset> {
  const options = wished.whole ? { ...wished, valFraction: 0 } : wished;
  const { source, blockSize } = options;
  const dataset = (await isTokenSource(source))
    ? new Dataset({ name: source, blockSize, ...(await openTokenFiles(source, options)) })
    : await encodeText(options);
  const short = (options.splits ?? splits).filter((split) => dataset[split].length < blockSize + 1);
  // No validation at all was somebody's wish; less than a window was nobody's.
  const missed = short.find((split) => split === "train" || dataset.val.length > 0 || options.splits !== undefined);
  if (missed && !(options.anySplit && short.length < splits.length)) {
    await dataset.close();
    throw new ConfigError(
      `data ${dataset.name}: too short: its ${missed} split has ${dataset[missed].length} tokens, a window of block size ` +
        `${blockSize} needs ${blockSize + 1}; use more text, a smaller --block-size or another --val-fraction`,
    );
  }
  return dataset;
}

/** The text documents of a source. */
export async function openDocuments(options: Omit<DatasetOptions, "blockSize">): Promise<TextDocument[]> {
  const documents =
    options.source === "shakespeare"
      ? [await openShakespeare({ substitute: options.substitute ?? false, notify: options.notify ?? (() => {}) })]
      : await findDocuments(options.source, options.textColumn);
  if (documents.every(({ bytes }) => bytes === 0))
    throw new ConfigError(`data ${options.source}: there is no text in it; expected some UTF-8 text`);
  return documents;
}

/** The characters of all documents. */
export async function codePointsOf(documents: readonly TextDocument[]): Promise<Set<number>> {
  const codes = new Set<number>();
  for (const document of documents)
    for await (const piece of document.pieces()) if (piece !== documentEnd) addCodePoints(piece, codes);
  return codes;
}

/** The sorted characters of all documents. */
export async function vocabularyOf(documents: readonly TextDocument[]): Promise<CharTokenizer> {
  return CharTokenizer.fromCodePoints(await codePointsOf(documents));
}

/** What ends a document where the tokenizer's own template does not already divide them with it. */
function separatorOf(tokenizer: Tokenizer): number | undefined {
  const { endOfText, template } = tokenizer;
  return endOfText !== undefined && template?.includes(endOfText) ? undefined : endOfText;
}

/**
 * Ids of all documents in order. Where the vocabulary has a token that ends a document, it follows each document of a
 * file of many, and each file where there are several.
 */
export async function* encodeDocuments(
  documents: readonly TextDocument[],
  tokenizer: Tokenizer,
  several = documents.length > 1,
): AsyncGenerator<Int32Array> {
  const separator = separatorOf(tokenizer);
  const end = separator === undefined ? [] : [Int32Array.of(separator)];
  for (const document of documents) {
    let encoder = new StreamEncoder(tokenizer);
    let isEnded = false;
    try {
      for await (const piece of document.pieces()) {
        isEnded = piece === documentEnd;
        if (piece !== documentEnd) yield encoder.push(piece);
        else {
          yield encoder.end();
          yield* end;
          encoder = new StreamEncoder(tokenizer);
        }
      }
      yield encoder.end();
      if (several && !isEnded) yield* end;
    } catch (error) {
      if (error instanceof ConfigError && ![document.name, "data "].some((name) => error.message.startsWith(name)))
        throw new ConfigError(`data ${document.name}: ${error.message}`, { cause: error });
      throw error;
    }
  }
}

/** What --unknown skip did, for people. */
export function skippedLine(skipped: number): string {
  return `left out ${skipped.toLocaleString("en")} that the vocabulary lacks (--unknown skip)`;
}

/** @throws ConfigError where a text of so many bytes is not encoded in memory */
function checkBytes(bytes: number, { source, mostTextBytes = largestTextBytes }: DatasetOptions): void {
  if (bytes > mostTextBytes)
    throw new ConfigError(
      `data ${source}: ${bytes} bytes of text are more than the ${mostTextBytes} that are encoded in memory; ` +
        `run "weft data prepare" once and train from its folder`,
    );
}

/** The same documents, for one pass: what a small packed file holds may be any size, and is counted as it comes. */
function bounded(documents: readonly TextDocument[], options: DatasetOptions): TextDocument[] {
  let bytes = 0;
  return documents.map((document) => ({
    ...document,
    async *pieces() {
      for await (const piece of document.pieces()) {
        if (piece !== documentEnd) bytes += Buffer.byteLength(piece);
        checkBytes(bytes, options);
        yield piece;
      }
    },
  }));
}

async function encodeText(options: DatasetOptions): Promise<Dataset> {
  const documents = await openDocuments(options);
  const bytes = documents.reduce((sum, document) => sum + document.bytes, 0);
  checkBytes(bytes, options);
  const tokenizer = options.tokenizer ?? (await vocabularyOf(bounded(documents, options)));
  const pieces: Int32Array[] = [];
  for await (const ids of encodeDocuments(bounded(documents, options), tokenizer)) pieces.push(ids);
  if (tokenizer.skipped) options.notify?.(skippedLine(tokenizer.skipped));
  const all = tokenArray(
    tokenizer.vocabSize,
    pieces.reduce((sum, piece) => sum + piece.length, 0),
  );
  let offset = 0;
  for (const piece of pieces) {
    all.set(piece, offset);
    offset += piece.length;
  }
  const [train, val] = splitTokens(new MemoryTokens(all), options.valFraction);
  return new Dataset({
    name: documents.length === 1 ? documents[0]!.name : `${options.source} (${documents.length} files)`,
    tokenizer,
    fingerprint: createHash("sha256").update(all).digest("hex"),
    blockSize: options.blockSize,
    train,
    val,
  });
}
