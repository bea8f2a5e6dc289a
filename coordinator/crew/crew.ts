// The workers of a run: who is here, how fast each is, and what it still owes. Joining and leaving at any moment is
// normal.
import type { Codec } from "../../shared/arithmetic/codec.ts";
import type { VectorPool } from "../../shared/arithmetic/tree.ts";
import { type Clock, sleep } from "../../shared/clock.ts";
import type { Pipe } from "../../shared/wire/pipe.ts";
import { largestLease, type RoundKind, type WeightsUpdate, type Welcome } from "../../shared/wire/protocol.ts";
import type { GoneWorker, WorkerStatus } from "../status.ts";
import type { Stopwatch } from "../stopwatch.ts";
import { type Passage, Weights } from "../weights.ts";
import { Connection, type ConnectionEvents } from "./connection.ts";
import { longestHeldMs, type Pace, paceAfter } from "./pace.ts";
import type { Lease, WorkerView } from "./plan.ts";
import { Quarantine, type Quarantined } from "./quarantine.ts";
import { Standing } from "./standing.ts";
import { Uploads } from "./uploads.ts";

/** Where a connection comes from. */
export interface Origin {
  /** From this machine, or so it seems. */
  readonly mayShareMemory: boolean;
  /** Undefined for this machine's own. */
  readonly address: string | undefined;
}

/** A lease that is over for everyone but its holder. */
interface Debt {
  readonly kind: RoundKind;
  readonly count: number;
  readonly grantedAt: number;
  /** When its holder last said a word of it, or of one before it; else when it was granted. */
  readonly heardAt: number;
}

/** What the run has seen of one worker. */
interface Experience {
  /** In each kind of round, smoothed over the last answers. */
  readonly paces: Map<RoundKind, Pace>;
  /** Leases that others answered first, or of rounds that are over, until it answers or hands them back. */
  readonly owes: Map<number, Debt>;
  lastAnswerAt: number;
  shardsDone: number;
  /** Kinds of rounds in which another has given the same answer as it. */
  readonly confirmed: Set<RoundKind>;
  /** Leases handed back since its last answer. */
  handbacks: number;
}

/** Workers that left and are still shown. */
const mostGone = 50;
/** Names whose address is remembered: the longest forgotten goes first. */
const mostNames = 4096;
/** How long a goodbye may take. */
const goodbyeMs = 2000;

const isGoing = ({ state }: Connection): boolean => state === "leaving" || state === "refused";

export class Crew {
  readonly standing = new Standing();
  readonly quarantine: Quarantine;
  readonly uploads: Uploads;
  readonly #clock: Clock;
  readonly #codec: Codec;
  readonly #weights: Weights;
  readonly #members = new Map<Connection, Experience>();
  readonly #byName = new Map<string, Connection>();
  /** Where each name came from last, also of those that are gone. */
  readonly #addresses = new Map<string, string | undefined>();
  #gone: GoneWorker[] = [];
  #finished: string | undefined;
  #bytesIn = 0;
  #bytesOut = 0;

  /** @param pool of gradients (P) @param codec of the run's wire @param roomBytes for gradients; left out: the usual */
  constructor(pool: VectorPool, codec: Codec, clock: Clock, quarantine = new Quarantine(), roomBytes?: number) {
    this.#clock = clock;
    this.quarantine = quarantine;
    this.#codec = codec;
    this.#weights = new Weights(pool.length, codec);
    this.uploads = new Uploads(pool, () => clock.now(), roomBytes);
  }

  get size(): number {
    return this.#members.size;
  }

