// Who gets which part of a round, and why. Everything here is a pure function of what is passed in, the time included:
// the dispatcher acts on it, /status prints its reasons, tests need no clock.
//
// A unit may be taken when nobody who is on time holds it. So whatever a mute, slow or vanished worker holds is given to
// others once it is late, and while one worker that computes rightly is here, a round of U units ends within
//
//   the lateness of what others held   2 x what their pace gives + grace, or the fixed time where nobody's is known
//   + U x its own time for a unit, its way included
//
// after it has the weights. Who holds something overdue gets nothing more (it loses its turn), and who has let the others
// down too often computes only what somebody else computes as well (standing.ts), until it has answered in time again.
//
// Of units that take minutes their holders say how far they are: that counts for what is expected of them, and nobody is
// overdue who goes on. It does not put off the moment from which others may take the unit.
//
// Where answers wait for room (uploads.ts), the first unit that is not in makes it. Whoever waits may take it beyond its turn:
// its answer passes those that wait before it.
import { nodeName, type TreeNode } from "../../shared/arithmetic/tree.ts";
import type { Begun } from "./begun.ts";
import { Openings } from "./openings.ts";
import { type Pace, secondsOf } from "./pace.ts";

/** A part of a round that a worker holds. */
export interface Lease extends TreeNode {
  readonly id: number;
  readonly worker: string;
  /** Milliseconds, of the clock that `now` comes from. */
  readonly grantedAt: number;
  readonly arithmetic: string;
  /** Its answer counts when another has said the same. */
  readonly isDrawn: boolean;
  /** What others did of its one unit. */
  readonly begun?: Begun | undefined;
  /** Its answer is there and waits for room: no fault of its holder's. */
  waits?: boolean;
  /** What its holder last said of it; nothing where a lease is too short for that. */
  heard?: Heard;
}

/** How far a lease is. */
export interface Heard {
  readonly at: number;
  /** When its holder began with it. */
  readonly beganAt: number;
  /** Share that is computed, 0 to 1. */
  readonly share: number;
  /** Milliseconds until it is done with what it does, at the pace so far, and until the next word of it. */
  readonly leftMs: number;
  readonly nextMs: number;
}

/** A node that counts when two have said the same of this very node. */
export interface Awaited extends TreeNode {
  readonly arithmetic: string;
  /** Who has had his say. */
  readonly heard: ReadonlySet<string>;
  /** Answers that are still to come: two at first, one once it was answered. */
  readonly wanted: 1 | 2;
}

export interface WorkerView {
  readonly name: string;
  readonly arithmetic: string;
  /** It has the weights and takes leases. */
  readonly able: boolean;
  /** It goes on with what others have begun. */
  readonly takesOver?: boolean;
  /** None before its first answer. */
  readonly pace?: Pace | undefined;
  /** It gets only copies of what others hold, as long as there are others. */
  readonly onProbation?: boolean;
  /** When its oldest unanswered lease of an earlier round was granted: it gets nothing before it has answered. */
  readonly owesSince?: number | undefined;
}

export interface RoundView {
  /** Number of its first unit, for people: a part of a round begins within it. */
  readonly first?: number;
  /** Units of the round: shards, or groups of evaluation windows. */
  readonly units: number;
  /** Largest node of one lease: a power of two. */
  readonly largest: number;
  /** done[u]: the answer of unit u is in, counted or awaiting another's opinion. */
  readonly done: readonly boolean[];
  readonly awaited: readonly Awaited[];
  /** What is out, in the order of granting. */
  readonly leases: readonly Lease[];
  /** Units whose answer could not count, and who gave it: others are asked before them. */
  readonly refusals: ReadonlyMap<number, ReadonlySet<string>>;
  /** Units that somebody left in the middle, with their state. */
  readonly begun: ReadonlyMap<number, Begun>;
  /** Who takes no more leases, and still finishes those that it has, or gives them back. */
  readonly leaving: ReadonlySet<string>;
  /** Lateness that does not count, in milliseconds: the noise of a busy machine. */
  readonly graceMs: number;
  /** A lease is late after so long when no speed is known. */
  readonly unmeasuredMs: number;
  /** With --verify: does the i-th lease that is granted now, to this worker, count only when another says the same? */
  readonly draws?: ((i: number, worker: WorkerView) => boolean) | undefined;
}

