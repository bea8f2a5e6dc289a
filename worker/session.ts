// One conversation with a coordinator, from hello to goodbye: weights and leases in, answers out. worker.ts opens a new
// one when it breaks.
import { hostname } from "node:os";
import { type Codec, codecOf, nodeRounding } from "../shared/arithmetic/codec.ts";
import { bestCodec, bestOps } from "../shared/arithmetic/native.ts";
import { VectorPool } from "../shared/arithmetic/tree.ts";
import { type Clock, sleep } from "../shared/clock.ts";
import { ConfigError, EngineError, Interrupted, messageOf, ProtocolError } from "../shared/errors.ts";
import { layoutOf } from "../shared/family/layout.ts";
import { batchesOf, randomSampler, readWindows, startsOf } from "../shared/sampler.ts";
import { tokenArray, widthOf } from "../shared/token-array.ts";
import { Channel } from "../shared/wire/channel.ts";
import { Arrival, bytesOf, encodedFrames, type Frame, frameEnds } from "../shared/wire/frame.ts";
import type { Pipe } from "../shared/wire/pipe.ts";
import {
  decodeFromCoordinator,
  type FromCoordinator,
  type FromWorker,
  type LeaseMessage,
  largestLease,
  packLosses,
  protocolVersion,
  stepBefore,
  timesOf,
  type WeightsUpdate,
  type Welcome,
} from "../shared/wire/protocol.ts";
import { openSharedVector } from "../shared/wire/shared-memory.ts";
import { Below, type Computer, type Computers, Deserted } from "./computer.ts";
import { isHandedOver, Link } from "./leaving.ts";
import type { GrowingVector, Outcome } from "./task/task.ts";

/** How a session ended. `lost`: come back later. */
export type Ending = { how: "finished" | "left" | "lost"; reason: string; wasWelcome: boolean; isBelow?: true };

export interface SessionOptions {
  readonly pipe: Pipe;
  readonly clock: Clock;
  /** Where the pipe leads, for people. */
  readonly url: string;
  readonly name: string;
  /** For sums and codecs. */
  readonly threads: number;
  /** Who computes for the run; the session does not dispose of it. */
  readonly open: Computers["for"];
  /** Hears what people should know. */
  readonly onEvent: (text: string) => void;
  /** Aborted: finish what is being computed, hand back the rest, say goodbye. */
  readonly leave: AbortSignal;
  readonly handshakeMs: number;
  /** Where windows are drawn from instead of being sent. */
  readonly data?: WorkerData | undefined;
}

/** Data that a worker has itself. */
export interface WorkerData {
  /** As --data-at-worker says. */
  readonly name: string;
  /** sha256 of all ids in order. */
  readonly fingerprint: string;
  readonly train: { readonly length: number };
  /** Fill a row with the ids of the training split from `start` on. */
  readonly read: (start: number, row: Int32Array) => Promise<void>;
}

interface HeldLease {
  readonly order: LeaseMessage;
  readonly cancel: AbortController;
  windows?: Uint16Array | Uint32Array;
  /** Of the pool: what others have begun of it, as far as it is here. */
  readonly state: Float32Array[];
  /** To who may go on with it. */
  handOver?: "offered" | "accepted";
}

/** Weights, or a lease's windows or state, on their way in. */
interface Incoming {
  readonly arrival: Arrival;
  readonly since: number;
  readonly vector?: Float32Array;
  readonly lease?: HeldLease;
  readonly windows?: Uint16Array | Uint32Array;
}

/** Leases that may wait here: a coordinator gives two at a time. */
const mostLeases = 64;

/**
 * Work at an open pipe until the run is over, the connection is lost, or we are asked to leave.
 * @throws ConfigError when the coordinator refuses us for good
 */
export async function runSession(options: SessionOptions): Promise<Ending> {
  const session = new Session(options);
  try {
    return await session.ended;
  } finally {
    // The engine outlives the session: the next one must find it at rest.
    await session.idle();
  }
}

