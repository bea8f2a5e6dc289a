// One connection to a coordinator, from hello to goodbye: weights and leases in, gradients out. worker.ts opens a new
// one when it breaks.
import { hostname } from "node:os";
import { performance } from "node:perf_hooks";
import { type ClientOptions, type RawData, WebSocket } from "ws";
import { VectorPool } from "../shared/arithmetic/tree.ts";
import { ConfigError, EngineError, messageOf, ProtocolError } from "../shared/errors.ts";
import { layoutOf } from "../shared/family/layout.ts";
import { Arrival, bytesOf, chunkBytes, type Frame, framesOf, headerBytes, parseFrame } from "../shared/wire/frame.ts";
import { Outbox } from "../shared/wire/outbox.ts";
import {
  controlLimit,
  decodeFromCoordinator,
  encodeMessage,
  type FromCoordinator,
  type FromWorker,
  isControl,
  protocolVersion,
  subprotocol,
  timesOf,
} from "../shared/wire/protocol.ts";
import { openSharedVector } from "../shared/wire/shared-memory.ts";
import { computeGradient, computeLosses, type LeaseOrder } from "./compute.ts";
import type { Engine } from "./engine/contract.ts";

export type Welcome = Extract<FromCoordinator, { type: "welcome" }>;

/** How a session ended. `lost`: come back later. */
export type Ending = { how: "finished" | "left" | "lost"; reason: string; wasWelcome: boolean };

export interface SessionOptions {
  readonly url: string;
  readonly token: string | undefined;
  readonly name: string;
  /** An engine for the run; the session does not dispose of it. */
  readonly openEngine: (welcome: Welcome) => Promise<Engine>;
  /** Hears what people should know. */
  readonly onEvent: (text: string) => void;
  /** Aborted: finish what is being computed, hand back the rest, say goodbye. */
  readonly leave: AbortSignal;
  readonly handshakeMs: number;
}

interface HeldLease {
  readonly order: LeaseOrder;
  cancelled: boolean;
  windows?: Uint16Array | Uint32Array;
}

/**
 * Connect and work until the run is over, the connection is lost, or we are asked to leave.
 * @throws ConfigError when the coordinator refuses us for good
 */
export async function runSession(options: SessionOptions): Promise<Ending> {
  const socket = new WebSocket(options.url, subprotocol, {
    headers: options.token === undefined ? {} : { authorization: `Bearer ${options.token}` },
    perMessageDeflate: false,
    maxPayload: Math.max(controlLimit, headerBytes + chunkBytes),
    handshakeTimeout: options.handshakeMs,
    // A mask of zeros costs nothing; against caches on the way, which masks are for, TLS is the answer.
    generateMask: (mask: Buffer) => mask.fill(0),
  } as ClientOptions);
  const session = new Session(socket, options);
  try {
    return await session.ended;
  } finally {
    // The engine outlives the session: the next one must find it at rest.
    await session.idle();
  }
}

class Session {
  readonly ended: Promise<Ending>;
  readonly #socket: WebSocket;
  readonly #options: SessionOptions;
  readonly #outbox: Outbox;
  readonly #queue: HeldLease[] = [];
  #end!: (ending: Ending) => void;
  #fail!: (error: unknown) => void;
  #welcome: Welcome | undefined;
  #engine: Engine | undefined;
  #pool = new VectorPool(0);
  /** What the coordinator shares with us, where it can: its weights, and room for one gradient. */
  #shared: { readonly weights: Float32Array; readonly gradient: Float32Array } | undefined;
  /** Resolves when the last gradient has been taken out of shared memory, or nobody will. */
  #taken: Promise<void> = Promise.resolve();
  #onTaken: () => void = () => {};
  /** Weights, or windows of a lease, on their way in. */
  #arrival: { arrival: Arrival; vector?: Float32Array; lease?: HeldLease } | undefined;
  /** Newest whole weights that the engine does not have yet. */
  #fresh: { step: number; vector: Float32Array } | undefined;
  /** What the engine computes with: weights of #step. */
  #lent: Float32Array | undefined;
  #step = -1;
  #computing: HeldLease | undefined;
  #opening: Promise<void> = Promise.resolve();
  /** Of the loop that sets weights and computes leases; undefined while there is nothing to do. */
  #working: Promise<void> | undefined;
  #leaving = false;
  #over = false;
  #heardAt = performance.now();
  #watchdog: NodeJS.Timeout | undefined;

