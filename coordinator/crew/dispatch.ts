// Has every part of a round computed once, by whoever is here: gives out leases as plan.ts decides, takes answers, gives
// lost and late parts to others, and sends away workers that cannot help. Nothing here reaches the numbers but through the
// round, whose bits do not depend on the order of what happens here.
//
// With --verify a drawn answer counts when a second worker of the same arithmetic has said the same. Who says something
// else than two others is put in quarantine. Nobody waits for an opinion longer than the timeout while no one is there to
// give one: then the answer counts unconfirmed, with a warning; where two differ and no third comes, the run stops.
import type { Codec } from "../../shared/arithmetic/codec.ts";
import { nodeName, type TreeNode, type VectorPool } from "../../shared/arithmetic/tree.ts";
import type { VectorOps } from "../../shared/arithmetic/vector.ts";
import { type Clock, sleep } from "../../shared/clock.ts";
import type { Options } from "../../shared/config.ts";
import type { Pipe } from "../../shared/wire/pipe.ts";
import { type LocalTerms, timesOf, type Welcome } from "../../shared/wire/protocol.ts";
import type { Journal } from "../journal.ts";
import type { Round } from "../round/round.ts";
import { whyForeign } from "./arithmetic.ts";
import { BegunUnits, type HandedOver, stepsOf } from "./begun.ts";
import type { Answer, Connection, ConnectionEvents, Progress } from "./connection.ts";
import { Crew, type Origin } from "./crew.ts";
import { digestOf, Lots } from "./opinion.ts";
import { longestHeldMs } from "./pace.ts";
import { type Awaited, type Lease, planRound, type WorkerView } from "./plan.ts";
import type { Quarantine, Quarantined } from "./quarantine.ts";
import { type Opinion, type PartRecord, type Question, Work } from "./work.ts";

export interface DispatchOptions {
  readonly options: Pick<Options, "timeout" | "anyArithmetic" | "engine" | "isa" | "precision" | "verify" | "seed">;
  readonly clock: Clock;
  /** The arithmetic that a resumed run began with. */
  readonly arithmetic?: string | undefined;
  readonly pool: VectorPool;
  /** Of the run's wire. */
  readonly codec: Codec;
  readonly ops: Pick<VectorOps, "digest" | "sumOfSquares">;
  /** What no worker can know: it decides whose answers are held against another's. A safe integer. */
  readonly secret: number;
  /** Who is not let in. */
  readonly quarantine?: Quarantine | undefined;
  /** For gradients on their way in and in the sum; left out: the usual. */
  readonly roomBytes?: number | undefined;
  /** Hears of every worker that comes, goes, is late or refused. */
  readonly journal: Journal;
  /** Hears when a worker is ready to compute, changed or gone. */
  readonly onCrew?: () => void;
}

/** What came of a round, beside what the round itself holds. */
export interface Gathered {
  /** Of a step's shards, where the round trains. */
  readonly parts: PartRecord[];
  readonly unitsByWorker: ReadonlyMap<string, number>;
  /** Seconds that each worker says it computed for answers that came meanwhile, whether they counted or not. */
  readonly secondsByWorker: ReadonlyMap<string, number>;
  /** Seconds of the answer that was the last to come, as its worker says, and of taking answers in. */
  readonly computeSeconds: number;
  readonly sumSeconds: number;
}

/** A round was left because the run stops. */
export class Stopped extends Error {
  /** Nobody is expected to go on with it soon: workers need not wait. */
  readonly isForGood: boolean;

  constructor(reason: string, isForGood: boolean) {
    super(reason);
    this.isForGood = isForGood;
  }
}
/** A round was left because what is computed is not a number any more, whoever computes it. */
export class Diverged extends Error {}

/** A round was left because answers of a worker count in it that turned out to be a liar. */
export class Spoiled extends Error {}
/** Nobody can say who is right, or a liar was found and the run is to stop then. */
export class Distrust extends Error {}

/** Answers that could not count and that another gave rightly: so many, and their worker goes. */
const mostWrong = 3;
/** Leases that may be handed back in a row before a worker is sent away. */
const mostHandbacks = 3;
/** Workers whose answers for one unit could not count before the run is called diverged, though others are there. */
const mostOpinions = 4;
/** With so many leases out, what has come in meanwhile is planned for together. */
const manyLeases = 32;

