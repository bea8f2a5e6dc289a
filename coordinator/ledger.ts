// The ledger: one line a step in ledger.jsonl with who computed what and what came out, chained to the line before by
// its SHA-256. Each shard of each step stands in it exactly once; a checkpoint remembers how long the ledger was.
import { createHash } from "node:crypto";
import { constants, createReadStream } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { ConfigError, messageOf } from "../shared/errors.ts";

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

/** Where the ledger stands: its number of lines, and the SHA-256 of the last one, which the next one names. */
export interface LedgerPosition {
  readonly lines: number;
  readonly head: string;
}

export const ledgerStart: LedgerPosition = { lines: 0, head: "0".repeat(64) };

export class Ledger {
  readonly #file: FileHandle;
  #bytes: number;
  #position: LedgerPosition;
  #isCut = false;

  private constructor(file: FileHandle, bytes: number, position: LedgerPosition) {
    this.#file = file;
    this.#bytes = bytes;
    this.#position = position;
  }

  get position(): LedgerPosition {
    return this.#position;
  }

  /**
   * Open the ledger of a run directory at a position. What stands after it belongs to steps that will be done again, to
   * the same bits, and is cut off by the first append.
   * @throws ConfigError if the chain of lines up to the position is broken or too short
   */
  static async open(runDir: string, position: LedgerPosition): Promise<Ledger> {
    const path = join(runDir, "ledger.jsonl");
    const bytes = position.lines === 0 ? 0 : await provenLength(path, position);
    const file = await open(path, constants.O_RDWR | constants.O_CREAT).catch((error: NodeJS.ErrnoException) => {
      throw new ConfigError(`${path}: cannot be opened (${error.code})`, { cause: error });
    });
    return new Ledger(file, bytes, position);
  }

  async append(entry: LedgerEntry): Promise<void> {
    // Not before there is something to say: a start that fails must leave another process's ledger alone.
    if (!this.#isCut) await this.#file.truncate(this.#bytes);
    this.#isCut = true;
    const line = `${JSON.stringify({ ...entry, previous: this.#position.head })}\n`;
    await this.#file.write(line, this.#bytes);
    this.#bytes += Buffer.byteLength(line);
    this.#position = { lines: this.#position.lines + 1, head: hashOf(line) };
  }

  /** Make sure that what was appended survives a power cut. */
  async sync(): Promise<void> {
    await this.#file.datasync();
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}

/** Bytes of the first `lines` lines, each of which must name the one before it, the last being `head`. */
async function provenLength(path: string, { lines, head }: LedgerPosition): Promise<number> {
  let bytes = 0;
  let count = 0;
  let previous = ledgerStart.head;
  try {
    for await (const text of createInterface({ input: createReadStream(path) })) {
      const line = `${text}\n`;
      if (JSON.parse(text).previous !== previous)
        throw new ConfigError(`${path}: line ${count + 1} does not follow from the line before it`);
      previous = hashOf(line);
      bytes += Buffer.byteLength(line);
      if (++count === lines) break;
    }
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    throw new ConfigError(`${path}: cannot be read up to line ${lines}: ${messageOf(error)}`, { cause: error });
  }
  if (count < lines) throw new ConfigError(`${path}: ${count} lines, the checkpoint was written after ${lines}`);
  if (previous !== head) throw new ConfigError(`${path}: line ${lines} is not the one that the checkpoint names`);
  return bytes;
}

function hashOf(line: string): string {
  return createHash("sha256").update(line).digest("hex");
}
