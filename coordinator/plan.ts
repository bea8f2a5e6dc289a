// Who gets which part of a step, and why. Everything here is a pure function of what is passed in, the time included:
// the loop acts on the decision, /status prints its reason, tests need no clock.
import { nodeName, type TreeNode } from "../shared/tree.ts";

/** A part of a step that a worker holds. */
export interface Lease extends TreeNode {
  readonly id: number;
  readonly worker: string;
  /** Milliseconds, of the clock that `now` comes from. */
  readonly grantedAt: number;
}

export interface WorkerView {
  readonly name: string;
  /** Units it computes in a second, measured; none before its first answer. */
  readonly unitsPerSecond?: number | undefined;
}

export interface StepView {
  /** Units of the step: shards, or groups of evaluation windows. */
  readonly units: number;
  /** Largest node of one lease: a power of two. */
  readonly largest: number;
  /** done[u]: the answer of unit u is in. */
  readonly done: readonly boolean[];
  /** What is out, in the order of granting. */
  readonly leases: readonly Lease[];
  /** Lateness that does not count, in milliseconds: the noise of a busy machine. */
  readonly graceMs: number;
}

export interface Grant extends TreeNode {
  /** The late lease that this one repeats. */
  readonly hedgeOf?: Lease;
}

/** Leases that a worker may hold: the second is there when the first is answered, so that it never waits for the wire. */
const leasesEach = 2;
/** A lease is late at this multiple of the time that its worker's measured speed gives it. */
const lateFactor = 2;

/** The lease that should go to `worker` next, if any; `why` is a sentence for people either way. */
export function nextLease(
  step: StepView,
  worker: WorkerView,
  workers: readonly WorkerView[],
  now: number,
): { grant?: Grant; why: string } {
  const held = step.leases.filter((lease) => lease.worker === worker.name);
  if (held.length >= leasesEach) return { why: `${worker.name} holds ${held.length} leases` };
  const open = firstOpen(step, fairShare(step, worker, workers));
  if (open) return { grant: open, why: `${nodeName(open)} was not leased yet` };
  if (held.length > 0) return { why: `${worker.name} is busy and nothing is open` };
  const late = latest(step, worker, workers, now);
  if (late)
    return {
      grant: { first: late.lease.first, count: late.lease.count, hedgeOf: late.lease },
      why: `hedging ${nodeName(late.lease)}: ${Math.round(late.lateMs)} ms late at ${late.lease.worker}`,
    };
  const out = step.leases.map((lease) => `${nodeName(lease)} at ${lease.worker}`);
  return { why: out.length ? `waiting for ${out.join(", ")}` : "every part is done" };
}

/** Milliseconds from now until the next lease is late; none when nothing is out or no speed is known. */
export function untilLate(step: StepView, workers: readonly WorkerView[], now: number): number | undefined {
  const waits = step.leases.map((lease) => -lateness(step, lease, workers, now)).filter((ms) => ms > 0);
  return waits.length ? Math.min(...waits) : undefined;
}

/** Largest power of two within the worker's share of the step by speed; one without a speed yet counts as average. */
function fairShare(step: StepView, worker: WorkerView, workers: readonly WorkerView[]): number {
  const known = knownSpeeds(workers);
  const average = known.length ? known.reduce((a, b) => a + b, 0) / known.length : 1;
  const total = workers.reduce((sum, w) => sum + (w.unitsPerSecond ?? average), 0);
  const share = (step.units * (worker.unitsPerSecond ?? average)) / total;
  // 3.3 of 8 units is still four: noise in the speeds of two equal workers must not halve their leases.
  return Math.min(step.largest, 2 ** Math.max(0, Math.floor(Math.log2(share * 1.25))));
}

/** The first aligned node of at most `size` units that is wholly open. */
function firstOpen(step: StepView, size: number): TreeNode | undefined {
  const taken = [...step.done];
  for (const { first, count } of step.leases) taken.fill(true, first, first + count);
  for (let count = size; count >= 1; count /= 2)
    for (let first = 0; first + count <= step.units; first += count)
      if (!taken.slice(first, first + count).includes(true)) return { first, count };
  return undefined;
}

/** The latest of the late leases that others hold and nobody repeats yet. */
function latest(step: StepView, worker: WorkerView, workers: readonly WorkerView[], now: number) {
  let found: { lease: Lease; lateMs: number } | undefined;
  for (const lease of step.leases) {
    const copies = step.leases.filter((other) => other.first === lease.first && other.count === lease.count);
    if (copies.length > 1 || lease.worker === worker.name) continue;
    const lateMs = lateness(step, lease, workers, now);
    if (lateMs > (found?.lateMs ?? 0)) found = { lease, lateMs };
  }
  return found;
}

/** Milliseconds past the time by which the lease should have been answered; negative when it is on time. */
function lateness(step: StepView, lease: Lease, workers: readonly WorkerView[], now: number): number {
  const speed =
    workers.find((w) => w.name === lease.worker)?.unitsPerSecond ?? Math.min(...knownSpeeds(workers), Infinity);
  if (speed === Infinity) return Number.NEGATIVE_INFINITY;
  const units = step.leases
    .filter((other) => other.worker === lease.worker && other.id <= lease.id)
    .reduce((sum, other) => sum + other.count, 0);
  return now - lease.grantedAt - (lateFactor * 1000 * units) / speed - step.graceMs;
}

function knownSpeeds(workers: readonly WorkerView[]): number[] {
  return workers.map((w) => w.unitsPerSecond).filter((speed) => speed !== undefined);
}