export interface Grant extends TreeNode {
  readonly worker: string;
  readonly arithmetic: string;
  readonly isDrawn: boolean;
  /** What others did of its one unit, which it goes on from. */
  readonly begun: Begun | undefined;
  /** Somebody else holds units of it too. */
  readonly repeats: boolean;
  readonly why: string;
}

export interface Plan {
  readonly grants: readonly Grant[];
  /** Why nothing moves, as a sentence; null while somebody who is on time computes, or will. */
  readonly waitingFor: string | null;
  /** Milliseconds until the next lease is late; infinite when none can become it. */
  readonly nextLateMs: number;
  /** Leases that are late by what their own worker has shown, or by all patience: they count against it. */
  readonly overdue: readonly Lease[];
}

/** Leases that a worker may hold: the second is there when the first is answered, so that it never waits for the wire. */
const leasesEach = 2;
/** A lease is late at this multiple of the time that its worker's measured pace gives it. */
const lateFactor = 2;

/** What follows from one lease. */
interface Outlook {
  readonly lease: Lease;
  /** Late for the plan: its units may be taken by others. */
  readonly lateAt: number;
  /** Overdue: it counts against its holder. */
  readonly overdueAt: number;
  readonly expectedAt: number;
}

/** What should be given to whom now, the fastest first, a first lease for everyone before a second for anyone. */
export function planRound(round: RoundView, workers: readonly WorkerView[], now: number): Plan {
  const outlooks = outlooksOf(round, workers, now);
  const overdue = outlooks.filter(({ overdueAt }) => overdueAt <= now).map(({ lease }) => lease);
  const lazy = new Set(overdue.map(({ worker }) => worker));
  const sharing = workers.filter(({ name, owesSince }) => !lazy.has(name) && owesSince === undefined);
  const shares = sharesOf(round.units, sharing);
  const toCome = unitsToCome(round, sharing, shares);
  const weightOf = ({ name }: WorkerView) => shares.stakes.get(name)?.weight ?? 0;
  const turn = sharing
    .filter(({ able }) => able)
    .sort((a, b) => weightOf(b) - weightOf(a) || (a.name < b.name ? -1 : 1));
  const doubted = new Set(workers.filter(({ onProbation }) => onProbation).map(({ name }) => name));
  const deal = (proven: boolean): Grant[] => {
    const state = new PlanState(round, outlooks, now, proven ? doubted : new Set(), toCome);
    const grants: Grant[] = [];
    for (let pass = 0; pass < leasesEach; pass++)
      for (const worker of turn) {
        const grant = state.next(worker, proven, shares, pass);
        if (grant) grants.push(grant);
      }
    return grants;
  };
  let grants = deal(turn.some((worker) => !worker.onProbation));
  // Whoever is trusted may not be one who can help.
  if (grants.length === 0 && outlooks.every(({ lateAt }) => lateAt <= now)) grants = deal(false);
  const waits = outlooks.map(({ lateAt }) => lateAt - now).filter((ms) => ms > 0);
  const nextLateMs = waits.reduce((least, ms) => Math.min(least, ms), Number.POSITIVE_INFINITY);
  const moves = grants.length > 0 || outlooks.some(({ overdueAt }) => overdueAt > now);
  return { grants, nextLateMs, overdue, waitingFor: moves ? null : whyWaiting(workers, overdue, now) };
}