  constructor(socket: WebSocket, options: SessionOptions) {
    this.#socket = socket;
    this.#options = options;
    this.#outbox = new Outbox(socket, (error) => this.#lose(`sending failed: ${error.message}`));
    this.ended = new Promise((resolve, reject) => {
      this.#end = resolve;
      this.#fail = reject;
    });
    const leave = () => this.#leave();
    options.leave.addEventListener("abort", leave);
    const forget = () => {
      this.#over = true;
      this.#onTaken();
      options.leave.removeEventListener("abort", leave);
      clearInterval(this.#watchdog);
      // Whatever it was: nobody may be left waiting for a closing handshake.
      if (socket.readyState === WebSocket.OPEN) socket.close(1000);
      setTimeout(() => socket.terminate(), 1000).unref();
    };
    this.ended.then(forget, forget);

    this.#watch(options.handshakeMs, options.handshakeMs / 5);
    socket.on("open", () => this.#onOpen());
    socket.on("message", (data) => this.#onMessage(data));
    socket.on("ping", () => {
      this.#heardAt = performance.now();
    });
    socket.on("unexpected-response", (_request, response) => {
      let body = "";
      response.on("data", (chunk: Buffer) => {
        body += body.length < 1000 ? chunk.toString() : "";
      });
      response.on("end", () => {
        const reason = `${options.url} answers ${response.statusCode}: ${body.trim() || response.statusMessage}`;
        // A full coordinator, or a proxy whose coordinator is not back yet.
        if (response.statusCode! >= 500) this.#lose(reason);
        else this.#fail(new ConfigError(`worker: ${reason}`));
      });
    });
    socket.on("error", (error) => this.#lose(error.message || (error as NodeJS.ErrnoException).code || "unknown"));
    socket.on("close", (code, reason) => this.#lose(reason.toString() || `the connection closed (${code})`));
  }

  #lose(reason: string): void {
    this.#end({ how: this.#leaving ? "left" : "lost", reason, wasWelcome: this.#welcome !== undefined });
  }

  #say(message: FromWorker): void {
    this.#outbox.add(() => this.#outbox.send(encodeMessage(message)));
  }

  #onOpen(): void {
    if (this.#options.leave.aborted) {
      this.#leave();
      return;
    }
    this.#say({
      type: "hello",
      version: protocolVersion,
      name: this.#options.name,
      host: hostname().slice(0, 128) || "unknown",
      processId: process.pid,
    });
  }

  #onMessage(data: RawData): void {
    this.#heardAt = performance.now();
    if (this.#over) return;
    const message = data as Buffer;
    try {
      if (isControl(message)) this.#onControl(decodeFromCoordinator(message));
      else this.#onFrame(parseFrame(message));
    } catch (error) {
      if (error instanceof ProtocolError) {
        this.#socket.close(4000, error.message.slice(0, 100));
        this.#lose(`protocol: ${error.message}`);
      } else this.#fail(error);
    }
  }

