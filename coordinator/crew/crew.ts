// The workers of a run: who is here, how fast each is, and which weights they are sent. Joining and leaving at any
// moment is normal.
import { performance } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import type { WebSocket } from "ws";
import type { VectorPool } from "../../shared/arithmetic/tree.ts";
import { SharedVector } from "../../shared/wire/shared-memory.ts";
import type { GoneWorker, WorkerStatus } from "../status.ts";
import { Connection, type ConnectionEvents, WeightsSnapshot, type Welcome, type WorkerMemory } from "./connection.ts";
import type { Lease, WorkerView } from "./plan.ts";

export type Purpose = "train" | "eval";

/** What the run has seen of one worker. */
interface Experience {
  /** Units a second, smoothed over the last answers. */
  readonly speed: { train?: number; eval?: number };
  lastAnswerAt: number;
  shardsDone: number;
  /** Leases handed back since its last answer. */
  handbacks: number;
}

/** Workers that left and are still shown. */
const mostGone = 50;
/** Weight of the newest answer in the smoothed speed. */
const smoothing = 0.3;

export class Crew {
  readonly #members = new Map<Connection, Experience>();
  readonly #pool: VectorPool;
  #snapshot: WeightsSnapshot | undefined;
  #spare: WeightsSnapshot | undefined;
  /** Where workers on this machine find the newest weights; made for the first of them. */
  #shared: SharedVector | undefined;
  #gone: GoneWorker[] = [];
  #finished: string | undefined;
  #bytesIn = 0;
  #bytesOut = 0;

  /** @param pool of gradients (P) */
  constructor(pool: VectorPool) {
    this.#pool = pool;
  }