export class Dispatch {
  readonly crew: Crew;
  readonly counts = { counted: 0, hedged: 0, lost: 0, refused: 0, confirmed: 0 };
  /** Why nothing is being computed, as a sentence; null while something is. */
  waitingFor: string | null = null;
  arithmetic: string | undefined;
  /** When somebody's work last counted, on the clock. */
  progressAt: number;
  readonly #settings: DispatchOptions;
  readonly #clock: Clock;
  readonly #times: ReturnType<typeof timesOf>;
  #round: Round | undefined;
  #work: Work | undefined;
  /** Leases of the round that have been counted against their holder. */
  #charged = new Set<number>();
  #computeSeconds = 0;
  #secondsByWorker = new Map<string, number>();
  #sumSeconds = 0;
  #nextLeaseId = 1;
  #nextLateMs = Number.POSITIVE_INFINITY;
  /** When connections were last looked through. */
  #lookedAt = Number.NEGATIVE_INFINITY;
  /** What can only be wrong, as far as those say who are here. */
  #doubt: { readonly who: ReadonlySet<string>; readonly since: number; readonly error: Diverged } | undefined;
  readonly #lots: Lots;
  readonly #begun: BegunUnits;
  /** Units of the round that a state has spoiled once: nobody knows whose fault it was, so no other is asked for. */
  #spoiledUnits = new Set<number>();
  /** Found out since the last takeLiars(). */
  #liars: Quarantined[] = [];
  #spoiled: Spoiled | undefined;
  /** For so long that nobody waits any more, no second worker has been there to ask. */
  #isAlone = false;
  #failure: unknown;
  #isAwake = false;
  #wakeUp: () => void = () => {};

  constructor(settings: DispatchOptions) {
    const { options, clock, pool, codec } = settings;
    this.#settings = settings;
    this.#clock = clock;
    this.#times = timesOf(options.timeout * 1000);
    this.arithmetic = options.anyArithmetic ? "any" : settings.arithmetic;
    this.progressAt = clock.now();
    this.crew = new Crew(pool, codec, clock, settings.quarantine, settings.roomBytes);
    this.#begun = new BegunUnits(this.crew.uploads, settings.ops);
    this.#lots = new Lots(settings.secret, options.seed);
  }

  /** The leases that are out. */
  get leases(): readonly Lease[] {
    return this.#work?.leases ?? [];
  }

