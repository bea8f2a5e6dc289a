// A relay: a worker to its coordinator, a coordinator to workers of its own, for sites with many of them and for
// coordinators whose link is the limit. It computes a lease by dealing it on; what comes out is the same bits, and a relay
// that is gone is a worker that is gone. Trees of any depth: its workers may be relays.
import { randomUUID } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import type { Logger } from "pino";
import type { Connection } from "../coordinator/crew/connection.ts";
import type { Crew } from "../coordinator/crew/crew.ts";
import { Dispatch, Diverged, Spoiled } from "../coordinator/crew/dispatch.ts";
import { Journal } from "../coordinator/journal.ts";
import type { RelayStatus, RelayView } from "../coordinator/serve/relay-pages.ts";
import { Passage } from "../coordinator/weights.ts";
import { type Codec, codecOf } from "../shared/arithmetic/codec.ts";
import { bestCodec, bestOps } from "../shared/arithmetic/native.ts";
import { VectorPool } from "../shared/arithmetic/tree.ts";
import type { Clock } from "../shared/clock.ts";
import type { Options } from "../shared/config.ts";
import { EngineError } from "../shared/errors.ts";
import type { Frame } from "../shared/wire/frame.ts";
import type { Pipe } from "../shared/wire/pipe.ts";
import type { Welcome } from "../shared/wire/protocol.ts";
import { Below, type Computer, type Computers, Deserted } from "../worker/computer.ts";
import type { Assignment, Outcome } from "../worker/task/task.ts";
import { LeasedRound } from "./round.ts";

export interface RelaySettings {
  readonly options: Pick<Options, "engine" | "isa" | "anyArithmetic" | "sharedMemory">;
  readonly clock: Clock;
  /** For sums and codecs. */
  readonly threads: number;
  /** For gradients on their way in and in the sum; left out: the usual. */
  readonly roomBytes?: number;
  readonly log: Logger;
}

/** What a relay's workers work on: the coordinator's run, as its welcome says. */
interface Run {
  readonly welcome: Welcome;
  readonly dispatch: Dispatch;
  /** Of all vectors here: what the workers send becomes what goes up. */
  readonly pool: VectorPool;
  /** Of its wire. */
  readonly codec: Codec;
}

export class Relay implements Computers, RelayView {
  readonly #settings: RelaySettings;
  readonly #id = randomUUID();
  #run: Run | undefined;
  /** It has a coordinator: only then does it take new workers, who may know another. */
  #isUp = false;
  /** Told whenever a worker is ready, or gone. */
  #look: () => void = () => {};
  /** The coordinator is told who computes here. */
  #tell: (device: string) => void = () => {};
  #device = "";
  /** The weights that are on their way through, or were last. */
  #passage: Passage | undefined;

  constructor(settings: RelaySettings) {
    this.#settings = settings;
  }

