// Progress of a long command: a line that changes on a terminal, a line for each tenth elsewhere.
import { performance } from "node:perf_hooks";
import { durationText } from "./duration.ts";
import { bar, StatusLine } from "./status-line.ts";
import { onOneLine } from "./terminal.ts";

export interface Progress {
  /** Bytes done of all. */
  show(done: number, total: number): void;
  /** A line that stays. */
  say(line: string): void;
  stop(): void;
}

/** @param what is being done, such as "pulling" */
export function progressOf(output: NodeJS.WriteStream, what: string): Progress {
  const line = new StatusLine(output);
  let began: { at: number; done: number } | undefined;
  let tenths = 0;
  return {
    show: (done, total) => {
      if (output.isTTY) {
        began ??= { at: performance.now(), done };
        const seconds = (performance.now() - began.at) / 1000;
        const speed = seconds > 0 ? (done - began.done) / seconds : 0;
        line.show((columns) => transferLine(what, { done, total, speed }, columns));
      } else if (Math.floor((10 * done) / total) > tenths) {
        tenths = Math.floor((10 * done) / total);
        output.write(`${what}: ${tenths * 10} % of ${megabytes(total)} MB\n`);
      }
    },
    say: (text) => line.say(onOneLine(text)),
    stop: () => line.stop(false),
  };
}

/** @param speed bytes a second */
export function transferLine(
  what: string,
  { done, total, speed }: { done: number; total: number; speed: number },
  columns: number,
): string {
  const fraction = total > 0 ? done / total : 0;
  const amount = `${megabytes(done)} of ${megabytes(total)} MB`;
  const left = speed > 0 ? ` | ${megabytes(speed)} MB/s | ${durationText((total - done) / speed)} left` : "";
  const long = `${what} ${bar(fraction, 24)} ${Math.floor(100 * fraction)} % | ${amount}${left}`;
  return long.length <= columns ? long : `${what} ${Math.floor(100 * fraction)} %${left}`;
}

export function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(1);
}
