// The ledger: one line a step in ledger.jsonl with who computed what and what came out, chained to the line before by
// its SHA-256. Each shard of each step stands in it exactly once; a checkpoint remembers how long the ledger was.
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import { diskError } from "../shared/disk.ts";
import { ConfigError } from "../shared/errors.ts";
import { isAbsent } from "../shared/json.ts";
import type { PartRecord } from "./crew/work.ts";
import type { RunLock } from "./lock.ts";
import { type ChainLine, chainStart, hashOf, ledgerName, linesOf, type Undone } from "./proof/chain.ts";

export interface LedgerEntry {
  /** 1-based: the number of steps done by then. */
  readonly step: number;
  /** How many steps up to it were done together, where it is more than one. */
  readonly steps?: number;
  /** Every part of the batch, or batches, once: its shards, who gave the answer that counted, and how many leases of it there were. */
  readonly parts: readonly PartRecord[];
  readonly lossNats: number;
  readonly gradientNorm: number;
  readonly learningRate: number;
  /** Digest of the weights after the step. */
  readonly weights: string;
}

/** Options that are other than before from a step on. */
export type Changes = Readonly<Record<string, { readonly from: unknown; readonly to: unknown }>>;

/** Where the ledger stands: its number of lines, and the SHA-256 of the last one, which the next one names. */
export interface LedgerPosition {
  readonly lines: number;
  readonly head: string;
}

export const ledgerStart: LedgerPosition = { lines: 0, head: chainStart };

/** Lines that wait for the disk: some hundred thousand steps. */
const mostWaitingBytes = 64 * 2 ** 20;

export interface LedgerOptions {
  /** The run's lock, which ends with its ledger. */
  readonly lock?: RunLock | undefined;
  /**
   * What is gone on from. A ledger whose lines up to the position are not there (of a pulled checkpoint, say) begins with
   * it; one that says behind the position that the run went back to it goes on behind that.
   */
  readonly begins?: { readonly step: number; readonly weights: string } | undefined;
  /** What holds for the steps after the position: a line of its own, before that of the next step. */
  readonly change?: { readonly after: number; readonly changes: Changes } | undefined;
  /** Hears that the disk refuses, once, and that it takes lines again. */
  readonly onTrouble?: (why: string) => void;
}

export class Ledger {
  readonly #path: string;
  readonly #file: FileHandle;
  readonly #onTrouble: (why: string) => void;
  readonly #lock: RunLock | undefined;
  /** Whole lines on the disk, and those that are to follow them. */
  #bytes: number;
  #waiting: Buffer = Buffer.alloc(0);
  #position: LedgerPosition;
  #isCut = false;
  #change: LedgerOptions["change"];
  #isRefused = false;
  #flushing: Promise<void> = Promise.resolve();

  private constructor(path: string, file: FileHandle, bytes: number, position: LedgerPosition, options: LedgerOptions) {
    this.#path = path;
    this.#file = file;
    this.#bytes = bytes;
    this.#position = position;
    this.#onTrouble = options.onTrouble ?? (() => {});
    this.#lock = options.lock;
    if (Object.keys(options.change?.changes ?? {}).length > 0) this.#change = options.change;
  }

  get position(): LedgerPosition {
    return this.#position;
  }

