// How long a worker takes for what it is given, as measured: a part that grows with it and a part that does not. Over a slow
// link the second is most of it, and says nothing of how much a worker can be given.

export interface Pace {
  /** Of an answer, beside computing: its way and the lease's, the sum. */
  readonly overheadSeconds: number;
  /** Units computed in a second. */
  readonly unitsPerSecond: number;
  /** The last answer was taken for a stall: one more like it is no stall. */
  readonly isStalled?: boolean;
}

export function secondsOf({ overheadSeconds, unitsPerSecond }: Pace, units: number): number {
  return overheadSeconds + units / unitsPerSecond;
}

/** How long a holder that says nothing is let keep so many units. @param leaseMs what any lease is given, of slow links too */
export function longestHeldMs(leaseMs: number, pace: Pace | undefined, units: number): number {
  return leaseMs + (pace ? 10_000 * secondsOf(pace, units) : 0);
}

/** What no answer and no computing takes less than. */
const shortestSeconds = 1e-4;
/** So many times what was expected is a stall. */
const stall = 4;
/** Weight of the newest answer in the smoothed pace. */
const smoothing = 0.3;

/**
 * The pace after one more answer. One that took many times as long as was expected is a stall, and the next should not be
 * waited for so long; a second in a row is a pace that has changed, and has to be learned soon.
 * @param seconds that it took
 * @param computeSeconds of them, by its worker's own word, which can only divide what was measured. Nothing where it was
 * cancelled, perhaps before its answer was sent: divided as before then, and not by any chance of its end a new pace.
 */
export function paceAfter(before: Pace | undefined, units: number, seconds: number, computeSeconds?: number): Pace {
  const measured = Math.max(shortestSeconds, seconds);
  if (!before) return smoothed(units, measured, computeSeconds ?? measured);
  const expected = secondsOf(before, units);
  const isStalled = measured > stall * expected && !before.isStalled;
  let whole = isStalled ? stall * expected : measured;
  if (computeSeconds === undefined) whole = Math.max(whole, expected / stall);
  const share = computeSeconds === undefined ? units / before.unitsPerSecond / expected : computeSeconds / measured;
  return { ...smoothed(units, whole, share * whole, before), ...(isStalled && { isStalled }) };
}

function smoothed(units: number, whole: number, said: number, before?: Pace): Pace {
  const computing = Math.min(whole, Math.max(shortestSeconds, said));
  const weight = before?.isStalled ? 2 * smoothing : smoothing;
  const smooth = (value: number, old = value) => old + weight * (value - old);
  return {
    overheadSeconds: smooth(whole - computing, before?.overheadSeconds),
    unitsPerSecond: smooth(units / computing, before?.unitsPerSecond),
  };
}
