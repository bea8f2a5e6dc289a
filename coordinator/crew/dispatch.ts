// Has every part of a round computed once, by whoever is here: gives out leases as plan.ts decides, takes answers,
// gives lost and late parts to others, and sends away workers that cannot help. Nothing here reaches the numbers but
// through the tree sum, whose bits do not depend on the order of what happens here.
import { performance } from "node:perf_hooks";
import type { WebSocket } from "ws";
import { nodeName, type TreeSum, type VectorPool } from "../../shared/arithmetic/tree.ts";
import type { VectorOps } from "../../shared/arithmetic/vector.ts";
import { ConfigError } from "../../shared/errors.ts";
import { timesOf } from "../../shared/wire/protocol.ts";
import type { Journal } from "../journal.ts";
import type { Connection, ConnectionEvents, Welcome } from "./connection.ts";
import { Crew } from "./crew.ts";
import { type Lease, nextLease, untilLate } from "./plan.ts";
import { Work } from "./work.ts";

export interface DispatchOptions {
  readonly timeoutMs: number;
  /** Sequences of a unit. */
  readonly rows: number;
  /** Take workers whose results differ in their last bits. */
  readonly anyArithmetic: boolean;
  /** The arithmetic that a resumed run began with. */
  readonly arithmetic?: string | undefined;
  readonly ops: VectorOps;
  readonly pool: VectorPool;
  /** Hears of every worker that comes, goes, is late or refused. */
  readonly journal: Journal;
}

export interface Round {
  readonly purpose: "train" | "eval";
  /** Updates applied to the weights that this round needs. */
  readonly step: number;
  /** Windows of the round, in order; `rows` of them make a unit. */
  readonly starts: readonly number[];
  /** (count, T + 1) token ids of these windows. */
  readonly read: (starts: readonly number[]) => Promise<Uint16Array | Uint32Array>;
  /** Where gradients meet; none for an evaluation. */
  readonly sum?: TreeSum;
}

/** What came of a round. */
export interface Gathered {
  /** One mean loss for each unit (train) or window (eval), in order. */
  readonly losses: number[];
  readonly parts: ReturnType<Work["records"]>;
  readonly unitsByWorker: ReadonlyMap<string, number>;
}

/** A round was left because the run stops. */
export class Stopped extends Error {}

/** Windows of the largest evaluation lease: its answer is one number for each. */
const largestEvalWindows = 4096;
/** Leases that may be handed back in a row before a worker is sent away. */
const mostHandbacks = 3;
/** Answers of one part that may be non-finite before the run is called diverged. */
const mostRefusals = 2;

export class Dispatch {
  readonly crew: Crew;
  readonly counts = { counted: 0, hedged: 0, lost: 0, refused: 0 };
  /** Why nothing is being computed, as a sentence; null while something is. */
  waitingFor: string | null = null;
  arithmetic: string | undefined;
  readonly #options: DispatchOptions;
  readonly #times: ReturnType<typeof timesOf>;
  #work: Work | undefined;
  #sum: TreeSum | undefined;
  /** First unit of each answered part, and the losses of the part. */
  #losses = new Map<number, number[]>();
  #nextLeaseId = 1;
  #failure: Error | undefined;
  #wake: () => void = () => {};

  constructor(options: DispatchOptions) {
    this.#options = options;
    this.#times = timesOf(options.timeoutMs);
    this.arithmetic = options.anyArithmetic ? "any" : options.arithmetic;
    this.crew = new Crew(options.pool);
  }

  /** The leases that are out. */
  get leases(): readonly Lease[] {
    return this.#work?.leases ?? [];
  }