  /** Shared memory for one more worker, where there is such a thing. */
  #shareMemory(): WorkerMemory | undefined {
    if (!this.#shared) {
      this.#shared = SharedVector.create(this.#pool.length);
      if (this.#snapshot) this.#shared?.values.set(this.#snapshot.weights);
    }
    const gradient = this.#shared && SharedVector.create(this.#pool.length);
    return gradient && { weights: this.#shared!, gradient };
  }

  get size(): number {
    return this.#members.size;
  }

  get isFinished(): boolean {
    return this.#finished !== undefined;
  }

  /**
   * Take in a new connection. Its events reach the listener after the crew's own book-keeping.
   * @param mayShareMemory it comes from this machine, or seems to
   */
  admit(socket: WebSocket, welcome: Welcome, mayShareMemory: boolean, events: ConnectionEvents): void {
    const connection = new Connection(
      socket,
      welcome,
      mayShareMemory ? this.#shareMemory() : undefined,
      this.#pool,
      {
        ...events,
        gone: (worker, reason) => {
          this.#remember(worker, reason);
          this.#members.delete(worker);
          this.#bytesIn += worker.bytesIn;
          this.#bytesOut += worker.bytesOut;
          events.gone(worker, reason);
        },
      },
      (wanted) => this.#uniqueName(wanted),
    );
    this.#members.set(connection, { speed: {}, lastAnswerAt: 0, shardsDone: 0, handbacks: 0 });
    if (this.#finished !== undefined) void connection.finish(this.#finished);
  }

  /** Those who left stay in sight, with the reason. */
  #remember({ name, host, device }: Connection, why: string): void {
    if (name === "" || this.isFinished) return;
    const shardsDone = [...this.#members].find(([worker]) => worker.name === name)?.[1].shardsDone ?? 0;
    const others = this.#gone.filter(({ id }) => id !== name);
    this.#gone = [{ id: name, host, device, shardsDone, at: new Date().toISOString(), why }, ...others].slice(
      0,
      mostGone,
    );
  }

  /** Workers that left and have not come back, the last first. */
  gone(): GoneWorker[] {
    const here = new Set([...this.#members.keys()].map((worker) => worker.name));
    return this.#gone.filter(({ id }) => !here.has(id));
  }

  #uniqueName(wanted: string): string {
    const taken = new Set([...this.#members.keys()].map((worker) => worker.name));
    let name = wanted;
    for (let i = 2; taken.has(name); i++) name = `${wanted}-${i}`;
    return name;
  }

  /** New weights for everyone, encoded once. */
  broadcast(step: number, weights: Float32Array): void {
    const old = this.#snapshot;
    const spare = this.#spare?.users === 0 ? this.#spare : undefined;
    this.#shared?.values.set(weights);
    this.#snapshot = new WeightsSnapshot(step, this.#shared?.values ?? weights, spare);
    this.#spare = old;
    for (const worker of this.#members.keys()) worker.offer(this.#snapshot);
  }

  /** The newest weights for one who has just come. */
  supply(worker: Connection): void {
    if (this.#snapshot) worker.offer(this.#snapshot);
  }

  /** Those who can compute with the weights of this step, fastest first. */
  able(step: number, purpose: Purpose): Connection[] {
    const speed = (worker: Connection) => this.#members.get(worker)?.speed[purpose] ?? 0;
    return [...this.#members.keys()]
      .filter((worker) => worker.hasWeightsOf(step))
      .sort((a, b) => speed(b) - speed(a) || a.name.localeCompare(b.name));
  }

  /** Everyone who computes or soon will: those whose weights are still on the way count in the shares too. */
  views(purpose: Purpose): WorkerView[] {
    return [...this.#members]
      .filter(([worker]) => worker.state === "ready")
      .map(([worker, { speed }]) => ({ name: worker.name, unitsPerSecond: speed[purpose] }));
  }

  /** A lease was answered: learn the worker's speed, the wire included. */
  learn(worker: Connection, purpose: Purpose, lease: Lease, now: number): void {
    const seen = this.#members.get(worker);
    if (!seen) return;
    // A lease that waited behind another was not worked on before that one's answer.
    const seconds = Math.max(1e-4, (now - Math.max(lease.grantedAt, seen.lastAnswerAt)) / 1000);
    const before = seen.speed[purpose];
    const speed = lease.count / seconds;
    seen.speed[purpose] = before === undefined ? speed : before + smoothing * (speed - before);
    seen.lastAnswerAt = now;
    seen.handbacks = 0;
  }

  credit(worker: Connection, shards: number): void {
    const seen = this.#members.get(worker);
    if (seen) seen.shardsDone += shards;
  }

  /** @returns how often in a row this worker has handed a lease back */
  countHandback(worker: Connection): number {
    const seen = this.#members.get(worker);
    return seen ? ++seen.handbacks : 0;
  }

  find(name: string): Connection | undefined {
    return [...this.#members.keys()].find((worker) => worker.name === name);
  }

  /** Send everyone home, and whoever still comes. Resolves when all have been told, or soon. */
  async finish(reason: string): Promise<void> {
    this.#finished = reason;
    const told = Promise.all([...this.#members.keys()].map((worker) => worker.finish(reason)));
    await Promise.race([told, sleep(2000, undefined, { ref: false })]);
  }

  bytes(): { bytesIn: number; bytesOut: number } {
    let [bytesIn, bytesOut] = [this.#bytesIn, this.#bytesOut];
    for (const worker of this.#members.keys()) {
      bytesIn += worker.bytesIn;
      bytesOut += worker.bytesOut;
    }
    return { bytesIn, bytesOut };
  }

  /** @param tokensPerSec of each worker that had a part in the last steps */
  status(step: number, leases: readonly Lease[], tokensPerSec: ReadonlyMap<string, number>): WorkerStatus[] {
    return [...this.#members]
      .filter(([worker]) => worker.name !== "")
      .map(([worker, seen]) => ({
        id: worker.name,
        host: worker.host,
        device: worker.device,
        arithmetic: worker.arithmetic,
        state: worker.state === "leaving" ? "leaving" : worker.hasWeightsOf(step) ? "contributing" : "connected",
        step: Math.max(0, worker.step),
        leasesHeld: leases.filter((lease) => lease.worker === worker.name).length,
        shardsDone: seen.shardsDone,
        tokensPerSec: tokensPerSec.get(worker.name) ?? null,
        bytesIn: worker.bytesIn,
        bytesOut: worker.bytesOut,
        roundTripMs: worker.roundTripMs,
        connectedSeconds: (performance.now() - worker.connectedAt) / 1000,
      }));
  }
}
