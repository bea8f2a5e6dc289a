// Sequences of token ids, in memory or in a file: uint16 little-endian as nanoGPT writes them, uint32 where the
// vocabulary has more than 65,536 tokens. Files are read by offset, so they may be larger than memory.
import type { Hash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { onDisk } from "../../shared/disk.ts";
import { ConfigError } from "../../shared/errors.ts";
import { type ReadableFile, StoredFile } from "../../shared/stored-file.ts";
import { tokenArray } from "../../shared/token-array.ts";
import { formatOf, type TokenFormat } from "./token-format.ts";

/** Ids that can be read from any place. */
export interface Tokens {
  readonly length: number;
  /** Fill `out` with the ids from `offset` on; offset + out.length <= length. */
  read(offset: number, out: Int32Array): Promise<void>;
}

/** Sequences one after another, as one. */
export function concatenate(parts: readonly Tokens[]): Tokens {
  if (parts.length === 1) return parts[0]!;
  const starts: number[] = [];
  let length = 0;
  for (const part of parts) {
    starts.push(length);
    length += part.length;
  }
  /** Index of the part that holds a place. */
  const partAt = (offset: number): number => {
    let [low, high] = [0, starts.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (starts[middle]! <= offset) low = middle;
      else high = middle - 1;
    }
    return low;
  };
  return {
    length,
    async read(offset, out) {
      for (let done = 0, i = partAt(offset); done < out.length; i++) {
        const at = offset + done - starts[i]!;
        const count = Math.min(out.length - done, parts[i]!.length - at);
        if (count > 0) await parts[i]!.read(at, out.subarray(done, done + count));
        done += Math.max(0, count);
      }
    },
  };
}

/** A part of a sequence. */
export function slice(tokens: Tokens, start: number, length: number): Tokens {
  return { length, read: (offset, out) => tokens.read(start + offset, out) };
}

export class MemoryTokens implements Tokens {
  readonly #ids: Uint16Array | Uint32Array;

  constructor(ids: Uint16Array | Uint32Array) {
    this.#ids = ids;
  }

  get length(): number {
    return this.#ids.length;
  }

  async read(offset: number, out: Int32Array): Promise<void> {
    out.set(this.#ids.subarray(offset, offset + out.length));
  }
}

/** Which ids a vocabulary has; a tokenizer is one. */
export interface Vocabulary {
  /** V: ids are below. */
  readonly vocabSize: number;
  /** Is there a token of this id? Default: of all. */
  has?(id: number): boolean;
}

/** Ids that are read at once when a whole file is. */
const pieceIds = 1 << 20;

/** A token file that stays open. */
export class TokenFile implements Tokens {
  readonly path: string;
  readonly length: number;
  readonly format: TokenFormat;
  readonly #file: ReadableFile;
  readonly #vocabSize: number;
  /** For each id below V whether it is a token; undefined where all are. */
  readonly #present: Uint8Array | undefined;

  private constructor(file: ReadableFile, format: TokenFormat, vocabulary: Vocabulary) {
    this.path = file.path;
    this.length = format.length;
    this.format = format;
    this.#file = file;
    this.#vocabSize = vocabulary.vocabSize;
    const present = Uint8Array.from({ length: this.#vocabSize }, (_, id) => Number(vocabulary.has?.(id) ?? true));
    if (present.includes(0)) this.#present = present;
  }

  /**
   * @param width of an id, where a description states it; else it is found out
   * @throws ConfigError where the file is missing or not of a form that is read
   */
  static async open(where: string | ReadableFile, vocabulary: Vocabulary, width?: 2 | 4): Promise<TokenFile> {
    const file = typeof where === "string" ? await StoredFile.open(where) : where;
    try {
      return new TokenFile(file, await formatOf(file, vocabulary.vocabSize, width), vocabulary);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  async read(offset: number, out: Int32Array): Promise<void> {
    const raw = await this.#raw(offset, out.length);
    this.#check(raw, offset);
    out.set(raw);
  }

  /**
   * Read the whole file piece by piece: check every id and feed it to a digest, in the vocabulary's own width, so that
   * the digest does not depend on the file's form.
   */
  async addTo(digest: Hash): Promise<void> {
    for (let offset = 0; offset < this.length; offset += pieceIds) {
      const raw = await this.#raw(offset, Math.min(pieceIds, this.length - offset));
      this.#check(raw, offset);
      const own = tokenArray(this.#vocabSize, 0);
      if (raw.BYTES_PER_ELEMENT === own.BYTES_PER_ELEMENT) digest.update(raw);
      else {
        const narrow = tokenArray(this.#vocabSize, raw.length);
        narrow.set(raw);
        digest.update(narrow);
      }
    }
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  async #raw(offset: number, length: number): Promise<Uint16Array | Uint32Array> {
    const { width, start } = this.format;
    const raw = width === 2 ? new Uint16Array(length) : new Uint32Array(length);
    await this.#file.read(new Uint8Array(raw.buffer), start + width * offset);
    return raw;
  }

  #check(raw: Uint16Array | Uint32Array, offset: number): void {
    const vocabSize = this.#vocabSize;
    const present = this.#present;
    for (let i = 0; i < raw.length; i++) {
      const id = raw[i]!;
      if (id < vocabSize && (!present || present[id])) continue;
      const what =
        id < vocabSize ? "an id without a token" : `outside the vocabulary of ${vocabSize.toLocaleString("en")}`;
      throw new ConfigError(
        `${this.path}: token ${offset + i} is ${id}, ${what}; the file (read as ${this.format.name}) is damaged, ` +
          "or was made with another tokenizer",
      );
    }
  }
}

/** Ids that are gathered before they go to the disk: documents may be short. */
const writtenIds = 1 << 18;

/** Writes a token file. */
export class TokenWriter {
  readonly #path: string;
  readonly #file: FileHandle;
  readonly #held: Uint16Array<ArrayBuffer> | Uint32Array<ArrayBuffer>;
  #heldLength = 0;
  #length = 0;

  private constructor(path: string, file: FileHandle, vocabSize: number) {
    this.#path = path;
    this.#file = file;
    this.#held = tokenArray(vocabSize, writtenIds);
  }

  static async create(path: string, vocabSize: number): Promise<TokenWriter> {
    return new TokenWriter(path, await onDisk(path, "written", () => open(path, "w")), vocabSize);
  }

  /** Tokens written so far. */
  get length(): number {
    return this.#length;
  }

  async write(ids: Int32Array): Promise<void> {
    for (let done = 0; done < ids.length; ) {
      const part = ids.subarray(done, done + writtenIds - this.#heldLength);
      this.#held.set(part, this.#heldLength);
      this.#heldLength += part.length;
      done += part.length;
      if (this.#heldLength === writtenIds) await this.#flush();
    }
    this.#length += ids.length;
  }

  async #flush(): Promise<void> {
    const bytes = new Uint8Array(this.#held.buffer, 0, this.#heldLength * this.#held.BYTES_PER_ELEMENT);
    this.#heldLength = 0;
    await onDisk(this.#path, "written", () => this.#file.writeFile(bytes));
  }

  /** Flush to the disk and close. */
  async close(): Promise<void> {
    try {
      if (this.#heldLength > 0) await this.#flush();
      await onDisk(this.#path, "written", () => this.#file.sync());
    } finally {
      await this.#file.close();
    }
  }
}
