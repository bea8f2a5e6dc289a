// A run's folder in memory: what outlives a coordinator that is killed, and nothing else does.
import type { RunArchive } from "../../coordinator/archive.ts";
import type { Quarantined } from "../../coordinator/crew/quarantine.ts";
import type { LedgerEntry, LedgerPosition } from "../../coordinator/ledger.ts";
import type { RunSetup } from "../../coordinator/loop.ts";
import { type ChainLine, standingSteps, type Undone } from "../../coordinator/proof/chain.ts";
import type { Snapshot } from "../../shared/checkpoint/checkpoint.ts";
import type { Process, Time } from "./time.ts";

/** A step with the virtual milliseconds of its writing, or steps that were taken back. */
export type Line = (LedgerEntry & { readonly at: number }) | { readonly undone: Undone };

function chained(line: Line): ChainLine {
  const common = { number: 0, bytes: Buffer.alloc(0), hash: "", previous: "" };
  return "step" in line
    ? ({ ...common, kind: "step", entry: line } as unknown as ChainLine)
    : { ...common, kind: "undone", undone: line.undone };
}

export class Disk {
  lines: Line[] = [];
  quarantined: readonly Quarantined[] = [];
  /** By step. */
  readonly checkpoints = new Map<number, Snapshot>();
  /** Nothing can be written. */
  isFull = false;
  readonly #time: Time;
  /** Milliseconds of writing a checkpoint. */
  readonly #writeMs: number;
  /** Newest lines of the ledger that are kept, for worlds of which only memory is looked at. */
  readonly #keeps: number;

  constructor(time: Time, writeMs: number, keeps: number) {
    this.#time = time;
    this.#writeMs = writeMs;
    this.#keeps = keeps;
  }

  get newest(): Snapshot | undefined {
    return this.checkpoints.get(Math.max(-1, ...this.checkpoints.keys()));
  }

  /** Steps that were not taken back. */
  get steps(): (LedgerEntry & { readonly at: number })[] {
    const kept = new Set<object>(standingSteps(this.lines.map(chained)));
    return this.lines.flatMap((line) => ("step" in line && kept.has(line) ? [line] : []));
  }

  /** The ledger of one coordinator, which cuts off what stands after its position. As the real one does, it keeps in memory what a full disk does not take. */
  ledger(process: Process, position: LedgerPosition): RunSetup["ledger"] {
    let lines = position.lines;
    let waiting: Line[] = [];
    let isCut = false;
    const known = () => (isCut ? this.lines : this.lines.slice(0, position.lines));
    const flush = () => {
      if (this.isFull || !process.isAlive) return;
      if (!isCut) this.lines.length = Math.min(this.lines.length, position.lines);
      isCut = true;
      this.lines.push(...waiting);
      if (this.lines.length > this.#keeps) this.lines.splice(0, this.lines.length - this.#keeps);
      waiting = [];
    };
    return {
      get position() {
        return { lines, head: String(lines) };
      },
      append: async (entry) => {
        lines++;
        waiting.push({ ...entry, at: this.#time.now });
        flush();
      },
      undo: async (undone) => {
        lines++;
        waiting.push({ undone });
        flush();
      },
      lines: async function* () {
        for (const line of [...known(), ...waiting]) yield chained(line);
      },
      sync: async () => flush(),
      close: async () => flush(),
    };
  }

  /** @param onDisk is asked whether the ledger's lines that lead to a snapshot are there */
  archive(process: Process): RunArchive {
    let newest = -1;
    let failed = false;
    let writing: Promise<void> = Promise.resolve();
    let best: number | undefined;
    return {
      shelf: { list: () => [], find: () => undefined },
      get best() {
        return best;
      },
      get newest() {
        return newest;
      },
      get trouble() {
        return failed ? "the disk is full" : undefined;
      },
      freeBytes: null,
      owes: () => failed && !this.isFull,
      forgetAfter: async (step) => {
        for (const later of [...this.checkpoints.keys()]) if (later > step) this.checkpoints.delete(later);
        newest = step;
        failed = false;
        const losses = [...this.checkpoints.values()].flatMap(({ state }) => state.valLossNats ?? []);
        best = losses.length > 0 ? Math.min(...losses) : undefined;
      },
      refresh: async () => {},
      saveCurves: async () => {},
      whenWritten: () => writing,
      write: async (snapshot, _isFinal, syncLedger) => {
        await writing;
        const before = newest;
        newest = snapshot.state.step;
        writing = (async () => {
          await new Promise<void>((resolve) => {
            process.clock.after(this.#writeMs, resolve);
          });
          await syncLedger();
          failed = this.isFull;
          if (failed) newest = before;
          else if (process.isAlive) {
            this.checkpoints.set(snapshot.state.step, snapshot);
            const { valLossNats } = snapshot.state;
            if (valLossNats !== undefined && valLossNats < (best ?? Number.POSITIVE_INFINITY)) best = valLossNats;
          }
        })();
        writing.catch(() => {});
      },
    } as RunArchive;
  }
}