  admit(pipe: Pipe, welcome: Welcome, origin: Origin): void {
    this.crew.admit(pipe, welcome, origin, this.#events);
  }

  /** Those who were found to lie since this was asked before. */
  takeLiars(): Quarantined[] {
    return this.#liars.splice(0);
  }

  /** Make the round in hand, and every later one, throw this. */
  fail(reason: unknown): void {
    this.#failure ??= reason;
    this.#wake();
  }

  /**
   * Compute a round.
   * @throws what fail() was given, or the signal's reason; Diverged when the numbers stop being numbers; Spoiled when it is
   * to be computed again; Distrust when two differ and nobody can say who is right
   */
  async gather(round: Round, signal?: AbortSignal): Promise<Gathered> {
    const work = new Work(round.units);
    // What became of one round is not what becomes of the next.
    if (this.#failure instanceof Diverged) this.#failure = undefined;
    this.#round = round;
    this.#work = work;
    this.#charged = new Set();
    this.#doubt = undefined;
    this.#spoiled = undefined;
    this.#spoiledUnits = new Set();
    this.#sumSeconds = 0;
    this.#secondsByWorker = new Map();
    const { units, part } = round;
    const first = part?.first ?? 0;
    this.crew.uploads.gathering = {
      first,
      units,
      kept: () => round.kept ?? [],
      missing: () => first + work.firstMissing,
    };
    const wake = () => this.#wake();
    signal?.addEventListener("abort", wake);
    try {
      while (!work.complete) {
        if (this.#failure) throw this.#failure;
        if (this.#spoiled) break;
        signal?.throwIfAborted();
        this.#isAwake = false;
        this.crew.uploads.look();
        this.#decideDoubt();
        this.#decideQuestions(work, round);
        this.#deal(work, round);
        await this.#untilWoken();
        if (work.leases.length > manyLeases) await sleep(this.#clock, 0);
        this.#expire();
      }
      if (this.#spoiled) throw this.#spoiled;
    } catch (error) {
      round.abandon();
      throw error;
    } finally {
      signal?.removeEventListener("abort", wake);
      for (const lease of [...work.leases]) this.#release(work, lease);
      this.#begun.clear();
      this.waitingFor = null;
    }
    return {
      parts: work.records(round.shards),
      unitsByWorker: work.unitsByWorker(round.steps),
      secondsByWorker: this.#secondsByWorker,
      computeSeconds: this.#computeSeconds,
      sumSeconds: this.#sumSeconds,
    };
  }

  #wake(): void {
    this.#isAwake = true;
    this.#wakeUp();
  }

  /** Until something happened, or may have to be done although nothing does. */
  async #untilWoken(): Promise<void> {
    if (this.#isAwake) return;
    const woken = new Promise<void>((resolve) => {
      this.#wakeUp = resolve;
    });
    const timer = this.#clock.after(Math.min(this.#times.pingEveryMs, this.#nextLateMs + 1), () => this.#wake());
    await woken;
    timer.cancel();
  }

  /** Give out what can be given out. */
  #deal(work: Work, round: Round): void {
    const { journal } = this.#settings;
    const { units, largest, kind, step } = round;
    const { graceMs, unmeasuredMs } = this.#times;
    const { done, leases, refusals, awaited } = work;
    const workers = this.crew.views(step, kind);
    const now = this.#clock.now();
    const draws = this.#drawn(kind);
    const begun = this.#begun.all;
    const { leaving } = this.crew;
    const first = round.part?.first ?? 0;
    const view = {
      first,
      units,
      largest,
      done,
      awaited,
      leases,
      refusals,
      begun,
      leaving,
      graceMs,
      unmeasuredMs,
      draws,
    };
    let plan = planRound(view, workers, now);
    if (
      plan.waitingFor !== null &&
      !this.#doubt &&
      work.refusals.size > 0 &&
      !this.#hasOthers(new Set([...work.refusals.values()].flatMap((who) => [...who])))
    ) {
      work.forgive();
      plan = planRound(view, workers, now);
    }
    this.#nextLateMs = plan.nextLateMs;
    this.waitingFor = plan.waitingFor === null ? null : (this.#openQuestion(work, round) ?? plan.waitingFor);
    for (const lease of plan.overdue) this.#charge(lease, round);
    for (const grant of plan.grants) {
      const leaseId = this.#nextLeaseId++;
      const worker = this.crew.find(grant.worker);
      if (!worker?.hasWeightsOf(step)) continue;
      if (grant.repeats) {
        this.counts.hedged++;
        journal.tell("late", `${round.name}: ${grant.why}; ${worker.name} computes it too`, {
          worker: worker.name,
          step: step + 1,
        });
      }
      const { begun } = grant;
      const done = stepsOf(begun);
      const { id, first, count } = work.grant(grant, leaseId, now);
      const { count: windows, read } = round.windows(grant, done);
      const ids = worker.draws(kind) ? undefined : read();
      // A disk that cannot be read ends the run, not one worker.
      if (ids instanceof Promise) ids.catch((error) => this.fail(error));
      const { rows, local, sample, part = { first: 0, units } } = round;
      const node = { units: part.units, first: part.first + first, count };
      const own = { ...(local && { local: begun ? after(local, done) : local }), ...(sample && { sample }) };
      const { losses, vector } = round.expects(grant);
      worker.lease(
        { type: "lease", lease: id, round: kind, step, ...node, rows, windows, ...own },
        { losses: losses - done, vector },
        ids,
        begun?.state,
      );
      if (!begun) continue;
      const from = begun.by.map((share) => share.worker).join(", ");
      journal.tell(
        "left",
        `${worker.name} took over replica ${node.first} at step ${done} of ${round.steps} from ${from}`,
        { worker: worker.name, step: step + 1 },
      );
    }
  }

  /** Which of the next leases of such a round are to be confirmed; undefined where none ever is. */
  #drawn(kind: Round["kind"]): ((i: number, worker: WorkerView) => boolean) | undefined {
    const { verify } = this.#settings.options;
    // A sample reaches no number: nobody is asked what he thinks of it.
    if (verify === 0 || kind === "sample") return undefined;
    return (i, { name }) => {
      const worker = this.crew.find(name);
      const isConfirmed = worker !== undefined && this.crew.isConfirmed(worker, kind);
      return !isConfirmed || this.#lots.draws(this.#nextLeaseId + i, verify);
    };
  }

  /** Its units for people, by their numbers in all of the round that this is a part of. */
  #nameOf(node: TreeNode): string {
    return nodeName(node, this.#round?.part?.first);
  }

  /** A lease is overdue: it counts against its holder, once. */
  #charge(lease: Lease, round: Round): void {
    if (this.#charged.has(lease.id)) return;
    this.#charged.add(lease.id);
    const heldMs = this.#clock.now() - lease.grantedAt;
    const why = `did not answer ${this.#nameOf(lease)} of ${round.name} in ${(heldMs / 1000).toFixed(1)} s`;
    this.#punish(lease.worker, why);
  }

  #punish(name: string, why: string): void {
    const before = this.crew.standing.probation(name);
    this.crew.standing.charge(name, why);
    if (before === undefined && this.crew.standing.probation(name) !== undefined)
      this.#settings.journal.warn("late", `worker ${name} is on probation: it ${why}`, { worker: name });
  }

  /** Close the connections that sit on a lease beyond all patience. */
  #expire(): void {
    const { leaseMs, silenceMs, pingEveryMs } = this.#times;
    const now = this.#clock.now();
    if (now - this.#lookedAt < pingEveryMs / 2) return;
    this.#lookedAt = now;
    this.crew.uploads.evictSlow(silenceMs);
    const round = this.#round!;
    const views = new Map(this.crew.views(round.step, round.kind).map((view) => [view.name, view]));
    // What is behind an answer that waits for room waits with it.
    const waiting = new Set(this.leases.filter(({ waits }) => waits).map(({ worker }) => worker));
    for (const lease of this.leases.filter(({ worker }) => !waiting.has(worker))) {
      const heldMs = now - this.#heardAt(lease);
      if (heldMs > longestHeldMs(leaseMs, views.get(lease.worker)?.pace, lease.count))
        this.crew
          .find(lease.worker)
          ?.close(`lease ${this.#nameOf(lease)} of ${round.name} not answered in ${(heldMs / 1000).toFixed(0)} s`);
    }
    for (const { worker, heardAt } of [...this.crew.debtors(leaseMs)])
      worker.close(`a lease that others answered not handed back in ${((now - heardAt) / 1000).toFixed(0)} s`);
  }

  /** When its holder last said a word of it, or of what it has to do before it; else when it was granted. */
  #heardAt(lease: Lease): number {
    const holder = this.crew.find(lease.worker);
    const words = [lease, ...this.leases].flatMap(({ worker, grantedAt, heard }) =>
      worker === lease.worker && grantedAt <= lease.grantedAt && heard ? [heard.at] : [],
    );
    return Math.max(lease.grantedAt, holder ? this.crew.lastAnswerAt(holder) : 0, ...words);
  }

  readonly #events: ConnectionEvents = {
    ready: (worker) => this.#onReady(worker),
    changed: () => {
      this.#settings.onCrew?.();
      this.#wake();
    },
    answered: (worker, id, answer) => {
      this.#onAnswer(worker, id, answer);
      this.#wake();
    },
    waits: (id) => {
      const lease = this.#work?.find(id);
      if (!lease) return;
      lease.waits = true;
      // What is needed first may be nobody's yet.
      this.#wake();
    },
    giveWay: (id) => {
      const lease = this.#work?.find(id);
      if (!lease) return;
      this.#release(this.#work!, lease);
      this.#wake();
    },
    progressed: (worker, id, progress) => this.#onProgress(worker, id, progress),
    offered: (worker, id) => {
      const lease = this.#work?.find(id);
      if (!lease || lease.worker !== worker.name) return;
      if (!this.#isShared(lease) && !this.#spoiledUnits.has(lease.first)) worker.accept(id);
    },
    handedBack: (worker, id, reason, units, handed) => {
      this.#onHandback(worker, id, reason, units, handed);
      this.#wake();
    },
    gone: (worker, reason) => {
      const held = this.leases.filter((lease) => lease.worker === worker.name);
      for (const lease of held) this.#work?.end(lease);
      if (held.length > 0)
        this.#punish(worker.name, `went with ${held.map((lease) => this.#nameOf(lease)).join(", ")} in hand`);
      this.counts.lost += held.length;
      if (worker.name && !this.crew.isFinished)
        this.#settings.journal.tell("left", `worker ${worker.name} gone: ${reason}`, {
          worker: worker.name,
          leases: held.map((lease) => this.#nameOf(lease)),
        });
      this.#settings.onCrew?.();
      this.#wake();
    },
    broken: (error) => this.fail(error),
  };

  #onReady(worker: Connection): void {
    const { journal, options } = this.#settings;
    const foreign = whyForeign(worker.arithmetic, options) ?? this.#otherBits(worker);
    if (foreign) {
      const reason = `worker ${worker.name} computes with "${worker.arithmetic}": ${foreign}`;
      journal.warn("refused", `worker refused: ${reason}`, { worker: worker.name });
      worker.refuse(reason);
      return;
    }
    const { name, device, arithmetic } = worker;
    journal.tell("joined", `worker ${name} joined: ${device}${worker.sharesMemory ? ", shared memory" : ""}`, {
      worker: name,
      device,
      arithmetic,
    });
    this.crew.supply(worker);
    this.#settings.onCrew?.();
    this.#wake();
  }