function whyWaiting(workers: readonly WorkerView[], overdue: readonly Lease[], now: number): string {
  if (workers.length === 0) return "no worker is connected";
  const mute = [
    ...overdue.map(({ worker, grantedAt }) => ({ worker, since: grantedAt })),
    ...workers.flatMap(({ name, owesSince }) => (owesSince === undefined ? [] : [{ worker: name, since: owesSince }])),
  ];
  if (mute.length === 0) return `none of ${workers.length} connected workers has the weights of this step yet`;
  const names = [...new Set(mute.map(({ worker }) => worker))];
  const longest = mute.reduce((most, { since }) => Math.max(most, now - since), 0);
  const shown = names.length > 3 ? `${names.slice(0, 3).join(", ")} and ${names.length - 3} more` : names.join(", ");
  return `no answer from ${shown} for ${Math.round(longest / 1000)} s, and nobody else can compute`;
}

/** What a round is divided by. */
interface Shares {
  /** Of each worker measured. */
  readonly stakes: ReadonlyMap<string, Stake>;
  /** Weight of all who share it, one that was never measured counting as average. */
  readonly total: number;
  readonly workers: number;
}

/** Units for those whose weights are still on their way: second leases of what nobody has begun leave them. */
function unitsToCome(round: RoundView, workers: readonly WorkerView[], shares: Shares): number {
  let units = 0;
  for (const { name, able, onProbation } of workers) {
    const stake = shares.stakes.get(name);
    if (!able && !onProbation) units += stake ? fairShare(round, stake, shares) : 1;
  }
  return units;
}

export interface Stake {
  readonly weight: number;
  /** Share of its time that an answer takes beside computing: 0 to 1. */
  readonly overhead: number;
}

/**
 * A worker's weight is its speed at an even share, its way included. It does not depend on how much it was given: by units a
 * second from lease to answer, who is given half of what another is would over a slow link seem half as fast, for ever.
 */
function sharesOf(units: number, workers: readonly WorkerView[]): Shares {
  const isTrusted = ({ onProbation }: WorkerView) => !onProbation;
  const trusted = workers.some(isTrusted) ? workers.filter(isTrusted) : workers;
  const count = Math.max(1, trusted.length);
  const stakes = new Map<string, Stake>();
  for (const { name, pace } of workers) {
    if (!pace) continue;
    const seconds = secondsOf(pace, Math.max(1, units / count));
    stakes.set(name, { weight: 1 / seconds, overhead: pace.overheadSeconds / seconds });
  }
  const weightsOf = (of: readonly WorkerView[]) => of.flatMap(({ name }) => stakes.get(name)?.weight ?? []);
  const known = weightsOf(trusted);
  return { stakes, total: count * mean(known.length > 0 ? known : weightsOf(workers)), workers: count };
}

/** 1 of nothing. */
const mean = (values: readonly number[]): number =>
  values.length === 0 ? 1 : values.reduce((sum, value) => sum + value, 0) / values.length;

