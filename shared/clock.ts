// Time, given from outside: whoever waits or measures asks a clock that it was handed. Programs hand out the system's;
// the simulator (test/simulator) hands out one that it turns itself, so that an hour of timeouts passes in a moment.
import { performance } from "node:perf_hooks";

export interface Timer {
  /** It will not act any more. */
  cancel(): void;
}

export interface Clock {
  /** Milliseconds since some moment in the past; never goes back. */
  now(): number;
  /** @param background true: it does not keep the process alive */
  after(ms: number, act: () => void, background?: boolean): Timer;
  /** Acts again and again; does not keep the process alive. */
  every(ms: number, act: () => void): Timer;
}

export const systemClock: Clock = {
  now: () => performance.now(),
  after(ms, act, background = false) {
    // setTimeout takes what does not fit into 31 bits for one millisecond.
    const timer = setTimeout(act, Math.min(ms, 2 ** 31 - 1));
    if (background) timer.unref();
    return { cancel: () => clearTimeout(timer) };
  },
  every(ms, act) {
    const timer = setInterval(act, ms).unref();
    return { cancel: () => clearInterval(timer) };
  },
};

/** Resolves after `ms`, or at once when the signal is aborted. */
export function sleep(clock: Clock, ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const end = () => {
      timer.cancel();
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = clock.after(ms, end);
    signal?.addEventListener("abort", end);
  });
}