  #onControl(message: FromCoordinator): void {
    switch (message.type) {
      case "welcome":
        this.#opening = this.#onWelcome(message).catch(this.#fail);
        return;
      case "lease": {
        const lease = { order: message, cancelled: false };
        this.#queue.push(lease);
        return;
      }
      case "weights":
        if (!this.#shared) throw new ProtocolError("shared weights for a worker that shares none");
        this.#refresh(message.step, this.#shared.weights);
        this.#work();
        return;
      case "taken":
        this.#onTaken();
        return;
      case "cancel":
        for (const lease of [this.#computing, ...this.#queue])
          if (lease?.order.lease === message.lease) lease.cancelled = true;
        return;
      case "finish":
        this.#end({ how: "finished", reason: message.reason, wasWelcome: true });
        return;
      case "refuse":
        this.#fail(new ConfigError(`worker: refused by ${this.#options.url}: ${message.reason}`));
        return;
    }
  }

  async #onWelcome(welcome: Welcome): Promise<void> {
    if (this.#welcome) throw new ProtocolError("a second welcome");
    this.#welcome = welcome;
    const { parameters, model, timeoutMs } = welcome;
    const expected = layoutOf(model).size;
    if (expected !== parameters)
      throw new ConfigError(
        `worker: this weft counts ${expected} parameters in the run's model, the coordinator's ${parameters}; run the same version on both`,
      );
    const { silenceMs, pingEveryMs } = timesOf(timeoutMs);
    this.#watch(silenceMs, pingEveryMs);
    this.#pool = new VectorPool(parameters);
    const engine = await this.#options.openEngine(welcome);
    this.#engine = engine;
    this.#shared = open(welcome);
    const { arithmetic, device, plannedBytes } = engine;
    this.#say({
      type: "ready",
      arithmetic,
      device,
      plannedBytes,
      ...(this.#shared && { sharesMemory: true }),
    });
  }

  /** Give the coordinator up when it has been silent for so long. */
  #watch(silenceMs: number, everyMs: number): void {
    clearInterval(this.#watchdog);
    this.#watchdog = setInterval(() => {
      if (performance.now() - this.#heardAt > silenceMs)
        this.#lose(`the coordinator was silent for ${silenceMs / 1000} s`);
    }, everyMs);
  }

  #onFrame(frame: Frame): void {
    const current = this.#arrival;
    // Weights that were overtaken by newer ones stop in the middle.
    if (current?.vector && frame.kind === "weights" && frame.offset === 0 && frame.id > current.arrival.id) {
      this.#pool.give(current.vector);
      this.#arrival = undefined;
    }
    this.#arrival ??= this.#expect(frame);
    const { arrival, vector, lease } = this.#arrival;
    arrival.take(frame);
    if (!arrival.complete) return;
    this.#arrival = undefined;
    if (vector) this.#refresh(frame.id, vector);
    if (lease) lease.windows = typed(arrival.target, this.#engine!.model.vocabSize);
    this.#work();
  }

  #refresh(step: number, vector: Float32Array): void {
    if (this.#fresh) this.#giveBack(this.#fresh.vector);
    this.#fresh = { step, vector };
  }

  /** Weights that nobody computes with any more. */
  #giveBack(vector: Float32Array): void {
    if (vector !== this.#shared?.weights) this.#pool.give(vector);
  }

  /** The first chunk of a tensor: what is it, and where does it go? */
  #expect(frame: Frame): { arrival: Arrival; vector?: Float32Array; lease?: HeldLease } {
    if (!this.#engine) throw new ProtocolError(`${frame.kind} before this worker was ready`);
    if (frame.kind === "weights") {
      const vector = this.#pool.take();
      return { arrival: new Arrival("weights", frame.id, bytesOf(vector)), vector };
    }
    const lease = this.#queue.find(({ order, windows }) => order.lease === frame.id && !windows);
    if (!lease || frame.kind !== "windows") throw new ProtocolError(`${frame.kind} ${frame.id} that was not announced`);
    const { vocabSize, blockSize } = this.#engine.model;
    const largest = lease.order.count * lease.order.rows * (blockSize + 1) * widthOf(vocabSize);
    if (frame.total > largest)
      throw new ProtocolError(`windows of lease ${frame.id}: ${frame.total} bytes, at most ${largest}`);
    return { arrival: new Arrival("windows", frame.id, new Uint8Array(frame.total)), lease };
  }

  /** Resolves when nothing of this session uses the engine any more. */
  async idle(): Promise<void> {
    await this.#opening;
    await this.#working;
  }