/** From its granting to its answer, with what its worker held before it. */
function outlooksOf(round: RoundView, workers: readonly WorkerView[], now: number): Outlook[] {
  const paces = new Map(workers.flatMap(({ name, pace }) => (pace ? [[name, pace]] : [])));
  const held = new Map<string, { ms: number; before?: Outlook }>();
  const here = new Set([...workers.map(({ name }) => name), ...round.leaving]);
  const slowestSeconds = (units: number) =>
    [...paces.values()].reduce((most, pace) => Math.max(most, secondsOf(pace, units)), 0);
  return round.leases.map((lease) => {
    if (!here.has(lease.worker)) return { lease, lateAt: now, overdueAt: now, expectedAt: Number.POSITIVE_INFINITY };
    const holder = held.get(lease.worker) ?? { ms: 0 };
    const own = paces.get(lease.worker);
    const leaseMs = 1000 * (own ? secondsOf(own, lease.count) : slowestSeconds(lease.count));
    const ms = holder.ms + leaseMs;
    let lateAt = lease.grantedAt + (paces.size > 0 ? lateFactor * ms + round.graceMs : round.unmeasuredMs);
    let expectedAt = lease.grantedAt + (paces.size > 0 ? ms : round.unmeasuredMs);
    // One that was never measured may be slower than anyone known, and honest.
    let overdueAt = own === undefined ? Math.max(lateAt, lease.grantedAt + round.unmeasuredMs) : lateAt;
    const { heard } = lease;
    if (lease.waits) lateAt = overdueAt = Number.POSITIVE_INFINITY;
    else if (heard) {
      // Whoever says how far it is lets nobody down while it goes on, however long that takes.
      expectedAt = heard.at + heard.leftMs;
      if (own !== undefined) lateAt = Math.max(lateAt, heard.beganAt + lateFactor * leaseMs + round.graceMs);
      overdueAt = Math.max(overdueAt, lateAt, heard.at + lateFactor * heard.nextMs + round.graceMs);
    }
    const { before } = holder;
    if (before) {
      // What waits is not worked on yet.
      expectedAt = Math.max(expectedAt, before.expectedAt + leaseMs);
      overdueAt = Math.max(overdueAt, before.overdueAt);
    }
    const outlook = { lease, lateAt, overdueAt, expectedAt };
    held.set(lease.worker, { ms, before: outlook });
    return outlook;
  });
}

class PlanState {
  readonly #round: RoundView;
  readonly #now: number;
  readonly #outlooks: readonly Outlook[];
  /** Who is on probation while others are there: nothing depends on what they hold. */
  readonly #doubted: ReadonlySet<string>;
  /** Units that nobody holds, and units that only late leases hold. */
  readonly #open: Openings;
  readonly #late: Openings;
  /** Of each unit: when the first of those who are on time will have it; infinite where nobody has. */
  readonly #expectedAt: Float64Array;
  readonly #isHeld: Uint8Array;
  /** The latest of these: what nobody would be done with before is not worth looking for. */
  readonly #lastAt: number;
  readonly #held = new Map<string, number>();
  /** Who has an answer that waits for room. */
  readonly #waiting: ReadonlySet<string>;
  /** Those of the round, and those of what is granted now. */
  readonly #awaited: Map<string, Awaited>;
  /** Of each awaited node by name: when those who are on time will have said what they think of it. */
  readonly #opinionsAt = new Map<string, number[]>();
  /** Grants so far, and units that nobody holds. */
  #granted = 0;
  #left: number;
  /** Units that second leases leave alone. */
  readonly #toCome: number;
  /** Nothing of the round was given out before. */
  readonly #isFirst: boolean;

