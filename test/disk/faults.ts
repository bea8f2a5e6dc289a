// The other side of failing.c: which call fails, and what came of it.
import { openSync, readSync, writeFileSync, writeSync } from "node:fs";
import { constants } from "node:os";

export interface Fault {
  /** Of the calls that touch the path, from 1 on. */
  readonly at: number;
  /** "short": a write takes half; where it lasts, the disk is full from then on. */
  readonly kind: "EIO" | "ENOSPC" | "EROFS" | "EACCES" | "short";
  /** All calls after it fail as well. */
  readonly lasting: boolean;
  /** A reading call; else one that changes something. */
  readonly reads: boolean;
}

const size = 4 * 6 + 496 + 512;
const [pathAt, whatAt] = [24, 520];

export class FailingDisk {
  readonly #file: number;

  /** @param path of a file that processes with failing.so know as WEFT_FAILING_DISK */
  constructor(path: string) {
    this.#file = openSync(path, "r+");
  }

  /** A file for both sides. @returns the path */
  static make(path: string): string {
    writeFileSync(path, Buffer.alloc(size));
    return path;
  }

  /** From now on: count the calls that touch the path, and let the fault happen. */
  begin(path: string, { at, kind, lasting, reads }: Fault): void {
    const bytes = Buffer.alloc(size);
    const code = kind === "short" ? 0 : constants.errno[kind];
    for (const [i, n] of [0, at, code, Number(lasting), Number(reads)].entries()) bytes.writeInt32LE(n, 4 * i);
    bytes.write(path, pathAt);
    writeSync(this.#file, bytes, 0, size, 0);
  }

  /** No more. @returns how many calls there were, and which failed, if one did */
  end(): { calls: number; failed: string | undefined } {
    const bytes = Buffer.alloc(size);
    readSync(this.#file, bytes, 0, size, 0);
    writeSync(this.#file, Buffer.alloc(1), 0, 1, pathAt);
    const what = bytes.toString("utf8", whatAt, bytes.indexOf(0, whatAt));
    return { calls: bytes.readInt32LE(0), failed: bytes.readInt32LE(20) ? what : undefined };
  }
}
