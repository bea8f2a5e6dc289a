// Checkpoints beside training: a copy of the run's state is written while the next steps go on, one at a time, the
// newest and the marked ones are kept.
import { type Snapshot, writeCheckpoint } from "../shared/checkpoint/checkpoint.ts";
import { mark, prune } from "../shared/checkpoint/rundir.ts";
import type { Journal } from "./journal.ts";
import { CheckpointShelf } from "./shelf.ts";

export class Archive {
  readonly shelf: CheckpointShelf;
  /** Lowest validation loss of a checkpoint, in nats. */
  best: number | undefined;
  readonly #runDir: string;
  readonly #keep: number;
  readonly #journal: Journal;
  #writing: Promise<void> = Promise.resolve();
  #newest = -1;

  /** @param best validation loss of the best checkpoint so far, of a run that is resumed */
  constructor(runDir: string, keep: number, journal: Journal, best?: number) {
    this.#runDir = runDir;
    this.#keep = keep;
    this.#journal = journal;
    this.best = best;
    this.shelf = new CheckpointShelf(runDir);
  }

  /** Step of the newest checkpoint of this process; -1 before the first. */
  get newest(): number {
    return this.#newest;
  }

  /**
   * Write a checkpoint once the one before is on disk.
   * @param snapshot copies, which nobody changes any more
   * @returns when the write has begun, so that at most two copies exist; whenWritten() waits for its end
   * @throws what the write before threw
   */
  async write(snapshot: Snapshot, isFinal: boolean): Promise<void> {
    await this.#writing;
    this.#newest = snapshot.state.step;
    this.#writing = this.#write(snapshot, isFinal);
    // Whoever waits for it sees the error; until then it must not count as unhandled.
    this.#writing.catch(() => {});
  }

  async whenWritten(): Promise<void> {
    await this.#writing;
  }

  async refresh(): Promise<void> {
    await this.shelf.refresh((why) => this.#journal.log.warn(why));
  }

  async #write(snapshot: Snapshot, isFinal: boolean): Promise<void> {
    const path = await writeCheckpoint(this.#runDir, snapshot);
    const { step, valLossNats } = snapshot.state;
    const isBest = valLossNats !== undefined && valLossNats < (this.best ?? Number.POSITIVE_INFINITY);
    if (isBest) this.best = valLossNats;
    await mark(this.#runDir, {
      ...(isBest && { best: { step, valLossNats } }),
      ...(isFinal && { final: { step } }),
    });
    await prune(this.#runDir, this.#keep);
    await this.refresh();
    this.#journal.tell("checkpoint", `checkpoint ${path}`, { step, path, best: isBest, final: isFinal });
  }
}
