// The ledger: one line a step in ledger.jsonl with who computed what and what came out, chained to the line before by
// its SHA-256. Each shard of each step stands in it exactly once; a checkpoint remembers how long the ledger was.
import { createHash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import { ConfigError } from "../shared/errors.ts";

export interface LedgerEntry {
  /** 1-based: the number of updates after this step. */
  readonly step: number;
  /** Every part of the batch once: its shards, who gave the answer that counted, and how many leases of it there were. */
  readonly parts: readonly { shards: string; worker: string; leases: number }[];
  readonly lossNats: number;
  readonly gradientNorm: number;
  readonly learningRate: number;
  /** Digest of the weights after the step. */
  readonly weights: string;
}

/** Where the ledger stood: its length, and the hash that the next line names. */
export interface LedgerPosition {
  readonly bytes: number;
  readonly head: string;
}

export const ledgerStart: LedgerPosition = { bytes: 0, head: "0".repeat(64) };

export class Ledger {
  readonly #file: FileHandle;
  #position: LedgerPosition;

  private constructor(file: FileHandle, position: LedgerPosition) {
    this.#file = file;
    this.#position = position;
  }

  get position(): LedgerPosition {
    return this.#position;
  }

  /**
   * Open the ledger of a run directory at a position. What stands after it belongs to steps that will be done again, to
   * the same bits, and is cut off.
   * @throws ConfigError if the ledger is shorter than the position, or its last line is not the one that it names
   */
  static async open(runDir: string, position: LedgerPosition): Promise<Ledger> {
    const path = join(runDir, "ledger.jsonl");
    const file = await open(path, position.bytes === 0 ? "w+" : "r+").catch((error: NodeJS.ErrnoException) => {
      throw new ConfigError(`${path}: cannot be opened (${error.code})`, { cause: error });
    });
    try {
      const { size } = await file.stat();
      if (size < position.bytes)
        throw new ConfigError(`${path}: ${size} bytes long, but ${position.bytes} when the checkpoint was written`);
      if (position.bytes > 0 && hashOf(await lastLine(file, position.bytes)) !== position.head)
        throw new ConfigError(`${path}: the line that ends at byte ${position.bytes} is not the checkpoint's`);
      await file.truncate(position.bytes);
      return new Ledger(file, position);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  async append(entry: LedgerEntry): Promise<void> {
    const line = `${JSON.stringify({ ...entry, previous: this.#position.head })}\n`;
    await this.#file.write(line, this.#position.bytes);
    this.#position = { bytes: this.#position.bytes + Buffer.byteLength(line), head: hashOf(line) };
  }

  /** Make sure that what was appended survives a power cut. */
  async sync(): Promise<void> {
    await this.#file.datasync();
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}

async function lastLine(file: FileHandle, end: number): Promise<string> {
  // A line names every part of a batch: 65,536 shards of one worker each would be about 4 MiB.
  const tail = Buffer.alloc(Math.min(end, 8 * 2 ** 20));
  await file.read(tail, 0, tail.length, end - tail.length);
  return tail.subarray(tail.lastIndexOf("\n", -2) + 1).toString();
}

function hashOf(line: string): string {
  return createHash("sha256").update(line).digest("hex");
}
