// The last line of a terminal: it changes in place, and sentences that stay are written above it. It is never as wide
// as the screen, so that it neither wraps nor scrolls, and the cursor is only ever moved within what it wrote itself:
// nothing is saved and restored, which scrolls away on a full screen.
import { performance } from "node:perf_hooks";

/** Draws between two of which at least so long passes. */
const drawEveryMs = 100;
/** Kept free at the right: a terminal that echoes ^C must not wrap the line. */
const margin = 4;

export interface Terminal {
  readonly columns?: number;
  write(text: string): unknown;
}

export class StatusLine {
  readonly #output: Terminal;
  readonly #now: () => number;
  #render: ((columns: number) => string) | undefined;
  /** What stands in the line now; empty: the cursor is at the start of a free line. */
  #shown = "";
  #drawnAt = Number.NEGATIVE_INFINITY;
  readonly #onExit = (): void => this.stop();

  constructor(output: Terminal, now: () => number = () => performance.now()) {
    this.#output = output;
    this.#now = now;
  }

  get #columns(): number {
    return this.#output.columns || 80;
  }

  /** Draw the line, unless it was just drawn; whatever is said or stopped next draws the newest. */
  show(render: (columns: number) => string): void {
    // Ended from outside, the line must still end before the shell's prompt.
    if (!this.#render) process.once("exit", this.#onExit);
    this.#render = render;
    if (this.#now() - this.#drawnAt >= drawEveryMs) this.#output.write(this.#erase() + this.#draw());
  }

  /** A sentence that stays, above the line. */
  say(text: string): void {
    this.#output.write(`${this.#erase()}${text}\n${this.#draw()}`);
  }

  /** @param keep leave the line, as it is now, and go on below it; else it is gone */
  stop(keep = true): void {
    if (!this.#render) return;
    this.#output.write(this.#erase() + (keep ? `${this.#draw()}\n` : ""));
    this.#shown = "";
    this.#render = undefined;
    process.removeListener("exit", this.#onExit);
  }

  /** From wherever its end is: a window that became narrower has wrapped it. */
  #erase(): string {
    if (this.#shown === "") return "";
    const rowsAbove = Math.ceil(this.#shown.length / this.#columns) - 1;
    this.#shown = "";
    return `${rowsAbove > 0 ? `\x1b[${rowsAbove}A` : ""}\r\x1b[J`;
  }

  #draw(): string {
    if (!this.#render) return "";
    const room = Math.max(1, this.#columns - margin);
    this.#shown = this.#render(room).slice(0, room);
    this.#drawnAt = this.#now();
    return this.#shown;
  }
}

/** "█████░░░" */
export function bar(fraction: number, width: number): string {
  const full = Math.round(Math.min(1, Math.max(0, fraction)) * width);
  return "█".repeat(full) + "░".repeat(width - full);
}