  /** Why this worker's bits would differ from the run's; undefined when they do not, or nothing has counted yet. */
  #otherBits({ arithmetic }: Connection): string | undefined {
    if (this.#settings.options.anyArithmetic || this.arithmetic === undefined || arithmetic === this.arithmetic)
      return undefined;
    return `this run computes with "${this.arithmetic}" and the bits would differ; start the worker with the same --engine, --isa and --precision, or the run with --any-arithmetic`;
  }

  #onAnswer(worker: Connection, id: number, answer: Answer): void {
    const { pool } = this.#settings;
    const { vector } = answer;
    const computed = this.#secondsByWorker.get(worker.name) ?? 0;
    this.#secondsByWorker.set(worker.name, computed + answer.computeMs / 1000);
    const [work, round] = [this.#work, this.#round];
    const lease = work?.find(id);
    if (!work || !round || !lease || lease.worker !== worker.name || this.#otherBits(worker)) {
      // Of a round that is over, of a part that another answered first, or of a worker that is about to go.
      if (vector) pool.give(vector);
      this.crew.settle(worker, id, "all", answer.computeMs);
      return;
    }
    work.end(lease);
    const startedAt = this.#clock.now();
    const losses = [...(lease.begun?.losses ?? []), ...answer.losses];
    const refusal = round.refusal(lease, losses, vector);
    this.#sumSeconds += (this.#clock.now() - startedAt) / 1000;
    const isConfirmed = this.crew.isConfirmed(worker, round.kind);
    const isAsked = work.isAsked(lease) || (lease.isDrawn && !this.#mustCount(worker, work, lease));
    // Being fast earns nothing before somebody has said the same.
    const count = unitsOf(lease, round);
    if (refusal || !isAsked || isConfirmed) this.crew.learn(worker, round.kind, { ...lease, count }, answer.computeMs);
    if (refusal || (isAsked && !this.#compare(worker, work, round, lease, answer))) {
      if (vector) pool.give(vector);
      if (refusal) this.#refuse(worker, work, round, lease, refusal);
      return;
    }
    if (!isAsked) this.#count(worker, work, round, lease, { ...answer, losses });
  }

  #onProgress(worker: Connection, id: number, progress: Progress | undefined): void {
    const lease = this.#work?.find(id);
    if (!lease || lease.worker !== worker.name) return;
    const at = this.#clock.now();
    if (!progress) {
      if (lease.heard) lease.heard = { ...lease.heard, at };
      return;
    }
    const { share, each, upload } = progress;
    // An answer on its way says nothing of a lease that was too short to say how far it is.
    if (upload) this.#round!.arrives?.(lease, upload);
    if (upload && !lease.heard && !lease.waits) return;
    const beganAt = lease.waits
      ? at
      : (lease.heard?.beganAt ?? Math.max(lease.grantedAt, this.crew.lastAnswerAt(worker)));
    const tookMs = at - (upload?.since ?? beganAt);
    const leftMs = (tookMs * (1 - share)) / share;
    lease.waits = false;
    lease.heard = {
      ...{ at, beganAt, leftMs, share: upload ? 1 : share },
      nextMs: Math.max(this.#times.progressEveryMs, (tookMs * each) / share),
    };
    this.progressAt = at;
    this.#round!.progress?.(computedShare(this.#work!, this.#round!));
  }

  /** Is nobody there to be asked for a second opinion, nor has been for a while? */
  #mustCount(worker: Connection, work: Work, lease: Lease): boolean {
    if (work.isUnasked(lease)) return true;
    const { arithmetic, name } = worker;
    const canAsk = this.#couldAsk(work, { ...lease, arithmetic, heard: new Set([name]), wanted: 1 });
    if (canAsk) this.#isAlone = false;
    return this.#isAlone;
  }

  /** Is somebody there who could say what he thinks of it, or is about to? */
  #couldAsk(work: Work, node: Awaited, others = this.#others(node.heard)): boolean {
    const refused = [...work.refusals].filter(([unit]) => unit >= node.first && unit < node.first + node.count);
    return others.some(
      ({ name, arithmetic }) => arithmetic === node.arithmetic && !refused.some(([, who]) => who.has(name)),
    );
  }