  /** Somebody is about to be ready. */
  get expectsMore(): boolean {
    return [...this.#members.keys()].some(({ state }) => state === "greeting" || state === "opening");
  }

  /** Those who have opened their engines. */
  get ready(): Connection[] {
    return [...this.#members.keys()].filter(({ state }) => state === "ready");
  }

  get isFinished(): boolean {
    return this.#finished !== undefined;
  }

  /**
   * Take in a new connection. Its events reach the listener after the crew's own book-keeping.
   * @param from whether it may share memory: it comes from this machine, or seems to; else its address
   */
  admit(pipe: Pipe, welcome: Welcome, { mayShareMemory, address }: Origin, events: ConnectionEvents): void {
    const connection = new Connection({
      pipe,
      welcome,
      clock: this.#clock,
      memory: mayShareMemory ? this.#weights.share() : undefined,
      uploads: this.uploads,
      codec: this.#codec,
      address,
      uniqueName: (wanted) => this.#uniqueName(connection, wanted),
      whyKeptOut: (name) => {
        const found = this.quarantine.of(name, address);
        return found && `worker ${name} is in quarantine: ${found.names[0]} ${found.why}; --allow lets it in again`;
      },
      events: {
        ...events,
        gone: (worker, reason) => {
          this.#forget(worker, reason);
          events.gone(worker, reason);
        },
      },
    });
    this.#members.set(connection, {
      paces: new Map(),
      owes: new Map(),
      lastAnswerAt: Number.NEGATIVE_INFINITY,
      shardsDone: 0,
      confirmed: new Set(),
      handbacks: 0,
    });
    if (this.#finished !== undefined) void connection.finish(this.#finished);
  }

  #forget(worker: Connection, why: string): void {
    this.#remember(worker, why);
    this.#members.delete(worker);
    if (this.#byName.get(worker.name) === worker) this.#byName.delete(worker.name);
    this.#bytesIn += worker.bytesIn;
    this.#bytesOut += worker.bytesOut;
  }

  /** Those who left stay in sight, with the reason. */
  #remember(worker: Connection, why: string): void {
    const { name, host, device } = worker;
    if (name === "" || this.isFinished) return;
    const shardsDone = this.#members.get(worker)?.shardsDone ?? 0;
    const others = this.#gone.filter(({ id }) => id !== name);
    this.#gone = [{ id: name, host, device, shardsDone, at: new Date().toISOString(), why }, ...others].slice(
      0,
      mostGone,
    );
  }

  /** Workers that left and have not come back, the last first. */
  gone(): GoneWorker[] {
    return this.#gone.filter(({ id }) => !this.#byName.has(id));
  }

  #uniqueName(worker: Connection, wanted: string): string {
    let name = wanted;
    for (let i = 2; this.#byName.has(name); i++) name = `${wanted}-${i}`;
    this.#byName.set(name, worker);
    this.#addresses.delete(name);
    this.#addresses.set(name, worker.address);
    if (this.#addresses.size > mostNames) this.#addresses.delete(this.#addresses.keys().next().value!);
    return name;
  }

  find(name: string): Connection | undefined {
    return this.#byName.get(name);
  }

  /** New weights for everyone, encoded once. @param update what made them, where that may travel instead @param passage sent to some already */
  broadcast(step: number, weights: Float32Array, update?: WeightsUpdate, passage?: Passage): void {
    const snapshot = this.#weights.publish(step, weights, update, passage);
    for (const worker of this.#members.keys()) if (!worker.hasPassed(passage)) worker.offer(snapshot);
  }

  /** New weights for all who can use them, as they come; the others wait until they are whole. */
  pass(passage: Passage): void {
    for (const worker of this.#members.keys()) worker.pass(passage);
  }

  /** The newest weights for one who has just come. */
  supply(worker: Connection): void {
    if (this.#weights.newest) worker.offer(this.#weights.newest);
  }

  /** Those who take no more leases, and still say what becomes of theirs. */
  get leaving(): Set<string> {
    return new Set([...this.#members.keys()].filter(({ state }) => state === "leaving").map(({ name }) => name));
  }

  /** Those who take part in a round on the weights of this step, those whose weights are still on the way among them. */
  views(step: number, kind: RoundKind): WorkerView[] {
    const views: WorkerView[] = [];
    for (const [worker, { paces, owes }] of this.#members) {
      if (worker.state !== "ready") continue;
      const [debt] = owes.values();
      views.push({
        name: worker.name,
        arithmetic: worker.arithmetic,
        able: worker.hasWeightsOf(step),
        takesOver: worker.takesOver,
        pace: paces.get(kind),
        onProbation: this.standing.probation(worker.name) !== undefined,
        owesSince: debt?.heardAt,
      });
    }
    return views;
  }

  /** A lease is over for everyone but its holder, who will still say something about it. */
  owe(
    worker: Connection,
    kind: RoundKind,
    { id, count, grantedAt, heardAt }: Omit<Debt, "kind"> & { id: number },
  ): void {
    this.#members.get(worker)?.owes.set(id, { kind, count, grantedAt, heardAt });
  }

  /** The holder has said something about a lease that was over: learn from it. @param units that it has computed */
  settle(worker: Connection, id: number, units: number | "all", computeMs?: number): void {
    const owed = this.#members.get(worker)?.owes.get(id);
    if (!owed) return;
    this.#members.get(worker)!.owes.delete(id);
    const count = units === "all" ? owed.count : Math.min(units, owed.count);
    // Of less than a shard of the largest step it says nothing.
    if (count >= 1 / largestLease) this.learn(worker, owed.kind, { count, grantedAt: owed.grantedAt }, computeMs);
  }

  /** Connections that owe an answer beyond all patience. */
  *debtors(leaseMs: number): Generator<{ worker: Connection; heardAt: number }> {
    for (const [worker, { owes, paces }] of this.#members)
      for (const { heardAt, kind, count } of owes.values())
        if (this.#clock.now() - heardAt > longestHeldMs(leaseMs, paces.get(kind), count)) {
          yield { worker, heardAt };
          break;
        }
  }

  /** Units were computed: learn the worker's pace. @param computeMs by its own word, where it says so */
  learn(worker: Connection, kind: RoundKind, units: { count: number; grantedAt: number }, computeMs?: number): void {
    const seen = this.#members.get(worker);
    if (!seen) return;
    const now = this.#clock.now();
    // A lease that waited behind another was not worked on before that one's answer.
    const measuredMs = now - Math.max(units.grantedAt, seen.lastAnswerAt);
    // Answers that were held up come together: none of them took less than it was computed.
    const ms = Math.max(measuredMs, Math.min(computeMs ?? 0, now - units.grantedAt));
    const computeSeconds = computeMs === undefined ? undefined : computeMs / 1000;
    seen.paces.set(kind, paceAfter(seen.paces.get(kind), units.count, ms / 1000, computeSeconds));
    seen.lastAnswerAt = now;
    seen.handbacks = 0;
  }

  lastAnswerAt(worker: Connection): number {
    return this.#members.get(worker)?.lastAnswerAt ?? Number.NEGATIVE_INFINITY;
  }

  /** An answer of the worker's counted. */
  count(name: string, shards: number): void {
    const worker = this.#byName.get(name);
    if (worker) this.#members.get(worker)!.shardsDone += shards;
  }

  /** Another has said the same as this worker: from now on a share of its answers is held against another's. */
  confirm(name: string, kind: RoundKind): void {
    const worker = this.#byName.get(name);
    if (worker) this.#members.get(worker)!.confirmed.add(kind);
  }

  isConfirmed(worker: Connection, kind: RoundKind): boolean {
    return this.#members.get(worker)?.confirmed.has(kind) ?? false;
  }

  /**
   * Nobody of this name is let in any more, nor anybody from its address, unless others who are trusted work from there;
   * who is here goes.
   */
  keepOut(name: string, why: string, step: number): Quarantined {
    const from = this.#addresses.get(name);
    const isShared = [...this.#members].some(
      ([worker, { paces }]) =>
        worker.address === from &&
        worker.name !== name &&
        paces.size > 0 &&
        this.standing.probation(worker.name) === undefined,
    );
    const address = from === undefined || isShared ? null : from;
    const others =
      address === null ? [] : [...this.#addresses].filter(([, at]) => at === address).map(([other]) => other);
    const entry = { names: [...new Set([name, ...others])], address, why, step, at: new Date().toISOString() };
    this.quarantine.add(entry);
    for (const worker of [...this.#members.keys()])
      if (this.quarantine.of(worker.name, worker.address) === entry) worker.refuse(`${name} ${why}`);
    return entry;
  }

  /** @returns how often in a row this worker has handed a lease back */
  countHandback(worker: Connection): number {
    const seen = this.#members.get(worker);
    return seen ? ++seen.handbacks : 0;
  }

  /** Send home, for good, those for whom there is a reason. */
  refuseWhere(reason: (worker: Connection) => string | undefined): void {
    for (const worker of [...this.#members.keys()]) {
      const why = worker.state === "ready" ? reason(worker) : undefined;
      if (why) worker.refuse(why);
    }
  }

  /** Send everyone home, and whoever still comes. Resolves when all have been told, or soon. */
  async finish(reason: string): Promise<void> {
    this.#finished = reason;
    const told = new AbortController();
    const waited = sleep(this.#clock, goodbyeMs, told.signal);
    void Promise.all([...this.#members.keys()].map((worker) => worker.finish(reason))).then(() => told.abort());
    await waited;
  }

  /** The coordinator goes and the run does not: workers wait for it to come back. */
  suspend(reason: string): void {
    this.#finished = undefined;
    for (const worker of [...this.#members.keys()]) worker.close(reason);
  }

  bytes(): { bytesIn: number; bytesOut: number } {
    let [bytesIn, bytesOut] = [this.#bytesIn, this.#bytesOut];
    for (const worker of this.#members.keys()) {
      bytesIn += worker.bytesIn;
      bytesOut += worker.bytesOut;
    }
    return { bytesIn, bytesOut };
  }

  /** @param over the last steps, of each worker that had a part in them */
  status(
    step: number,
    leases: readonly Lease[],
    { tokensPerSecond, utilisation }: Pick<Stopwatch, "tokensPerSecond" | "utilisation">,
  ): WorkerStatus[] {
    const held = (name: string) => leases.filter(({ worker }) => worker === name);
    return [...this.#members]
      .filter(([worker]) => worker.name !== "")
      .map(([worker, seen]) => ({
        id: worker.name,
        host: worker.host,
        device: worker.device,
        arithmetic: worker.arithmetic,
        state: isGoing(worker) ? "leaving" : worker.hasWeightsOf(step) ? "contributing" : "connected",
        probation: this.standing.probation(worker.name) ?? null,
        step: Math.max(0, worker.step),
        leasesHeld: held(worker.name).length,
        leaseProgress: held(worker.name)[0]?.heard?.share ?? null,
        leasesOwed: seen.owes.size,
        shardsDone: seen.shardsDone,
        tokensPerSec: tokensPerSecond.get(worker.name) ?? null,
        utilisation: utilisation.get(worker.name) ?? null,
        bytesIn: worker.bytesIn,
        bytesOut: worker.bytesOut,
        roundTripMs: worker.roundTripMs,
        connectedSeconds: (this.#clock.now() - worker.connectedAt) / 1000,
      }));
  }
}
