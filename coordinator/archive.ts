// Checkpoints beside training: a copy of the run's state is written while the next steps go on, one at a time, the
// newest and the marked ones are kept.
import { statfs } from "node:fs/promises";
import { type Snapshot, writeCheckpoint } from "../shared/checkpoint/checkpoint.ts";
import { forgetAfter, mark, prune } from "../shared/checkpoint/rundir.ts";
import type { Clock } from "../shared/clock.ts";
import { diskError } from "../shared/disk.ts";
import { ConfigError, messageOf } from "../shared/errors.ts";
import type { Journal } from "./journal.ts";
import type { Mirror } from "./mirror.ts";
import { type Past, writePast } from "./past.ts";
import { CheckpointShelf } from "./shelf.ts";

/** A disk that refused a checkpoint is not asked at every step. */
const retryMs = 10_000;

/** Where a run leaves what it goes on from: its folder, or a simulated disk. */
export type RunArchive = Omit<Archive, "shelf"> & { readonly shelf: Pick<CheckpointShelf, "list" | "find"> };

export class Archive {
  readonly shelf: CheckpointShelf;
  /** Lowest validation loss of a checkpoint, in nats. */
  best: number | undefined;
  readonly #runDir: string;
  readonly #keep: number;
  readonly #journal: Journal;
  readonly #clock: Clock;
  readonly #mirror: Mirror | undefined;
  #writing: Promise<void> = Promise.resolve();
  #newest = -1;
  #freeBytes: number | null = null;
  #looking: Promise<void> | undefined;
  /** Why the last write failed, and when it may be tried again. */
  #failed: { readonly why: ConfigError; readonly retryAt: number } | undefined;

  /** @param best validation loss of the best checkpoint so far, of a run that is resumed */
  constructor(runDir: string, keep: number, journal: Journal, clock: Clock, best?: number, mirror?: Mirror) {
    this.#runDir = runDir;
    this.#keep = keep;
    this.#journal = journal;
    this.#clock = clock;
    this.best = best;
    this.#mirror = mirror;
    this.shelf = new CheckpointShelf(runDir);
  }

  /** Why the newest state is not on the disk; undefined where it is. */
  get trouble(): string | undefined {
    return this.#failed?.why.message;
  }

  /** Bytes free on the disk of the run's folder when this was last asked, and looks again; null at first. */
  get freeBytes(): number | null {
    this.#looking ??= statfs(this.#runDir)
      .then(({ bavail, bsize }) => bavail * bsize)
      .catch(() => null) // a folder that is gone has no number
      .then((bytes) => {
        this.#freeBytes = bytes;
        this.#looking = undefined;
      });
    return this.#freeBytes;
  }

  /** Is a write that failed to be tried again, with the state as it is by then? */
  owes(): boolean {
    return this.#failed !== undefined && this.#clock.now() >= this.#failed.retryAt;
  }

  /** Step of the newest checkpoint of this process; -1 before the first. */
  get newest(): number {
    return this.#newest;
  }

  /**
   * Write a checkpoint once the one before is on disk. A disk that refuses it is told aloud and does not stop the run:
   * the checkpoints before stay, and owes() says when to try again.
   * @param snapshot copies, which nobody changes any more
   * @param syncLedger brings the lines that lead to the snapshot to the disk first
   * @returns when the write has begun, so that at most two copies exist; whenWritten() waits for its end
   * @throws what the write before threw that no disk can do
   */
  async write(snapshot: Snapshot, isFinal: boolean, syncLedger: () => Promise<void>): Promise<void> {
    await this.#writing;
    const { step } = snapshot.state;
    const before = this.#newest;
    this.#newest = step;
    this.#writing = (async () => {
      try {
        await syncLedger();
        await this.#write(snapshot, isFinal);
        this.#failed = undefined;
      } catch (raw) {
        const error = diskError(raw);
        if (!(error instanceof ConfigError)) throw error;
        this.#newest = before;
        this.#failed = { why: error, retryAt: this.#clock.now() + retryMs };
        this.#journal.log.error({ step }, `the checkpoint of step ${step} is not written: ${error.message}`);
      }
    })();
    // Whoever waits for it sees the error; until then it must not count as unhandled.
    this.#writing.catch(() => {});
  }

  async whenWritten(): Promise<void> {
    await this.#writing;
  }

  /** The run goes back to this step: nothing that came after it may be gone on from. */
  async forgetAfter(step: number): Promise<void> {
    await this.#writing;
    this.best = (await forgetAfter(this.#runDir, step)).best?.valLossNats;
    this.#newest = step;
    this.#failed = undefined;
    this.#mirror?.forgetAfter(step);
    await this.refresh();
  }

  /** The curves beside the checkpoint that they lead to; only what the page shows depends on them. */
  async saveCurves(past: Past): Promise<void> {
    await writePast(this.#runDir, past).catch((error) =>
      this.#journal.log.warn(`the curves for the page could not be saved: ${messageOf(error)}`),
    );
  }

  async refresh(): Promise<void> {
    await this.shelf.refresh((why) => this.#journal.log.warn(why));
    this.#mirror?.changed();
  }

  async #write(snapshot: Snapshot, isFinal: boolean): Promise<void> {
    const path = await writeCheckpoint(this.#runDir, snapshot);
    const { step, valLossNats } = snapshot.state;
    const isBest = valLossNats !== undefined && valLossNats < (this.best ?? Number.POSITIVE_INFINITY);
    if (isBest) this.best = valLossNats;
    await mark(this.#runDir, {
      ...(isBest && { best: { step, valLossNats } }),
      // A run that was lengthened has no final checkpoint any more, until it ends again.
      final: isFinal ? { step } : undefined,
    });
    await prune(this.#runDir, this.#keep, {
      inUse: this.#mirror?.uploading,
      onSkip: (why) => this.#journal.log.warn(why),
    });
    await this.refresh();
    this.#journal.tell("checkpoint", `checkpoint ${path}`, { step, path, best: isBest, final: isFinal });
  }
}