  /** Hold an answer against what others said of the same node. @returns whether it counted; its vector is the caller's where not */
  #compare(worker: Connection, work: Work, round: Round, lease: Lease, answer: Answer): boolean {
    const digest = digestOf(answer, this.#settings.ops);
    const [agreed, ...more] = work.hear(lease, digest, worker.arithmetic, this.#clock.now());
    if (agreed === undefined || !this.#suffices([worker.name, agreed, ...more], worker.arithmetic, round)) {
      // Who computes other nodes over these units is not needed; who computes the same gives a second opinion.
      for (const other of work.overlapping(lease)) {
        const isSame = other.first === lease.first && other.count === lease.count;
        if (!isSame || this.crew.find(other.worker)?.arithmetic !== worker.arithmetic) this.#release(work, other);
      }
      return false;
    }
    if (!this.crew.isConfirmed(worker, round.kind)) this.crew.learn(worker, round.kind, lease, answer.computeMs);
    for (const name of [worker.name, agreed]) this.crew.confirm(name, round.kind);
    this.counts.confirmed++;
    this.#count(worker, work, round, lease, answer, agreed);
    return true;
  }

  /** Newcomers do not confirm each other while somebody is there whom others have confirmed. */
  #suffices(alike: readonly string[], arithmetic: string, { kind }: Round): boolean {
    const isConfirmed = (name: string) => {
      const worker = this.crew.find(name);
      return worker !== undefined && this.crew.isConfirmed(worker, kind);
    };
    const others = this.#others(new Set(alike)).filter((other) => other.arithmetic === arithmetic);
    return alike.some(isConfirmed) || !others.some(({ name }) => isConfirmed(name));
  }