  /**
   * Open the ledger of a run directory at a position. What stands after it belongs to steps that will be done again, to
   * the same bits, and is cut off by the first append.
   * @throws ConfigError if the chain of lines up to the position is broken or too short
   */
  static async open(runDir: string, position: LedgerPosition, options: LedgerOptions = {}): Promise<Ledger> {
    const path = join(runDir, ledgerName);
    const found = await provenLength(path, runDir, position, options.begins);
    // A link would let one run write into another's ledger.
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW;
    const file = await open(path, flags).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "ELOOP") throw diskError(error, path, "written");
      throw new ConfigError(`${path} is a symbolic link; "weft audit ${runDir} --repair" puts the file in its place`);
    });
    if (found) {
      const { bytes, ...position } = found;
      return new Ledger(path, file, bytes, position, options);
    }
    const ledger = new Ledger(path, file, 0, ledgerStart, options);
    ledger.#add({ begins: options.begins });
    options.onTrouble?.(`${path} is not there: a new one begins with the weights after step ${options.begins!.step}`);
    return ledger;
  }

  /** A disk that takes nothing does not stop a run: the line waits for the next append. @throws ConfigError when too many wait */
  async append(entry: LedgerEntry): Promise<void> {
    const change = this.#change;
    this.#change = undefined;
    if (change) this.#add(change);
    this.#add(entry);
    await this.#write();
  }

  /** Steps do not count any more; the same steps follow again. @throws ConfigError as append() does */
  async undo(undone: Undone): Promise<void> {
    this.#add({ undone });
    await this.#write();
  }

  /** What is on the disk, without what a checkpoint that was resumed does not know. @throws ConfigError */
  async *lines(): AsyncGenerator<ChainLine> {
    await this.#flush();
    for await (const line of linesOf(this.#path)) {
      if (line.number > this.#position.lines) return;
      yield line;
    }
  }

  async #write(): Promise<void> {
    try {
      await this.#flush();
      if (this.#isRefused) this.#onTrouble(`${this.#path} is written again, nothing is lost`);
      this.#isRefused = false;
    } catch (error) {
      if (!(error instanceof ConfigError) || this.#waiting.length > mostWaitingBytes) throw error;
      if (!this.#isRefused) this.#onTrouble(`${error.message}; training goes on, its lines wait in memory`);
      this.#isRefused = true;
    }
  }

  /** Make sure that what was appended survives a power cut. @throws ConfigError */
  async sync(): Promise<void> {
    await this.#flush();
    await this.#file.datasync().catch((error) => {
      throw diskError(error, this.#path, "written");
    });
  }

  async close(): Promise<void> {
    try {
      if (this.#waiting.length > 0) await this.sync();
    } finally {
      await this.#file.close();
      await this.#lock?.release();
    }
  }

  #add(value: object): void {
    const line = `${JSON.stringify({ ...value, previous: this.#position.head })}\n`;
    this.#waiting = Buffer.concat([this.#waiting, Buffer.from(line)]);
    this.#position = { lines: this.#position.lines + 1, head: hashOf(line) };
  }

  /** One after another: sync() comes beside training. */
  #flush(): Promise<void> {
    const flushed = this.#flushing.then(() => this.#writeWaiting());
    this.#flushing = flushed.catch(() => {});
    return flushed;
  }

  async #writeWaiting(): Promise<void> {
    try {
      // Not before there is something to say: a start that fails must leave another process's ledger alone.
      if (!this.#isCut && this.#waiting.length > 0) {
        await this.#file.truncate(this.#bytes);
        this.#isCut = true;
      }
      while (this.#waiting.length > 0) {
        // A disk that is nearly full takes a part without an error.
        const { bytesWritten } = await this.#file.write(this.#waiting, 0, this.#waiting.length, this.#bytes);
        this.#bytes += bytesWritten;
        this.#waiting = this.#waiting.subarray(bytesWritten);
      }
    } catch (error) {
      throw diskError(error, this.#path, "written");
    }
  }
}

/**
 * Bytes of the first `lines` lines, each of which must name the one before it, the last being `head`; and of those behind
 * them up to the last that says that the run went back to where it goes on from.
 * @returns undefined where there is no ledger and none is needed
 */
async function provenLength(
  path: string,
  runDir: string,
  { lines, head }: LedgerPosition,
  begins: LedgerOptions["begins"],
): Promise<(LedgerPosition & { bytes: number }) | undefined> {
  const cure = `; "weft audit ${runDir} --repair" keeps what is proven`;
  let bytes = 0;
  let count = 0;
  let previous = ledgerStart.head;
  let found: (LedgerPosition & { bytes: number }) | undefined = lines === 0 ? { lines, head, bytes } : undefined;
  if (found && !begins) return found;
  try {
    for await (const line of linesOf(path)) {
      if (line.previous !== previous && count >= lines) break;
      if (line.previous !== previous)
        throw new ConfigError(`${path}: line ${count + 1} does not follow from the line before it${cure}`);
      previous = line.hash;
      bytes += line.bytes.length;
      count = line.number;
      const isBack =
        line.kind === "undone" && line.undone.to === begins?.step && line.undone.weights === begins.weights;
      if (count === lines || (found && isBack)) found = { lines: count, head: line.hash, bytes };
      if (count === lines && line.hash !== head) break;
    }
  } catch (error) {
    if (!isAbsent(error)) throw error;
    if (lines === 0) return found;
    if (begins) return undefined;
    throw error;
  }
  if (count < lines) throw new ConfigError(`${path}: ${count} lines, the checkpoint was written after ${lines}${cure}`);
  if (!found || (count === lines && previous !== head))
    throw new ConfigError(`${path}: line ${lines} is not the one that the checkpoint names${cure}`);
  return found;
}
