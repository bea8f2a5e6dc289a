// Progress of a long command: a bar on a terminal, a line for each tenth elsewhere.
import { SingleBar } from "cli-progress";

export interface Progress {
  /** Bytes done of all. */
  show(done: number, total: number): void;
  /** A line that stays. */
  say(line: string): void;
  stop(): void;
}

/** @param what is being done, such as "pulling" */
export function progressOf(output: NodeJS.WriteStream, what: string): Progress {
  const bar = new SingleBar({
    format: `${what} {bar} {percentage}% | {done} of {whole} MB | {duration_formatted}, {eta_formatted} left`,
    stream: output,
    clearOnComplete: true,
    hideCursor: null,
  });
  let started = false;
  let tenths = 0;
  return {
    show: (done, total) => {
      if (output.isTTY) {
        const payload = { done: megabytes(done), whole: megabytes(total) };
        if (started) bar.update(done, payload);
        else bar.start(total, done, payload);
        started = true;
      } else if (Math.floor((10 * done) / total) > tenths) {
        tenths = Math.floor((10 * done) / total);
        output.write(`${what}: ${tenths * 10} % of ${megabytes(total)} MB\n`);
      }
    },
    say: (line) => void output.write(`${line}\n`),
    stop: () => bar.stop(),
  };
}

export function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(1);
}