  /** An answer counts. @param agreed who had said the same before */
  #count(worker: Connection, work: Work, round: Round, lease: Lease, answer: Answer, agreed?: string): void {
    const { options } = this.#settings;
    const startedAt = this.#clock.now();
    round.take(lease, answer.losses, answer.vector);
    this.#sumSeconds += (this.#clock.now() - startedAt) / 1000;
    // Who answers first decides, not who comes first: a made-up arithmetic keeps nobody out.
    if (this.arithmetic === undefined && !options.anyArithmetic) {
      this.arithmetic = worker.arithmetic;
      this.crew.refuseWhere((other) => this.#otherBits(other));
    }
    this.progressAt = this.#clock.now();
    this.#computeSeconds = Math.min(answer.computeMs, this.progressAt - lease.grantedAt) / 1000;
    const { others, differing } = work.count(lease, agreed);
    for (const { worker: name, ...node } of work.takeWrong()) {
      const why = `gave ${this.#nameOf(node)} of ${round.name} wrongly: all of it was computed rightly since`;
      this.#punish(name, why);
      if (this.crew.standing.countWrong(name) >= mostWrong) this.#keepOut(name, why, work, round);
    }
    for (const other of others) this.#release(work, other);
    for (let unit = lease.first; unit < lease.first + lease.count; unit++) this.#begun.drop(unit);
    if (!this.#charged.has(lease.id)) this.crew.standing.credit(worker.name);
    if (round.shards > 0) {
      this.counts.counted++;
      const { begun, count } = lease;
      this.crew.count(agreed ?? worker.name, round.shards * (count * round.steps - stepsOf(begun)));
      for (const { worker: giver, steps } of begun?.by ?? []) this.crew.count(giver, round.shards * steps);
    }
    for (const name of differing) {
      this.counts.refused++;
      const by = `${agreed} and ${worker.name} gave alike`;
      this.#keepOut(name, `gave another answer for ${this.#nameOf(lease)} of ${round.name} than ${by}`, work, round);
    }
  }

  /** A worker is found out: it goes for good, and what it holds or said in this round is done again. */
  #keepOut(name: string, why: string, work: Work, round: Round): void {
    if (this.crew.quarantine.of(name, undefined)) return;
    const found = this.crew.keepOut(name, why, round.step);
    this.#liars.push(found);
    const { names, address } = found;
    const also = [...names.slice(1), ...(address === null ? [] : [address])].join(", ");
    this.#settings.journal.warn(
      "quarantined",
      `worker ${name} is in quarantine${also && `, and ${also}`}: it ${why}; --allow ${name} lets it in again`,
      { worker: name, step: round.step + 1, why },
    );
    for (const { unit, by } of [...this.#begun.all.values()])
      if (by.some((share) => names.includes(share.worker))) this.#beginAnew(work, unit);
    for (const each of names) {
      work.forget(each);
      if (work.countsUnconfirmed(each))
        this.#spoiled ??= new Spoiled(`${round.name} is computed again: unconfirmed answers of ${each} count in it`);
    }
  }

  /** Where nobody can be asked for a second opinion: ask again those who differ, give up what nobody confirms. */
  #decideQuestions(work: Work, round: Round): void {
    const now = this.#clock.now();
    for (const question of work.questions) {
      if (this.#couldAsk(work, question)) continue;
      const isOver = now - question.since >= this.#times.unmeasuredMs;
      if (!differ(question)) {
        if (isOver || this.#isAlone) this.#giveUp(question, work, round);
      } else if (!question.isRepeated) work.repeat(question);
      else {
        // Who is late may answer yet, as long as his connection is not given up: a run is not stopped before.
        const isAwaited = this.#couldAsk(work, question, this.#present(question.heard));
        const patienceMs = isAwaited ? this.#times.leaseMs : this.#times.unmeasuredMs;
        if (now - question.since >= patienceMs) this.fail(new Distrust(describe(question, round)));
      }
    }
  }

  /** Its answer is computed again and counts then, as every other until somebody is there who could be asked. */
  #giveUp(question: Question, work: Work, round: Round): void {
    const [{ worker }] = question.opinions as [Opinion];
    if (!this.#isAlone)
      this.#settings.journal.warn(
        "late",
        `nobody is there to confirm what ${worker} computes, as --verify asks: its answers count unconfirmed until another worker of its arithmetic comes`,
        { step: round.step + 1 },
      );
    this.#isAlone = true;
    work.giveUp(question);
  }

  /** What is waited for, where it is somebody's opinion. */
  #openQuestion(work: Work, round: Round): string | undefined {
    const [question] = work.questions;
    if (!question) return undefined;
    if (differ(question)) return describe(question, round);
    return `${this.#nameOf(question)} of ${round.name} awaits the opinion of another worker than ${question.opinions[0]!.worker}`;
  }