  constructor(
    round: RoundView,
    outlooks: readonly Outlook[],
    now: number,
    doubted: ReadonlySet<string>,
    toCome: number,
  ) {
    this.#round = round;
    this.#toCome = toCome;
    this.#doubted = doubted;
    this.#now = now;
    this.#outlooks = outlooks;
    this.#awaited = new Map(round.awaited.map((node) => [nodeName(node), node]));
    this.#waiting = new Set(round.leases.filter(({ waits }) => waits).map(({ worker }) => worker));
    this.#isFirst = outlooks.length === 0 && !round.done.includes(true);
    this.#expectedAt = new Float64Array(round.units).fill(Number.POSITIVE_INFINITY);
    this.#isHeld = new Uint8Array(round.units);
    const onTime = new Uint8Array(round.units);
    let lastAt = Number.NEGATIVE_INFINITY;
    for (const { lease, lateAt, expectedAt } of outlooks) {
      this.#held.set(lease.worker, (this.#held.get(lease.worker) ?? 0) + 1);
      if (doubted.has(lease.worker)) continue;
      const end = lease.first + lease.count;
      this.#isHeld.fill(1, lease.first, end);
      if (lateAt <= now) continue;
      this.#expectOpinion(lease, lease.worker, expectedAt);
      onTime.fill(1, lease.first, end);
      lastAt = Math.max(lastAt, expectedAt);
      for (let unit = lease.first; unit < end; unit++)
        this.#expectedAt[unit] = Math.min(this.#expectedAt[unit]!, expectedAt);
    }
    this.#lastAt = lastAt;
    const isOpen = (unit: number) => !round.done[unit] && this.#isHeld[unit] === 0;
    this.#open = new Openings(round.units, isOpen);
    this.#left = round.done.filter((_, unit) => isOpen(unit)).length;
    this.#late = new Openings(
      round.units,
      (unit) => !round.done[unit] && this.#isHeld[unit] === 1 && onTime[unit] === 0,
    );
  }

  /** @param proven somebody who is not on probation has a turn */
  next(worker: WorkerView, proven: boolean, shares: Shares, pass: number): Grant | undefined {
    const { name, pace } = worker;
    const held = this.#held.get(name) ?? 0;
    const isNew = pace === undefined;
    const pressing = this.#pressingFor(worker);
    if (pressing) return pressing;
    if (held > pass || (isNew && held > 0)) return undefined;
    if (worker.onProbation && proven) return held === 0 ? this.#copyFor(worker) : undefined;
    // Opinions go to who is free: kept for one who is not, they would come one after another.
    const opinion = isNew || held > 0 ? undefined : this.#opinionBy(worker);
    if (opinion) return opinion;
    const begun = this.#begunFor(worker);
    if (begun) return begun;
    const size = isNew ? 1 : fairShare(this.#round, shares.stakes.get(name)!, shares);
    const open = this.#find(this.#open, worker, this.#portion(size, held, shares));
    if (open) {
      this.#left -= open.count;
      return this.#grant(worker, open, false, `${this.#name(open)} was not leased yet`);
    }
    if (isNew) {
      const first = this.#opinionBy(worker);
      if (first) return first;
    }
    if (held > 0) return undefined;
    const late = this.#find(this.#late, worker, size);
    if (late) return this.#grant(worker, late, true, `${this.#name(late)} is late at ${this.#holders(late)}`);
    return isNew ? undefined : this.#speculate(worker, pace, size);
  }

  /**
   * How much of what nobody holds to take at once. A second lease leaves their part to those who have none yet because their
   * weights are on the way: they would find the round given away. Second opinions make rounds that end unevenly: what would
   * not be a lease for everybody is kept for free hands, in pieces for all of them. Whether anything was drawn does not show
   * in it before a worker has answered.
   */
  #portion(size: number, held: number, { workers }: Shares): number {
    const rest = held > 0 ? wholeNode(Math.min(size, this.#left - this.#toCome)) : size;
    if (!this.#round.draws || this.#left >= workers * size) return rest;
    if (held > 0) return 0;
    if (this.#isFirst) return size;
    return Math.min(size, wholeNode(Math.max(1, this.#left / workers)));
  }

  #name(node: TreeNode): string {
    return nodeName(node, this.#round.first);
  }

  /** For who waits for room: what keeps the first unit out of the sum, where nobody who is on time has it. */
  #pressingFor(worker: WorkerView): Grant | undefined {
    if (!this.#waiting.has(worker.name)) return undefined;
    const first = this.#round.done.indexOf(false);
    // Units that were answered and await a second opinion are not in the sum either.
    const asked = [...this.#awaited].filter(([, node]) => node.wanted === 1 && (first < 0 || node.first < first));
    for (const [name, node] of asked.sort(([, a], [, b]) => a.first - b.first)) {
      if (!this.#mayConfirm(worker, node) || this.#opinionsAt.get(name)?.some(Number.isFinite)) continue;
      return this.#grant(worker, node, false, `${this.#name(node)} awaits a second opinion: answers wait for room`);
    }
    const node = { first, count: 1 };
    if (first < 0 || this.#holds(worker, node)) return undefined;
    const isLate = this.#late.isOpen(first);
    if (!(isLate || this.#open.isOpen(first)) || this.#hasRefused(worker, node)) return undefined;
    if (!isLate) this.#left--;
    return this.#grant(worker, node, isLate, `${this.#name(node)} is needed first: answers wait for room`);
  }

  /** What is left of a unit that nobody holds: by itself, since a state is of one. */
  #begunFor(worker: WorkerView): Grant | undefined {
    for (const first of this.#round.begun.keys()) {
      const node = { first, count: 1 };
      const begun = this.#begunOf(worker, node);
      if (!begun || !this.#open.isOpen(first) || this.#hasRefused(worker, node)) continue;
      this.#left--;
      const by = begun.by.map(({ worker }) => worker).join(", ");
      return this.#grant(worker, node, false, `${first} was begun by ${by}`);
    }
    return undefined;
  }

  /** What this worker would go on from in a lease of the node. */
  #begunOf({ takesOver, arithmetic }: WorkerView, { first, count }: TreeNode): Begun | undefined {
    const begun = takesOver && count === 1 ? this.#round.begun.get(first) : undefined;
    return begun?.arithmetic === arithmetic ? begun : undefined;
  }

  /** A second opinion of what nobody else is about to give one of, or not before this worker could. */
  #opinionBy(worker: WorkerView): Grant | undefined {
    for (const [name, node] of this.#awaited) {
      if (!this.#mayConfirm(worker, node)) continue;
      const expectedAt = this.#opinionsAt.get(name)?.[node.wanted - 1] ?? Number.POSITIVE_INFINITY;
      const isAwaited = Number.isFinite(expectedAt);
      if (isAwaited && !(worker.pace && this.#doneAt(worker.pace, node.count) < expectedAt)) continue;
      return this.#grant(worker, node, false, `${this.#name(node)} awaits a second opinion`);
    }
    return undefined;
  }

  /** Has it an opinion of its own to give? */
  #mayConfirm(worker: WorkerView, node: Awaited): boolean {
    if (node.arithmetic !== worker.arithmetic || node.heard.has(worker.name)) return false;
    return !this.#hasRefused(worker, node) && !this.#holds(worker, node);
  }

  #expectOpinion(node: TreeNode, worker: string, at: number): void {
    const name = nodeName(node);
    const awaited = this.#awaited.get(name);
    if (!awaited || awaited.heard.has(worker)) return;
    this.#opinionsAt.set(
      name,
      [...(this.#opinionsAt.get(name) ?? []), at].sort((a, b) => a - b),
    );
  }

  /** When a worker should be done with so many units, if it begins now. */
  #doneAt(pace: Pace, count: number): number {
    return this.#now + lateFactor * 1000 * secondsOf(pace, count) + this.#round.graceMs;
  }

  /** What somebody will have long after we should be done with it. */
  #speculate(worker: WorkerView, pace: Pace, size: number): Grant | undefined {
    const { units, done } = this.#round;
    const soonest = this.#doneAt(pace, 1);
    if (this.#lastAt <= soonest) return undefined;
    const isWorth = (unit: number) => {
      const expectedAt = this.#expectedAt[unit]!;
      return !done[unit] && Number.isFinite(expectedAt) && expectedAt > soonest;
    };
    const slow = this.#outlooks.find(({ lease }) => lease.worker !== worker.name && isWorth(lease.first));
    if (!slow) return undefined;
    const node = this.#find(new Openings(units, isWorth), worker, size);
    if (!node || this.#expectedAt[node.first]! <= this.#doneAt(pace, node.count)) return undefined;
    return this.#grant(worker, node, true, `${this.#name(node)} is slow at ${this.#holders(node)}`);
  }

  /** One unit that somebody else holds, the latest to be done; nothing depends on this answer. */
  #copyFor(worker: WorkerView): Grant | undefined {
    let found: Outlook | undefined;
    for (const outlook of this.#outlooks) {
      const { first, worker: holder } = outlook.lease;
      // Two on probation must not copy each other: nobody else would ever be asked.
      if (this.#doubted.has(holder) || this.#round.done[first] || this.#hasRefused(worker, { first, count: 1 }))
        continue;
      if (outlook.expectedAt > (found?.expectedAt ?? this.#now)) found = outlook;
    }
    if (!found) return undefined;
    const node = { first: found.lease.first, count: 1 };
    return this.#grant(worker, node, true, `${this.#name(node)}, which ${found.lease.worker} has too: on probation`);
  }

  /** Has it a lease with a unit of this node? */
  #holds({ name }: WorkerView, node: TreeNode): boolean {
    return this.#outlooks.some(({ lease }) => lease.worker === name && overlap(lease, node));
  }

  /** Did it give an answer for a unit of this node that could not count? */
  #hasRefused({ name }: WorkerView, { first, count }: TreeNode): boolean {
    for (const [unit, who] of this.#round.refusals)
      if (unit >= first && unit < first + count && who.has(name)) return true;
    return false;
  }

  #find(openings: Openings, worker: WorkerView, size: number): TreeNode | undefined {
    if (size === 0) return undefined;
    const refused = [...this.#round.refusals].filter(([, who]) => who.has(worker.name)).map(([unit]) => unit);
    if (refused.length === 0 || !openings.any) return openings.find(size);
    // Who gave a wrong answer is asked again only when nobody else can be: the dispatcher forgets the refusal then.
    return new Openings(this.#round.units, (unit) => !refused.includes(unit) && openings.isOpen(unit)).find(size);
  }

  #grant(worker: WorkerView, node: TreeNode, repeats: boolean, why: string): Grant {
    this.#open.take(node);
    this.#late.take(node);
    const { arithmetic } = worker;
    const name = nodeName(node);
    const isDrawn = (this.#round.draws?.(this.#granted++, worker) ?? false) || this.#awaited.has(name);
    if (isDrawn && !this.#awaited.has(name))
      this.#awaited.set(name, { ...node, arithmetic, heard: new Set(), wanted: 2 });
    this.#expectOpinion(node, worker.name, this.#now);
    this.#held.set(worker.name, (this.#held.get(worker.name) ?? 0) + 1);
    // Whoever looks next finds these units taken in time.
    this.#expectedAt.fill(this.#now, node.first, node.first + node.count);
    const begun = this.#begunOf(worker, node);
    return { ...node, worker: worker.name, arithmetic, isDrawn, begun, repeats, why };
  }

  #holders(node: TreeNode): string {
    const names = this.#outlooks.filter(({ lease }) => overlap(lease, node)).map(({ lease }) => lease.worker);
    return [...new Set(names)].slice(0, 3).join(", ");
  }
}

/**
 * Largest power of two within a worker's share of the round by weight. At least one unit stays for each other worker:
 * whoever gets nothing would never be measured again.
 */
export function fairShare(
  round: Pick<RoundView, "units" | "largest">,
  { weight, overhead }: Stake,
  shares: Pick<Shares, "total" | "workers">,
): number {
  const share = (round.units * weight) / Math.max(shares.total, weight);
  const even = round.units / shares.workers;
  // 3.3 of 8 units is still four: noise in the paces of two equal workers must not halve their leases. Up to an
  // even share it may be more, as long as an answer takes a quarter longer at most: what is left takes the way once more.
  const rounded = Math.max(share * 1.25, Math.min(even, share * (1 + 0.25 / (1 - overhead))));
  const most = Math.min(round.largest, rounded, round.units - (shares.workers - 1));
  return wholeNode(Math.max(1, most));
}

/** The largest power of two within so many units; 0 of less than one. */
const wholeNode = (units: number): number => (units < 1 ? 0 : 2 ** Math.floor(Math.log2(units)));

export function overlap(a: TreeNode, b: TreeNode): boolean {
  return a.first < b.first + b.count && b.first < a.first + a.count;
}
