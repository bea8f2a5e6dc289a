// A file that is read by place: weights, tokens, tables. Whatever the disk or the file does is said in one line, and
// nothing that is no file (a pipe, a device) can make a reader wait for ever.
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { ConfigError } from "./errors.ts";

/** One read call takes at most 2 GiB. */
const pieceBytes = 2 ** 30;

/** What can be read from any place, wherever it lies. */
export interface ReadableFile {
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** Fill `out` with the bytes from `position` on. @throws ConfigError where the file ends before */
  read(out: Uint8Array, position: number): Promise<void>;
  close(): Promise<void>;
}

export class StoredFile implements ReadableFile {
  readonly path: string;
  /** Bytes, when it was opened. */
  readonly size: number;
  readonly #file: FileHandle;

  private constructor(path: string, size: number, file: FileHandle) {
    this.path = path;
    this.size = size;
    this.#file = file;
  }

  /** @throws ConfigError where it cannot be opened (the cause says why: see isAbsent) or is no file */
  static async open(path: string): Promise<StoredFile> {
    // Without O_NONBLOCK a pipe that nobody writes to would never open.
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch((error: NodeJS.ErrnoException) => {
      throw new ConfigError(`${path}: cannot be opened (${error.code})`, { cause: error });
    });
    const found = await file.stat();
    if (found.isFile()) return new StoredFile(path, found.size, file);
    await file.close();
    throw new ConfigError(`${path}: is a ${found.isDirectory() ? "folder" : "pipe or device"}, expected a file`);
  }

  /** Fill `out` with the bytes from `position` on. @throws ConfigError where the file ends before */
  async read(out: Uint8Array, position: number): Promise<void> {
    for (let done = 0; done < out.length; ) {
      const length = Math.min(pieceBytes, out.length - done);
      const { bytesRead } = await this.#file
        .read(out, done, length, position + done)
        .catch((error: NodeJS.ErrnoException) => {
          throw new ConfigError(`${this.path}: cannot be read at byte ${position + done} (${error.code})`, {
            cause: error,
          });
        });
      if (bytesRead === 0)
        throw new ConfigError(
          `${this.path}: cut short, or changed while it was read: bytes up to ${position + out.length} were expected, it had ${this.size}`,
        );
      done += bytesRead;
    }
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}