  /** @param mayShareMemory the worker is on this machine, or seems to be */
  admit(socket: WebSocket, welcome: Welcome, mayShareMemory: boolean): void {
    this.crew.admit(socket, welcome, mayShareMemory, this.#events);
  }

  /** Make the round in hand, and every later one, throw this. */
  fail(reason: Error): void {
    this.#failure ??= reason;
    this.#wake();
  }

  /**
   * Compute a round.
   * @throws what fail() was given; ConfigError when the numbers stop being numbers
   */
  async gather(round: Round): Promise<Gathered> {
    const { rows } = this.#options;
    const units = Math.ceil(round.starts.length / rows);
    const largest =
      round.purpose === "train" ? units : 2 ** Math.floor(Math.log2(Math.max(1, largestEvalWindows / rows)));
    const work = new Work(round.purpose, round.step, units, largest, this.#times.graceMs);
    this.#work = work;
    this.#sum = round.sum;
    this.#losses = new Map();
    while (!work.complete) {
      if (this.#failure) throw this.#failure;
      const woken = new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      await this.#assign(work, round);
      if (work.complete) break;
      const timer = setTimeout(() => this.#wake(), this.#untilNextLook(work));
      await woken;
      clearTimeout(timer);
      this.#expire(work);
    }
    this.waitingFor = null;
    const losses = [...this.#losses].sort(([a], [b]) => a - b).flatMap(([, values]) => values);
    return { losses, parts: work.records(), unitsByWorker: work.unitsByWorker() };
  }

  /** Give out what can be given out, fastest first, a first lease for everyone before a second for anyone. */
  async #assign(work: Work, round: Round): Promise<void> {
    const { rows, journal } = this.#options;
    const able = this.crew.able(work.step, work.purpose);
    const views = this.crew.views(work.purpose);
    this.waitingFor =
      this.crew.size === 0
        ? "no worker is connected"
        : able.length === 0
          ? `none of ${this.crew.size} connected workers has the weights of step ${work.step} yet`
          : null;
    for (const worker of [...able, ...able]) {
      const view = views.find(({ name }) => name === worker.name);
      // It may have gone while the windows of another's lease were read.
      if (!view || !worker.hasWeightsOf(work.step)) continue;
      const { grant, why } = nextLease(work, view, views, performance.now());
      if (!grant) continue;
      if (grant.hedgeOf) {
        this.counts.hedged++;
        journal.tell("late", why, { worker: grant.hedgeOf.worker, step: work.step });
      }
      const { id, first, count } = work.grant(grant, this.#nextLeaseId++, worker.name, performance.now());
      const { purpose, step } = work;
      const starts = round.starts.slice(first * rows, (first + count) * rows);
      const windows = await round.read(starts);
      worker.lease({ type: "lease", lease: id, purpose, step, first, count, rows }, windows, starts.length);
    }
  }

  /** Milliseconds until something may have to be done although no message comes. */
  #untilNextLook(work: Work): number {
    const { pingEveryMs } = this.#times;
    return Math.min(pingEveryMs, 1 + untilLate(work, this.crew.views(work.purpose), performance.now()));
  }

  /** Close the connections that sit on a lease beyond all patience. */
  #expire(work: Work): void {
    const views = this.crew.views(work.purpose);
    for (const lease of [...work.leases]) {
      const worker = this.crew.find(lease.worker);
      const speed = views.find(({ name }) => name === lease.worker)?.unitsPerSecond;
      const heldMs = performance.now() - lease.grantedAt;
      if (heldMs > this.#times.leaseMs + (speed ? (10_000 * lease.count) / speed : 0))
        worker?.close(`lease ${nodeName(lease)} of step ${work.step} not answered in ${(heldMs / 1000).toFixed(0)} s`);
    }
  }

  readonly #events: ConnectionEvents = {
    ready: (worker) => this.#onReady(worker),
    changed: () => this.#wake(),
    answered: (worker, id, losses, gradient) => {
      this.#onAnswer(worker, id, losses, gradient);
      this.#wake();
    },
    handedBack: (worker, id, reason) => {
      this.#onHandback(worker, id, reason);
      this.#wake();
    },
    gone: (worker, reason) => {
      const held = this.leases.filter((lease) => lease.worker === worker.name);
      for (const lease of held) this.#work?.end(lease.id);
      this.counts.lost += held.length;
      if (worker.name && !this.crew.isFinished)
        this.#options.journal.tell("left", `worker ${worker.name} gone: ${reason}`, {
          worker: worker.name,
          leases: held.map(nodeName),
        });
      this.#wake();
    },
  };

  #onReady(worker: Connection): void {
    const { journal, anyArithmetic } = this.#options;
    this.arithmetic ??= worker.arithmetic;
    if (!anyArithmetic && worker.arithmetic !== this.arithmetic) {
      const reason = `this run computes with "${this.arithmetic}", worker ${worker.name} with "${worker.arithmetic}": the bits would differ; start the worker with the same --engine, --isa and --precision, or the run with --any-arithmetic`;
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
  }

  #onAnswer(worker: Connection, id: number, losses: number[], gradient: Float32Array | undefined): void {
    const { ops, pool } = this.#options;
    const work = this.#work;
    const lease = work?.end(id);
    if (!work || !lease) {
      // Of a round that is over, or of a part that another answered first.
      if (gradient) pool.give(gradient);
      return;
    }
    this.crew.learn(worker, work.purpose, lease, performance.now());
    const finite = losses.every(Number.isFinite) && (!gradient || Number.isFinite(ops.sumOfSquares(gradient)));
    if (!finite) {
      if (gradient) pool.give(gradient);
      this.#refuse(worker, work, lease);
      return;
    }
    this.#losses.set(lease.first, losses);
    for (const copy of work.count(lease)) {
      work.end(copy.id);
      this.crew.find(copy.worker)?.cancel(copy.id);
    }
    if (!gradient) return;
    this.counts.counted++;
    this.crew.credit(worker, lease.count);
    this.#sum!.add(lease, gradient);
  }

  #refuse(worker: Connection, work: Work, lease: Lease): void {
    this.counts.refused++;
    const refusals = (work.refusals.get(lease.first) ?? 0) + 1;
    work.refusals.set(lease.first, refusals);
    const what = `${work.purpose === "train" ? "the gradient" : "the loss"} of ${nodeName(lease)} in step ${work.step + 1}`;
    this.#options.journal.warn("refused", `${what} refused: it is not finite`, { worker: worker.name });
    if (refusals >= mostRefusals)
      this.fail(
        new ConfigError(
          `the run diverged: ${what} is not finite, computed twice; start again from a checkpoint with --init-from and a lower --learning-rate`,
        ),
      );
  }

  #onHandback(worker: Connection, id: number, reason: string): void {
    const lease = this.#work?.end(id);
    if (!lease) return;
    this.counts.lost++;
    this.#options.journal.warn("late", `${worker.name} handed back lease ${nodeName(lease)}: ${reason}`, {
      worker: worker.name,
      lease: nodeName(lease),
    });
    if (worker.state !== "leaving" && this.crew.countHandback(worker) >= mostHandbacks)
      worker.refuse(`${worker.name} handed back ${mostHandbacks} leases in a row, the last because ${reason}`);
  }
}