  /** Nobody needs this lease any more; its holder still says something about it. */
  #release(work: Work, lease: Lease): void {
    work.end(lease);
    const holder = this.crew.find(lease.worker);
    if (!holder) return;
    const count = unitsOf(lease, this.#round!);
    this.crew.owe(holder, this.#round!.kind, { ...lease, count, heardAt: this.#heardAt(lease) });
    holder.cancel(lease.id);
  }

  /** A state is not gone on from any more. */
  #beginAnew(work: Work, unit: number): void {
    const begun = this.#begun.all.get(unit);
    for (const lease of work.leases.filter((lease) => lease.begun && lease.begun === begun)) this.#release(work, lease);
    this.#begun.drop(unit);
  }

  /** An answer cannot count. Another worker is asked; only where there is no other, the same one again. */
  #refuse(worker: Connection, work: Work, round: Round, lease: Lease, refusal: string): void {
    this.counts.refused++;
    if (lease.begun) {
      // Nobody can tell whose fault it is: who computes all of it will be held to that.
      const what = `${round.name}: ${refusal} for ${this.#nameOf(lease)} from ${worker.name} refused`;
      this.#settings.journal.warn("refused", `${what}; it went on from a state, and the unit is begun anew`, {
        worker: worker.name,
        step: round.step + 1,
      });
      this.#spoiledUnits.add(lease.first);
      this.#beginAnew(work, lease.first);
      return;
    }
    const isSecond = work.opinions(lease).has(worker.name);
    work.refuse(lease);
    const who = work.opinions(lease);
    const what = `${round.name}: ${refusal} for ${this.#nameOf(lease)}`;
    this.#settings.journal.warn("refused", `${what} from ${worker.name} refused`, {
      worker: worker.name,
      step: round.step + 1,
    });
    this.#punish(worker.name, `gave ${refusal} for ${this.#nameOf(lease)} of ${round.name}`);
    if (who.size >= mostOpinions) this.fail(new Diverged(`${what}, computed alike by ${[...who].join(", ")}`));
    else if ((who.size > 1 || isSecond) && !this.#hasOthers(who)) {
      const by = who.size > 1 ? `alike by ${[...who].join(", ")}` : `twice by ${worker.name}`;
      this.#doubt ??= { who, since: this.#clock.now(), error: new Diverged(`${what}, computed ${by}`) };
    }
  }

  /** Nobody is there to say otherwise: who comes within the timeout is still asked, then the run has diverged. */
  #decideDoubt(): void {
    if (!this.#doubt) return;
    const { who, since, error } = this.#doubt;
    if (this.#hasOthers(who)) this.#doubt = undefined;
    else if (this.#clock.now() - since >= this.#times.unmeasuredMs) this.fail(error);
  }

  /** Is there somebody else who computes, or will? */
  #hasOthers(who: ReadonlySet<string>): boolean {
    return this.crew.expectsMore || this.#others(who).length > 0;
  }

  /** Those who are here but these. */
  #present(who: ReadonlySet<string>): WorkerView[] {
    return this.crew.views(this.#round!.step, this.#round!.kind).filter(({ name }) => !who.has(name));
  }

  /** Of them, those who are not known to be mute. */
  #others(who: ReadonlySet<string>): WorkerView[] {
    const now = this.#clock.now();
    const mute = new Set(this.leases.filter(({ id }) => this.#charged.has(id)).map(({ worker }) => worker));
    return this.#present(who).filter(
      ({ name, owesSince = now }) => !mute.has(name) && now - owesSince < this.#times.unmeasuredMs,
    );
  }

  #onHandback(worker: Connection, id: number, reason: string, units: number, handed: HandedOver | undefined): void {
    const lease = this.#work?.find(id);
    if (!lease || lease.worker !== worker.name) {
      if (handed) this.crew.uploads.giveBack(handed.state);
      this.crew.settle(worker, id, units);
      return;
    }
    this.#work!.end(lease);
    if (handed && this.#keep(worker, lease, handed)) return;
    this.counts.lost++;
    this.#settings.journal.warn("late", `${worker.name} handed back lease ${this.#nameOf(lease)}: ${reason}`, {
      worker: worker.name,
      lease: this.#nameOf(lease),
    });
    if (worker.state === "ready" && this.crew.countHandback(worker) >= mostHandbacks)
      worker.refuse(`${worker.name} handed back ${mostHandbacks} leases in a row, the last because ${reason}`);
  }

  /** Does somebody else go on with its unit from a state? Its memory may be on its way still: it stays. */
  #isShared(lease: Lease): boolean {
    const begun = this.#begun.all.get(lease.first);
    return begun !== undefined && this.#work!.leases.some((other) => other !== lease && other.begun === begun);
  }

  /** @returns whether others can go on with what this worker hands over */
  #keep(worker: Connection, lease: Lease, { losses, state }: HandedOver): boolean {
    const { journal } = this.#settings;
    const { first: unit, begun } = lease;
    if (this.#isShared(lease)) {
      this.crew.uploads.giveBack(state);
      return false;
    }
    const why = this.#begun.keep({
      ...{ unit, state, arithmetic: worker.arithmetic },
      losses: [...(begun?.losses ?? []), ...losses],
      by: [...(begun?.by ?? []), { worker: worker.name, steps: losses.length }],
    });
    const { name, steps, part } = this.#round!;
    const replica = `replica ${(part?.first ?? 0) + unit} of ${name}`;
    const who = { worker: worker.name };
    if (why !== undefined) {
      journal.warn("refused", `the state of ${replica} from ${worker.name} refused: ${why}`, who);
      return false;
    }
    const done = stepsOf(begun) + losses.length;
    journal.tell("left", `${worker.name} handed over ${replica} at step ${done} of ${steps}`, who);
    return true;
  }
}

