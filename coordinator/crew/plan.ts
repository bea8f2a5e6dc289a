// Who gets which part of a step, and why. Everything here is a pure function of what is passed in, the time included:
// the loop acts on the decision, /status prints its reason, tests need no clock.
import { nodeName, type TreeNode } from "../../shared/arithmetic/tree.ts";

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
      why: `hedging ${nodeName(late.lease)}: ${Math.round(late.lateMs)} ms behind at ${late.lease.worker}`,
    };
  const out = step.leases.map((lease) => `${nodeName(lease)} at ${lease.worker}`);
  return { why: out.length ? `waiting for ${out.join(", ")}` : "every part is done" };
}

/** Milliseconds from now until the next lease is late; infinite when nothing is out or no speed is known. */
export function untilLate(step: StepView, workers: readonly WorkerView[], now: number): number {
  const waits = step.leases.map((lease) => -lateness(step, lease, workers, now)).filter((ms) => ms > 0);
  return Math.min(...waits, Number.POSITIVE_INFINITY);
}

/**
 * Largest power of two within the worker's share of the step by speed; one without a speed yet counts as average. At
 * least one unit stays for each other worker: whoever gets nothing would never be measured again.
 */
function fairShare(step: StepView, worker: WorkerView, workers: readonly WorkerView[]): number {
  const known = knownSpeeds(workers);
  const average = known.length ? known.reduce((a, b) => a + b, 0) / known.length : 1;
  const total = workers.reduce((sum, w) => sum + (w.unitsPerSecond ?? average), 0);
  const share = (step.units * (worker.unitsPerSecond ?? average)) / total;
  // 3.3 of 8 units is still four: noise in the speeds of two equal workers must not halve their leases.
  const most = Math.min(step.largest, share * 1.25, step.units - (workers.length - 1));
  return 2 ** Math.floor(Math.log2(Math.max(1, most)));
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

/** Of the leases that others hold and nobody repeats yet, the one that is most worth repeating here, if any is. */
function latest(step: StepView, worker: WorkerView, workers: readonly WorkerView[], now: number) {
  let found: { lease: Lease; lateMs: number } | undefined;
  for (const lease of step.leases) {
    const copies = step.leases.filter((other) => other.first === lease.first && other.count === lease.count);
    if (copies.length > 1 || lease.worker === worker.name) continue;
    const here = speedOf(worker, workers);
    const remainingMs = expectedMs(step, lease, workers) - (now - lease.grantedAt);
    // Worth it also when we should be done with it in half the time that its holder still needs.
    const slowerMs = here ? remainingMs - (lateFactor * 1000 * lease.count) / here - step.graceMs : -1;
    const lateMs = Math.max(lateness(step, lease, workers, now), slowerMs);
    if (lateMs > (found?.lateMs ?? 0)) found = { lease, lateMs };
  }
  return found;
}

/** Milliseconds past the time by which the lease should have been answered; negative when it is on time. */
function lateness(step: StepView, lease: Lease, workers: readonly WorkerView[], now: number): number {
  return now - lease.grantedAt - lateFactor * expectedMs(step, lease, workers) - step.graceMs;
}

/** From its granting to its answer, with what its worker held before it; infinite while no speed is known at all. */
function expectedMs(step: StepView, lease: Lease, workers: readonly WorkerView[]): number {
  const holder = workers.find((w) => w.name === lease.worker);
  const speed = speedOf(holder, workers);
  const units = step.leases
    .filter((other) => other.worker === lease.worker && other.id <= lease.id)
    .reduce((sum, other) => sum + other.count, 0);
  return speed ? (1000 * units) / speed : Number.POSITIVE_INFINITY;
}

/** Of a worker that has not been measured: that of the slowest one that has. */
function speedOf(worker: WorkerView | undefined, workers: readonly WorkerView[]): number | undefined {
  const known = knownSpeeds(workers);
  return worker?.unitsPerSecond ?? (known.length ? Math.min(...known) : undefined);
}

function knownSpeeds(workers: readonly WorkerView[]): number[] {
  return workers.map((w) => w.unitsPerSecond).filter((speed) => speed !== undefined);
}