  /** A worker has connected. @param isLocal from this machine, or by way of it @param address where it comes from, else */
  admit(pipe: Pipe, isLocal: boolean, address: string | undefined): void {
    const mayShareMemory = isLocal && this.#settings.options.sharedMemory;
    if (this.#run && this.#isUp) {
      const { dispatch, welcome } = this.#run;
      dispatch.admit(pipe, { ...welcome, above: [this.#id, ...(welcome.above ?? [])] }, { mayShareMemory, address });
    } else pipe.close(1013, "this relay has no coordinator at the moment");
  }

  /** @returns once a worker is there: what it computes with is what the relay does */
  async for(
    { sharedMemory: _, ...welcome }: Welcome,
    signal: AbortSignal,
    tell: (device: string) => void,
  ): Promise<Computer> {
    if (welcome.above?.includes(this.#id)) throw new Below("it stands below this relay, and has its work from here");
    if (!isDeepStrictEqual(welcome, this.#run?.welcome)) {
      this.suspend("the coordinator has another run, or there are other relays between");
      const { wire, vectors, parameters } = welcome;
      const codec = codecOf(wire, vectors, parameters, (format) => bestCodec(format, this.#settings.threads));
      const pool = new VectorPool(vectors * parameters);
      this.#run = { welcome, codec, pool, dispatch: this.#dispatchFor(welcome, codec, pool) };
    }
    this.#isUp = true;
    signal.addEventListener("abort", () => {
      this.#isUp = false;
      this.#tell = () => {};
      this.#passage?.end();
    });
    const run = this.#run!;
    const { dispatch } = run;
    const { crew } = dispatch;
    while (crew.ready.length === 0 && !signal.aborted)
      await new Promise<void>((resolve) => {
        this.#look = resolve;
        signal.addEventListener("abort", () => resolve(), { once: true });
      });
    if (signal.aborted) throw new Deserted("no worker came while there was a coordinator");
    dispatch.arithmetic ??= crew.ready[0]!.arithmetic;
    this.#device = deviceOf(crew.ready);
    this.#tell = tell;
    return {
      arithmetic: dispatch.arithmetic,
      device: this.#device,
      plannedBytes: 0,
      // The coordinator writes over it while a worker that comes late would still be sent from it.
      sharesMemory: false,
      // What its workers leave it gives to others of them; its own lease it finishes.
      takesOver: false,
      pool: run.pool,
      setWeights: async (step, sent, update) => crew.broadcast(step, sent, update, this.#passage),
      passOn: (frame, from) => this.#passOn(crew, frame, from),
      compute: (assignment) => this.#compute(run, assignment),
    };
  }

  /** Weights go down as they come. */
  #passOn(crew: Crew, { id, offset, data, total, message }: Frame, from: number | undefined): void {
    if (offset === 0) {
      this.#passage?.end();
      this.#passage = new Passage(id, from);
      crew.pass(this.#passage);
    }
    this.#passage?.push(message, offset + data.length === total);
  }

  async #compute({ dispatch, codec }: Run, assignment: Assignment): Promise<Outcome | undefined> {
    const { signal } = assignment;
    const stop = new AbortController();
    const abort = () => stop.abort();
    signal.addEventListener("abort", abort);
    this.#look = () => {
      if (dispatch.crew.ready.length === 0) stop.abort(new Deserted("none of the relay's workers is left"));
    };
    this.#look();
    try {
      for (;;) {
        const round = new LeasedRound(assignment, bestOps(this.#settings.threads), codec);
        try {
          const { secondsByWorker } = await dispatch.gather(round, stop.signal);
          // The way within the site does not grow with the lease.
          return { ...round.outcome(), computeMs: 1000 * Math.max(0, ...secondsByWorker.values()) };
        } catch (error) {
          if (error instanceof Diverged) return round.hopeless();
          round.giveUp();
          if (signal.aborted) return undefined;
          if (!(error instanceof Spoiled)) throw error;
          // What was sent of it cannot be taken back here.
          if (round.hasBegun) throw new EngineError(`${error.message}; its sum was on its way`);
        }
      }
    } finally {
      signal.removeEventListener("abort", abort);
      this.#look = () => {};
    }
  }

  #dispatchFor({ seed, precision, timeoutMs }: Welcome, codec: Codec, pool: VectorPool): Dispatch {
    const { options, clock, threads, roomBytes, log } = this.#settings;
    return new Dispatch({
      roomBytes,
      // Second opinions are the coordinator's to ask for.
      options: { ...options, precision, seed, verify: 0, timeout: timeoutMs / 1000 },
      secret: 0,
      clock,
      pool,
      codec,
      ops: bestOps(threads),
      journal: new Journal(log),
      onCrew: () => {
        const workers = this.#run?.dispatch.crew.ready ?? [];
        const device = workers.length > 0 ? deviceOf(workers) : this.#device;
        if (device !== this.#device) this.#tell(device);
        this.#device = device;
        this.#look();
      },
    });
  }

  relayStatus(): RelayStatus {
    const none = { relay: true, run: null, waitingFor: null, step: 0, bytesIn: 0, bytesOut: 0, workers: [] } as const;
    if (!this.#run) return none;
    const { dispatch, welcome } = this.#run;
    const step = this.#passage?.step ?? 0;
    const tokens = welcome.rowsPerShard * welcome.model.blockSize;
    const workers = dispatch.crew.status(step, dispatch.leases, { tokensPerSecond: new Map(), utilisation: new Map() });
    return {
      ...{ relay: true, run: welcome.run, waitingFor: dispatch.waitingFor, step },
      ...dispatch.crew.bytes(),
      workers: workers.map((worker) => ({
        ...worker,
        tokensPerSec: (worker.shardsDone * tokens) / Math.max(1, worker.connectedSeconds),
      })),
    };
  }

  /** The run is over. Resolves when the workers have been told, or soon. */
  async finish(reason: string): Promise<void> {
    await this.#run?.dispatch.crew.finish(reason);
  }

  /** The relay goes and the run does not: its workers go to whom they know else, or wait. */
  suspend(reason: string): void {
    this.#run?.dispatch.crew.suspend(reason);
  }
}

const deviceOf = (workers: readonly Connection[]): string =>
  `relay: ${workers.length === 1 ? "1 worker" : `${workers.length} workers`}, ${workers[0]!.device}`.slice(0, 2000);
