// How long a worker takes for what it is given, as measured: a part that grows with it and a part that does not. Over a slow
// link the second is most of it, and says nothing of how much a worker can be given.

export interface Pace {
  /** Of an answer, beside computing: its way and the lease's, the sum. */
  readonly overheadSeconds: number;
  /** Units computed in a second. */
  readonly unitsPerSecond: number;
}

export function secondsOf({ overheadSeconds, unitsPerSecond }: Pace, units: number): number {
  return overheadSeconds + units / unitsPerSecond;
}

/** What no answer and no computing takes less than. */
const shortestSeconds = 1e-4;
/** Weight of the newest answer in the smoothed pace. */
const smoothing = 0.3;

/**
 * The pace after one more answer.
 * @param seconds that it took
 * @param computeSeconds of them, by its worker's own word, which can only divide what was measured; of what it does not say,
 * all but the overhead so far
 */
export function paceAfter(
  before: Pace | undefined,
  units: number,
  seconds: number,
  computeSeconds = seconds - (before?.overheadSeconds ?? 0),
): Pace {
  const whole = Math.max(shortestSeconds, seconds);
  const computing = Math.min(whole, Math.max(shortestSeconds, computeSeconds));
  const smooth = (value: number, old = value) => old + smoothing * (value - old);
  return {
    overheadSeconds: smooth(whole - computing, before?.overheadSeconds),
    unitsPerSecond: smooth(units / computing, before?.unitsPerSecond),
  };
}
