// Sequences of token ids, in memory or in a file: uint16 little-endian as nanoGPT writes them, uint32 where the
// vocabulary has more than 65,536 tokens. Files are read by offset, so they may be larger than memory.
import type { Hash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { ConfigError } from "../../shared/errors.ts";

/** Ids that can be read from any place. */
export interface Tokens {
  readonly length: number;
  /** Fill `out` with the ids from `offset` on; offset + out.length <= length. */
  read(offset: number, out: Int32Array): Promise<void>;
}

/** Bytes of one id in a file. */
export function widthOf(vocabSize: number): 2 | 4 {
  return vocabSize > 65_536 ? 4 : 2;
}

/** The narrowest array that holds the ids of a vocabulary. */
export function tokenArray(vocabSize: number, length: number): Uint16Array<ArrayBuffer> | Uint32Array<ArrayBuffer> {
  return widthOf(vocabSize) === 2 ? new Uint16Array(length) : new Uint32Array(length);
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

/** A token file that stays open. Ids are checked against the vocabulary as they are read. */
export class TokenFile implements Tokens {
  readonly path: string;
  readonly length: number;
  readonly #file: FileHandle;
  readonly #vocabSize: number;

  private constructor(path: string, file: FileHandle, length: number, vocabSize: number) {
    this.path = path;
    this.length = length;
    this.#file = file;
    this.#vocabSize = vocabSize;
  }

  /** @throws ConfigError where the file is missing or its length is no multiple of an id's */
  static async open(path: string, vocabSize: number): Promise<TokenFile> {
    const file = await open(path, "r").catch((error: NodeJS.ErrnoException) => {
      throw new ConfigError(`${path}: cannot be opened (${error.code})`, { cause: error });
    });
    const { size } = await file.stat();
    const width = widthOf(vocabSize);
    if (size % width === 0) return new TokenFile(path, file, size / width, vocabSize);
    await file.close();
    throw new ConfigError(
      `${path}: ${size} bytes is no multiple of ${width}, the bytes of a uint${8 * width} id; ` +
        "the file is cut short or is not a token file",
    );
  }

  async read(offset: number, out: Int32Array): Promise<void> {
    const raw = tokenArray(this.#vocabSize, out.length);
    await this.#fill(raw, offset);
    for (let i = 0; i < raw.length; i++) {
      const id = raw[i]!;
      if (id >= this.#vocabSize)
        throw new ConfigError(
          `${this.path}: token ${offset + i} is ${id}, outside the vocabulary of ${this.#vocabSize}; ` +
            "the file was made with another tokenizer",
        );
      out[i] = id;
    }
  }

  /** Feed the file's bytes to a digest, piece by piece. */
  async addTo(digest: Hash): Promise<void> {
    const piece = 1 << 20;
    for (let offset = 0; offset < this.length; offset += piece) {
      const raw = tokenArray(this.#vocabSize, Math.min(piece, this.length - offset));
      await this.#fill(raw, offset);
      digest.update(raw);
    }
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  async #fill(raw: Uint16Array<ArrayBuffer> | Uint32Array<ArrayBuffer>, offset: number): Promise<void> {
    const bytes = new Uint8Array(raw.buffer);
    let filled = 0;
    while (filled < bytes.length) {
      const position = offset * raw.BYTES_PER_ELEMENT + filled;
      const { bytesRead } = await this.#file.read(bytes, filled, bytes.length - filled, position);
      if (bytesRead === 0)
        throw new ConfigError(
          `${this.path}: ends at byte ${position}, had ${this.length * raw.BYTES_PER_ELEMENT} when it was opened; ` +
            "do not change the data during a run",
        );
      filled += bytesRead;
    }
  }
}

/** Writes a token file. */
export class TokenWriter {
  readonly #file: FileHandle;
  readonly #vocabSize: number;
  #length = 0;

  private constructor(file: FileHandle, vocabSize: number) {
    this.#file = file;
    this.#vocabSize = vocabSize;
  }

  static async create(path: string, vocabSize: number): Promise<TokenWriter> {
    return new TokenWriter(await open(path, "w"), vocabSize);
  }

  /** Tokens written so far. */
  get length(): number {
    return this.#length;
  }

  async write(ids: Int32Array): Promise<void> {
    const raw = tokenArray(this.#vocabSize, ids.length);
    raw.set(ids);
    await this.#file.writeFile(new Uint8Array(raw.buffer));
    this.#length += ids.length;
  }

  /** Cut the file off after `length` tokens. */
  async truncate(length: number): Promise<void> {
    await this.#file.truncate(length * widthOf(this.#vocabSize));
    this.#length = length;
  }

  /** Flush to the disk and close. */
  async close(): Promise<void> {
    try {
      await this.#file.sync();
    } finally {
      await this.#file.close();
    }
  }
}