class Session {
  readonly ended: Promise<Ending>;
  readonly #options: SessionOptions;
  readonly #channel: Channel<FromCoordinator, FromWorker>;
  readonly #queue: HeldLease[] = [];
  #end!: (ending: Ending) => void;
  #fail!: (error: unknown) => void;
  #welcome: Welcome | undefined;
  #computer: Computer | undefined;
  #pool = new VectorPool(0);
  #codec!: Codec;
  /** What the coordinator shares with us, where it can: its weights, and room for one gradient. */
  #shared: { readonly weights: Float32Array; readonly gradient: Float32Array } | undefined;
  /** Resolves when the last gradient has been taken out of shared memory, or nobody will. */
  #taken: Promise<void> = Promise.resolve();
  #onTaken: () => void = () => {};
  #arrival: Incoming | undefined;
  readonly #link = new Link();
  /** The newest whole weights, with the update that made them where one did, and whether the computer has not got them yet. */
  #newest: { readonly step: number; readonly vector: Float32Array; readonly update?: WeightsUpdate } | undefined;
  #isFresh = false;
  /** What was sent for #step, which the computer has. */
  #lent: Float32Array | undefined;
  #step = -1;
  #computing: HeldLease | undefined;
  #opening: Promise<void> = Promise.resolve();
  /** Of the loop that sets weights and computes leases; undefined while there is nothing to do. */
  #working: Promise<void> | undefined;
  #leaving = false;
  readonly #ending = new AbortController();

