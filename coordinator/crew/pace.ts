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

/** What no answer and no computing takes less than, and what none longer than so many of its pace counts as. */
const shortestSeconds = 1e-4;
const longest = 4;
/** Weight of the newest answer in the smoothed pace. */
const smoothing = 0.3;

/**
 * The pace after one more answer. One that took many times as long as those before is a stall: a pace that really changes
 * is followed in a few answers, a stall must not make its worker be waited for.
 * @param seconds that it took
 * @param computeSeconds of them, by its worker's own word, which can only divide what was measured; divided as before where
 * it says nothing
 */
export function paceAfter(before: Pace | undefined, units: number, seconds: number, computeSeconds?: number): Pace {
  const expected = before ? secondsOf(before, units) : Number.POSITIVE_INFINITY;
  const whole = Math.min(Math.max(shortestSeconds, seconds), longest * expected);
  const said = computeSeconds ?? (before ? (whole * units) / before.unitsPerSecond / expected : whole);
  const computing = Math.min(whole, Math.max(shortestSeconds, said));
  const smooth = (value: number, old = value) => old + smoothing * (value - old);
  return {
    overheadSeconds: smooth(whole - computing, before?.overheadSeconds),
    unitsPerSecond: smooth(units / computing, before?.unitsPerSecond),
  };
}