  #work(): void {
    this.#working ??= this.#workOff()
      .catch(this.#fail)
      .finally(() => {
        this.#working = undefined;
      });
  }

  /** Take fresh weights and compute leases, one thing at a time, until there is nothing to do. */
  async #workOff(): Promise<void> {
    while (!this.#over) {
      if (this.#fresh) {
        const { step, vector } = this.#fresh;
        this.#fresh = undefined;
        await this.#engine!.setWeights(vector);
        if (this.#lent) this.#giveBack(this.#lent);
        this.#lent = vector;
        this.#step = step;
      } else if (this.#queue[0]?.windows) {
        this.#computing = this.#queue.shift();
        await this.#compute(this.#computing!);
        this.#computing = undefined;
      } else break;
    }
    if (this.#leaving) await this.#goodbye();
  }

  async #compute({ order, windows }: HeldLease): Promise<void> {
    const { lease: id, step, purpose } = order;
    const handBack = (reason: string) => this.#say({ type: "handback", lease: id, reason });
    const cancelled = () => this.#over || (this.#computing?.cancelled ?? false);
    if (cancelled()) return handBack("it was cancelled");
    if (this.#leaving) return handBack("the worker leaves");
    if (step !== this.#step) return handBack(`it is of step ${step}, the weights here are of step ${this.#step}`);
    try {
      if (purpose === "eval") {
        const losses = await computeLosses(this.#engine!, order, windows!, cancelled);
        if (losses) this.#say({ type: "answer", lease: id, losses });
        else handBack("it was cancelled");
        return;
      }
      const { seed } = this.#welcome!;
      const answer = await computeGradient(this.#engine!, order, windows!, seed, this.#pool, cancelled);
      if (!answer) return handBack("it was cancelled");
      const { gradient, losses } = answer;
      this.#outbox.add(async () => {
        if (this.#shared) {
          await this.#taken;
          this.#shared.gradient.set(gradient);
          this.#taken = new Promise((resolve) => {
            this.#onTaken = resolve;
          });
        } else for (const frame of framesOf("gradient", id, bytesOf(gradient))) await this.#outbox.send(frame);
        this.#pool.give(gradient);
        await this.#outbox.send(encodeMessage({ type: "answer", lease: id, losses }));
      });
    } catch (error) {
      // The engine of a session that is over may be gone already: nobody waits for this answer.
      if (this.#over) return;
      if (!(error instanceof EngineError)) throw error;
      this.#options.onEvent(`lease handed back: ${error.message}`);
      handBack(messageOf(error).slice(0, 2000));
    }
  }

  /** We were asked to go: no new leases, what is queued goes back, what is being computed is finished. */
  #leave(): void {
    this.#leaving = true;
    if (this.#socket.readyState === WebSocket.OPEN) {
      this.#say({ type: "leaving", reason: "asked to stop" });
      this.#work();
    } else this.#lose("stopped before it was connected");
  }

  async #goodbye(): Promise<void> {
    for (const { order } of this.#queue.splice(0))
      this.#say({ type: "handback", lease: order.lease, reason: "the worker leaves" });
    await this.#outbox.drained();
    this.#socket.close(1000, "asked to stop");
    this.#end({ how: "left", reason: "asked to stop", wasWelcome: this.#welcome !== undefined });
  }
}

/** The shared memory that a welcome offers; undefined where there is none, or it is out of reach. */
function open({ sharedMemory, parameters }: Welcome) {
  const weights = sharedMemory && openSharedVector(sharedMemory.weights, parameters, false);
  const gradient = sharedMemory && openSharedVector(sharedMemory.gradient, parameters, true);
  return weights && gradient && { weights, gradient };
}

function widthOf(vocabSize: number): 2 | 4 {
  return vocabSize > 65_536 ? 4 : 2;
}

function typed(bytes: Uint8Array, vocabSize: number): Uint16Array | Uint32Array {
  return widthOf(vocabSize) === 4 ? new Uint32Array(bytes.buffer) : new Uint16Array(bytes.buffer);
}