/** What is left of local steps when so many of them are done. */
const after = (local: LocalTerms, done: number): LocalTerms => ({
  ...local,
  learningRates: local.learningRates.slice(done),
  updates: local.updates + done,
  begun: done,
});

/** Units that its holder computes of a lease: a part of one where others have begun it. */
const unitsOf = ({ count, begun }: Lease, { steps }: Round): number => (begun ? 1 - stepsOf(begun) / steps : count);

/** How much of a round is computed: of each unit, what who is furthest has of it. */
function computedShare({ done, leases, units }: Work, round: Round): number {
  const shares = done.map(Number);
  for (const lease of leases) {
    const { first, count, heard } = lease;
    const share = 1 - (unitsOf(lease, round) / count) * (1 - (heard?.share ?? 0));
    for (let unit = first; unit < first + count; unit++) shares[unit] = Math.max(shares[unit]!, share);
  }
  return shares.reduce((sum, share) => sum + share, 0) / units;
}

/** Do those who were asked say different things? */
function differ({ opinions }: Question): boolean {
  return new Set(opinions.map(({ digest }) => digest)).size > 1;
}

function describe(question: Question, { name }: Round): string {
  const who = [...new Set(question.opinions.map(({ worker }) => worker))];
  return `${who.join(" and ")} give different answers for ${nodeName(question)} of ${name}, and no other worker is there to say who is right`;
}