  constructor(options: SessionOptions) {
    const { pipe, clock, handshakeMs } = options;
    this.#options = options;
    this.ended = new Promise((resolve, reject) => {
      this.#end = resolve;
      this.#fail = reject;
    });
    this.#channel = new Channel({
      pipe,
      clock,
      decode: decodeFromCoordinator,
      events: {
        control: (message) => this.#onControl(message),
        frame: (frame) => this.#onFrame(frame),
        lost: (reason) => this.#lose(reason),
        broken: (error) => this.#fail(error),
      },
    });
    const leave = () => this.#leave();
    options.leave.addEventListener("abort", leave);
    const forget = () => {
      this.#ending.abort();
      this.#computing?.cancel.abort();
      this.#onTaken();
      options.leave.removeEventListener("abort", leave);
      // Whatever it was: nobody may be left waiting for a closing handshake.
      this.#channel.close(1000, "");
    };
    this.ended.then(forget, forget);
    this.#channel.watch(handshakeMs, handshakeMs / 5, false);
    if (options.leave.aborted) this.#leave();
    else this.#greet();
  }

  get #over(): boolean {
    return this.#ending.signal.aborted;
  }

  #lose(reason: string): void {
    this.#end({ how: this.#leaving ? "left" : "lost", reason, wasWelcome: this.#welcome !== undefined });
  }

  #greet(): void {
    this.#channel.say({
      type: "hello",
      version: protocolVersion,
      name: this.#options.name,
      host: hostname().slice(0, 128) || "unknown",
      processId: process.pid,
    });
  }

  #onControl(message: FromCoordinator): void {
    if (this.#over) return;
    switch (message.type) {
      case "welcome":
        if (this.#welcome) throw new ProtocolError("a second welcome");
        this.#welcome = message;
        this.#opening = this.#open(message).catch((error) => {
          if (!(error instanceof Below)) return this.#fail(error);
          this.#end({ how: "lost", reason: error.message, wasWelcome: false, isBelow: true });
        });
        return;
      case "lease":
        this.#onLease(message);
        return;
      case "weights":
        if (!this.#shared) throw new ProtocolError("shared weights for a worker that shares none");
        this.#refresh(message.step, this.#shared.weights);
        this.#work();
        return;
      case "taken":
        this.#onTaken();
        return;
      case "accept":
        if (this.#computing?.order.lease === message.lease) this.#computing.handOver = "accepted";
        return;
      case "cancel": {
        const isMeant = ({ order }: HeldLease) => order.lease === message.lease;
        if (this.#computing && isMeant(this.#computing)) this.#computing.cancel.abort();
        const waiting = this.#queue.findIndex(isMeant);
        if (waiting >= 0) this.#giveUp(this.#queue.splice(waiting, 1), "it was cancelled");
        return;
      }
      case "finish":
        this.#end({ how: "finished", reason: message.reason, wasWelcome: true });
        return;
      case "refuse":
        this.#fail(
          new ConfigError(`worker: refused by ${this.#options.url}: ${message.reason}`, {
            // Who has worked and failed since may do better as a new process.
            cause: this.#lent && new Interrupted(message.reason),
          }),
        );
        return;
    }
  }

  async #open(welcome: Welcome): Promise<void> {
    const { parameters, vectors, model, timeoutMs } = welcome;
    const expected = layoutOf(model).size;
    if (expected !== parameters)
      throw new ConfigError(
        `worker: this weft counts ${expected} parameters in the run's model, the coordinator's ${parameters}; run the same version on both`,
      );
    const { data } = this.#options;
    const why = data && whyForeign(data, welcome);
    if (why) throw new ConfigError(`worker: --data-at-worker ${data.name}: ${why}; leave it out to be sent windows`);
    const { silenceMs, pingEveryMs } = timesOf(timeoutMs);
    this.#channel.watch(silenceMs, pingEveryMs, false);
    this.#pool = new VectorPool(vectors * parameters);
    this.#codec = codecOf(welcome.wire, vectors, parameters, (format) => bestCodec(format, this.#options.threads));
    const computer = await this.#options.open(welcome, this.#ending.signal, (device) =>
      this.#channel.say({ type: "device", device }),
    );
    this.#computer = computer;
    this.#pool = computer.pool ?? this.#pool;
    this.#shared = computer.sharesMemory ? shared(welcome) : undefined;
    const { arithmetic, device, plannedBytes } = computer;
    const sharesMemory = this.#shared && { sharesMemory: true as const };
    const takesOver = computer.takesOver && { takesOver: true as const };
    const drawsFrom = data && { data: data.fingerprint };
    this.#channel.say({ type: "ready", arithmetic, device, plannedBytes, ...drawsFrom, ...sharesMemory, ...takesOver });
  }

  #onLease(order: LeaseMessage): void {
    if (!this.#computer) throw new ProtocolError("a lease before this worker was ready");
    if (this.#queue.length >= mostLeases) throw new ProtocolError(`more than ${mostLeases} leases at once`);
    if (order.rows > this.#welcome!.rowsPerShard)
      throw new ProtocolError(`${order.rows} windows a unit, the welcome said ${this.#welcome!.rowsPerShard}`);
    const last = this.#queue.at(-1);
    if (last && !this.#isSent(last))
      throw new ProtocolError(`lease ${order.lease} before all of lease ${last.order.lease}`);
    if (order.local?.begun && !this.#computer.takesOver)
      throw new ProtocolError(`lease ${order.lease} was begun by others, which is not gone on with here`);
    const lease = { order, cancel: new AbortController(), state: [] };
    this.#queue.push(lease);
    if (order.drawn) this.#draw(lease).catch((error) => this.#fail(error));
    if (!this.#isSent(lease)) this.#channel.expect(true);
  }

  /** Has all come that follows a lease? */
  #isSent({ order, windows, state }: HeldLease): boolean {
    const parts = order.local?.begun ? 3 / this.#welcome!.vectors : 0;
    return (order.drawn || windows !== undefined) && state.length === parts;
  }

  /** The same windows as the coordinator would send. */
  async #draw(lease: HeldLease): Promise<void> {
    const { data } = this.#options;
    const { seed, model, data: run } = this.#welcome!;
    if (!data || !run) throw new ProtocolError("a lease without windows for a worker without data");
    const { step, rows, local } = lease.order;
    const { shards, learningRates, begun = 0 } = local ?? { shards: 1, learningRates: [0] };
    const shape = { rows, shards, steps: learningRates.length };
    const batches = batchesOf(randomSampler(seed, run.batchSize, run.positions), step + begun, shape.steps);
    const windows = await readWindows(model, startsOf(lease.order, shape, batches), data.read);
    if (windows.length !== lease.order.windows * (model.blockSize + 1))
      throw new ProtocolError(`lease ${lease.order.lease} is of ${lease.order.windows} windows, drawn are others`);
    lease.windows = windows;
    this.#work();
  }

  #onFrame(frame: Frame): undefined {
    if (this.#over) return;
    const current = this.#arrival;
    // Weights that were overtaken by others stop in the middle: by newer ones, older ones of a run that went back, or the same
    // from a relay that lost its own coordinator.
    if (current?.vector && (frame.kind === "weights" || frame.kind === "update") && frame.offset === 0) {
      this.#computer!.foresee?.(current.vector, 0);
      this.#pool.give(current.vector);
      this.#arrival = undefined;
    }
    this.#arrival ??= this.#expect(frame);
    const { arrival, vector, lease, windows, since } = this.#arrival;
    arrival.take(frame);
    if (lease) return this.#onLeaseFrame(lease, arrival, windows ?? vector!);
    if (vector && frame.kind === "weights") this.#computer!.foresee?.(vector, arrival.known);
    if (vector)
      this.#computer!.passOn?.(
        frame,
        frame.kind === "update" ? stepBefore(frame.id, this.#welcome!.localSteps) : undefined,
      );
    this.#channel.expect(!arrival.complete);
    if (!arrival.complete) return;
    this.#arrival = undefined;
    this.#link.down(frame.total, this.#options.clock.now() - since);
    if (vector && frame.kind === "update") this.#update(frame.id, vector);
    else if (vector) this.#refresh(frame.id, vector);
    this.#work();
  }

  /** A part of what follows a lease. */
  #onLeaseFrame(lease: HeldLease, { complete }: Arrival, part: Uint16Array | Uint32Array | Float32Array): undefined {
    this.#channel.expect(true);
    if (!complete) return;
    this.#arrival = undefined;
    if (part instanceof Float32Array) lease.state.push(part);
    else lease.windows = part;
    this.#channel.expect(!this.#isSent(lease));
    this.#work();
  }

  #refresh(step: number, vector: Float32Array, update?: WeightsUpdate): void {
    if (this.#isFresh) {
      this.#giveBack(this.#newest!.vector);
      if (this.#newest!.update) this.#pool.give(this.#newest!.update.vector);
    }
    this.#newest = { step, vector, ...(update && { update }) };
    this.#isFresh = true;
  }

  /** @param update what changes the weights of the step before, and whole what follows them; taken over */
  #update(step: number, update: Float32Array): void {
    const { parameters, localSteps } = this.#welcome!;
    const from = stepBefore(step, localSteps);
    if (this.#newest?.step !== from)
      throw new ProtocolError(
        `an update to step ${step}, the weights here are of step ${this.#newest?.step ?? "none"}`,
      );
    const vector = this.#pool.take();
    vector.set(update);
    const weights = (sent: Float32Array) => sent.subarray(0, parameters);
    bestOps(this.#options.threads).add(weights(vector), weights(this.#newest.vector));
    this.#refresh(step, vector, { from, vector: update });
  }

  /** Weights that nobody computes with any more. */
  #giveBack(vector: Float32Array): void {
    if (vector !== this.#shared?.weights) this.#pool.give(vector);
  }

  /** The first chunk of a tensor: what is it, and where does it go? */
  #expect(frame: Frame): Incoming {
    if (!this.#computer) throw new ProtocolError(`${frame.kind} before this worker was ready`);
    const since = this.#options.clock.now();
    if (frame.kind === "weights" || frame.kind === "update") {
      const vector = this.#pool.take();
      const codec = frame.kind === "update" ? this.#codec : bestCodec("float32");
      return { arrival: Arrival.ofVector(frame.kind, frame.id, vector, codec), since, vector };
    }
    const lease = this.#queue.find((lease) => lease.order.lease === frame.id && !this.#isSent(lease));
    const isNext = lease && (frame.kind === "windows" ? !lease.windows : lease.windows || lease.order.drawn);
    if (isNext && frame.kind === "state") {
      const vector = this.#pool.take();
      return { arrival: Arrival.ofVector("state", frame.id, vector, bestCodec("float32")), since, vector, lease };
    }
    if (!isNext || frame.kind !== "windows")
      throw new ProtocolError(`${frame.kind} ${frame.id} that was not announced`);
    const { vocabSize, blockSize } = this.#welcome!.model;
    const size = lease.order.windows * (blockSize + 1);
    const bytes = size * widthOf(vocabSize);
    // Before memory is taken for them.
    if (frame.total !== bytes)
      throw new ProtocolError(`windows of lease ${frame.id}: ${frame.total} bytes, expected ${bytes}`);
    const windows = tokenArray(vocabSize, size);
    return { arrival: Arrival.ofBytes("windows", frame.id, bytesOf(windows)), since, lease, windows };
  }

  /** Resolves when nothing of this session uses the engine any more. */
  async idle(): Promise<void> {
    await this.#opening;
    await this.#working;
  }

  #work(): void {
    this.#working ??= this.#workOff()
      .catch((error) => this.#fail(error))
      .finally(() => {
        this.#working = undefined;
      });
  }

  /** Take fresh weights and compute leases, one thing at a time, until there is nothing to do. */
  async #workOff(): Promise<void> {
    while (!this.#over) {
      if (this.#isFresh) {
        const { step, vector, update } = this.#newest!;
        this.#isFresh = false;
        await this.#computer!.setWeights(step, vector, update);
        if (update) this.#pool.give(update.vector);
        if (this.#lent) this.#giveBack(this.#lent);
        this.#lent = vector;
        this.#step = step;
      } else if (this.#queue[0]?.windows && this.#isSent(this.#queue[0])) {
        this.#computing = this.#queue.shift();
        await this.#compute(this.#computing!);
        this.#computing = undefined;
      } else break;
    }
    if (this.#leaving) await this.#goodbye();
  }

  async #compute(lease: HeldLease): Promise<void> {
    const { order } = lease;
    const handBack = (reason: string, units = 0) =>
      this.#channel.say({ type: "handback", lease: order.lease, reason: reason.slice(0, 2000), units });
    const { signal } = lease.cancel;
    if (this.#leaving) return this.#giveUp([lease], "the worker leaves");
    if (order.step !== this.#step)
      return this.#giveUp([lease], `it is of step ${order.step + 1}, the weights here are of step ${this.#step + 1}`);
    const { clock } = this.#options;
    const { seed, timeoutMs, parameters, handsOver } = this.#welcome!;
    const { progressEveryMs } = timesOf(timeoutMs);
    const startedAt = clock.now();
    let [known, saidAt] = [0, startedAt];
    const progress = (done: number) => {
      // In what the coordinator takes as a sign of work: a shard of the largest step.
      const losses = Math.floor(done * largestLease) / largestLease;
      if (losses <= known) return;
      known = losses;
      if (this.#over || clock.now() - saidAt < progressEveryMs) return;
      saidAt = clock.now();
      this.#channel.say({ type: "progress", lease: order.lease, losses });
    };
    const steps = order.local?.learningRates.length ?? 1;
    const leaves = (done: number) => {
      if (!this.#leaving || !handsOver) return false;
      const stepMs = (clock.now() - startedAt) / done;
      const link = this.#link.takes(3 * 4 * parameters);
      if (!isHandedOver({ done, steps: order.count * steps, stepMs, ...link })) return false;
      if (!lease.handOver) this.#channel.say({ type: "offer", lease: order.lease });
      lease.handOver ??= "offered";
      return lease.handOver === "accepted";
    };
    try {
      const outcome = await this.#computer!.compute({
        order,
        windows: lease.windows!,
        seed,
        sent: this.#lent!,
        pool: this.#pool,
        round: nodeRounding(this.#codec, { seed, ...order }),
        signal,
        progress,
        leaves,
        ...(lease.state.length > 0 && { state: lease.state }),
        send: (vector) => this.#channel.add(() => this.#sendGrowing(order.lease, vector)),
      });
      // Its losses are those of each step of a unit, one after another; other rounds say nothing before their answer.
      if (!outcome) return handBack("it was cancelled", known / stepsOf(order));
      const { vector, state } = outcome;
      if (state) return await this.#handOver(lease, { losses: outcome.losses, state });
      if (signal.aborted) {
        if (vector) this.#pool.give(vector);
        return handBack("it was cancelled", order.count);
      }
      const tookMs = clock.now() - startedAt;
      this.#answer(lease, outcome, Math.min(outcome.computeMs ?? tookMs, tookMs));
    } catch (error) {
      // The engine of a session that is over may be gone already: nobody waits for this answer.
      if (this.#over) return;
      if (error instanceof Deserted) return this.#end({ how: "lost", reason: error.message, wasWelcome: true });
      if (!(error instanceof EngineError)) throw error;
      this.#options.onEvent(`lease handed back: ${error.message}`);
      handBack(messageOf(error));
    }
  }

  #answer({ order: { lease } }: HeldLease, { losses, vector, isSent }: Outcome, computeMs: number): void {
    const answer = { type: "answer" as const, lease, losses: packLosses(losses), computeMs };
    if (!vector) {
      this.#channel.say(answer);
      return;
    }
    this.#channel.add(async () => {
      if (this.#shared) {
        await this.#taken;
        this.#shared.gradient.set(vector);
        this.#taken = new Promise((resolve) => {
          this.#onTaken = resolve;
        });
      } else if (!isSent) {
        const startedAt = this.#options.clock.now();
        for (const frame of encodedFrames("gradient", lease, vector, this.#codec)) await this.#channel.send(frame);
        this.#link.up(this.#codec.bytes(vector.length), this.#options.clock.now() - startedAt);
      }
      this.#pool.give(vector);
      await this.#channel.tell(answer);
    });
  }

  /** What we have begun goes back with its state, unless that is not wanted. */
  async #handOver({ order, cancel }: HeldLease, { losses, state }: Required<Pick<Outcome, "losses" | "state">>) {
    const { signal } = cancel;
    this.#channel.add(async () => {
      for (const vector of state)
        for (const frame of encodedFrames("state", order.lease, vector, bestCodec("float32"))) {
          if (signal.aborted) break;
          await this.#channel.send(frame);
        }
      const whole = signal.aborted ? { units: losses.length / stepsOf(order) } : { state: packLosses(losses) };
      await this.#channel.tell({ type: "handback", lease: order.lease, reason: "the worker leaves", ...whole });
      for (const vector of state) this.#pool.give(vector);
    });
    await this.#channel.drained();
  }

  /** A vector as it becomes known; while that takes long it says so, lest it is taken for stuck. */
  async #sendGrowing(lease: number, vector: GrowingVector): Promise<void> {
    const { clock } = this.#options;
    const { progressEveryMs } = timesOf(this.#welcome!.timeoutMs);
    let frames: Generator<Buffer> | undefined;
    for (const end of frameEnds(this.#pool.length, this.#codec)) {
      const known = vector.until(end);
      const patience = new AbortController();
      const late = sleep(clock, progressEveryMs, patience.signal).then(() => "late" as const);
      if ((await Promise.race([known, late])) === "late") await this.#channel.tell({ type: "paused", lease });
      const isKnown = await known;
      patience.abort();
      if (!isKnown) return;
      frames ??= encodedFrames("gradient", lease, vector.values, this.#codec);
      await this.#channel.send(frames.next().value!);
    }
  }

  /** We were asked to go: no new leases, what is queued goes back, what is being computed is finished or handed over. */
  #leave(): void {
    this.#leaving = true;
    this.#channel.say({ type: "leaving", reason: "asked to stop" });
    // What has not come whole stays expected.
    this.#giveUp(
      this.#queue.splice(0, this.#queue.findLastIndex((lease) => this.#isSent(lease)) + 1),
      "the worker leaves",
    );
    this.#work();
  }

  /** Leases that will not be begun, though perhaps not all has come of the last. */
  #giveUp(leases: readonly HeldLease[], reason: string): void {
    for (const lease of leases) {
      if (!this.#isSent(lease)) this.#channel.expect(false);
      for (const vector of lease.state) this.#pool.give(vector);
      if (this.#arrival?.lease === lease) {
        if (this.#arrival.vector) this.#pool.give(this.#arrival.vector);
        this.#arrival = undefined;
      }
      this.#channel.say({ type: "handback", lease: lease.order.lease, reason, units: 0 });
    }
  }

  async #goodbye(): Promise<void> {
    this.#giveUp(this.#queue.splice(0), "the worker leaves");
    await this.#channel.drained();
    this.#channel.close(1000, "asked to stop");
    this.#end({ how: "left", reason: "asked to stop", wasWelcome: this.#welcome !== undefined });
  }
}

/** Of a whole unit, those that others took among them. */
const stepsOf = ({ local }: LeaseMessage): number => (local ? local.learningRates.length + (local.begun ?? 0) : 1);

/** Why windows of the run cannot be drawn from these data; undefined where they can. */
function whyForeign({ fingerprint, train }: WorkerData, { data, model }: Welcome): string | undefined {
  if (!data) return "this run's windows stand in a file of the coordinator's";
  const short = (digest: string) => digest.slice(0, 12);
  if (data.fingerprint !== fingerprint)
    return `its fingerprint is ${short(fingerprint)}, that of the run's data ${short(data.fingerprint)}`;
  if (data.positions + model.blockSize > train.length)
    return `its training split has ${train.length} tokens, the run's ${data.positions + model.blockSize}`;
  return undefined;
}

/** The shared memory that a welcome offers; undefined where there is none, or it is out of reach. */
function shared({ sharedMemory, parameters, vectors }: Welcome) {
  const weights = sharedMemory && openSharedVector(sharedMemory.weights, vectors * parameters, false);
  const gradient = sharedMemory && openSharedVector(sharedMemory.gradient, vectors * parameters, true);
  return weights && gradient && { weights, gradient };
}
