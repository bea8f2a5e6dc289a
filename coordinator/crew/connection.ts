// One worker at the other end of a WebSocket: what it may say when, what is sent to it under back-pressure, and how
// long it may be silent. Decisions are the loop's; this file only speaks.
import { performance } from "node:perf_hooks";
import type { RawData, WebSocket } from "ws";
import type { VectorPool } from "../../shared/arithmetic/tree.ts";
import { messageOf, ProtocolError } from "../../shared/errors.ts";
import { Arrival, bytesOf, type Frame, framesOf, parseFrame } from "../../shared/wire/frame.ts";
import { Outbox } from "../../shared/wire/outbox.ts";
import {
  decodeFromWorker,
  encodeMessage,
  type FromCoordinator,
  type FromWorker,
  isControl,
  protocolVersion,
  timesOf,
} from "../../shared/wire/protocol.ts";
import type { SharedVector } from "../../shared/wire/shared-memory.ts";

/** What the loop hears. */
export interface ConnectionEvents {
  /** Its engine is open: it may be offered weights, or refused. */
  ready(worker: Connection): void;
  /** It may be able to take more, or less, than before. */
  changed(worker: Connection): void;
  /** @param gradient (P) of the pool, now the listener's; none for an evaluation */
  answered(worker: Connection, lease: number, losses: number[], gradient: Float32Array | undefined): void;
  handedBack(worker: Connection, lease: number, reason: string): void;
  gone(worker: Connection, reason: string): void;
}

export type LeaseMessage = Extract<FromCoordinator, { type: "lease" }>;
export type Welcome = Extract<FromCoordinator, { type: "welcome" }>;

/** Weights of one step, and their frames that any number of connections send from the same memory. */
export class WeightsSnapshot {
  readonly step: number;
  /** (P) As they were in this step until they are encoded or a newer snapshot is made. */
  readonly weights: Float32Array;
  /** Connections that still send from it. */
  users = 0;
  readonly #spare: readonly Buffer[] | undefined;
  #frames: readonly Buffer[] | undefined;

  /** @param spare a snapshot without users, whose memory is taken over */
  constructor(step: number, weights: Float32Array, spare?: WeightsSnapshot) {
    this.step = step;
    this.weights = weights;
    this.#spare = spare && (spare.#frames ?? spare.#spare);
  }

  /** Encoded for the first worker that does not share memory. */
  frames(): readonly Buffer[] {
    this.#frames ??= [...framesOf("weights", this.step, bytesOf(this.weights), this.#spare)];
    return this.#frames;
  }
}

/** What a worker on this machine shares with us: the run's weights, and a gradient of its own. */
export interface WorkerMemory {
  readonly weights: SharedVector;
  readonly gradient: SharedVector;
}

interface HeldLease {
  readonly purpose: "train" | "eval";
  /** Numbers in the answer. */
  readonly losses: number;
  gradient?: Float32Array;
}

export class Connection {
  /** Unique among connections: the worker's own name, with a number where two share one. */
  name = "";
  host = "";
  device = "";
  arithmetic = "";
  state: "greeting" | "opening" | "ready" | "leaving" | "gone" = "greeting";
  /** Step of the newest weights that were sent whole; -1 before. */
  step = -1;
  /** Weights and gradients go through shared memory. */
  sharesMemory = false;
  bytesIn = 0;
  roundTripMs: number | null = null;
  readonly connectedAt = performance.now();

  readonly #socket: WebSocket;
  readonly #welcome: Welcome;
  readonly #memory: WorkerMemory | undefined;
  readonly #pool: VectorPool;
  readonly #events: ConnectionEvents;
  readonly #uniqueName: (wanted: string) => string;
  readonly #leases = new Map<number, HeldLease>();
  #arrival: Arrival | undefined;
  #heardAt = performance.now();
  #wanted: WeightsSnapshot | undefined;
  readonly #outbox: Outbox;
  readonly #heart: NodeJS.Timeout;

  /** @param memory offered to the worker; the gradient is this connection's from now on */
  constructor(
    socket: WebSocket,
    welcome: Welcome,
    memory: WorkerMemory | undefined,
    pool: VectorPool,
    events: ConnectionEvents,
    uniqueName: (wanted: string) => string,
  ) {
    this.#socket = socket;
    this.#outbox = new Outbox(socket, (error) => this.close(`sending failed: ${messageOf(error)}`));
    this.#welcome = memory
      ? { ...welcome, sharedMemory: { weights: memory.weights.address, gradient: memory.gradient.address } }
      : welcome;
    this.#memory = memory;
    this.#pool = pool;
    this.#events = events;
    this.#uniqueName = uniqueName;
    this.#heart = setInterval(() => this.#beat(), timesOf(welcome.timeoutMs).pingEveryMs);
    socket.on("message", (data) => this.#onMessage(data));
    socket.on("pong", (data) => this.#onPong(data));
    socket.on("close", (code, reason) => this.#end(reason.toString() || `its connection closed (${code})`));
    socket.on("error", (error) => this.close(messageOf(error)));
  }

  get bytesOut(): number {
    return this.#outbox.bytes;
  }

  /** May it be given leases of this step? */
  hasWeightsOf(step: number): boolean {
    return this.state === "ready" && this.step === step;
  }

  /** Send weights; newer ones offered meanwhile replace what has not left yet. */
  offer(snapshot: WeightsSnapshot): void {
    if (this.state !== "ready") return;
    if (!this.sharesMemory) snapshot.frames(); // now: it may leave later than the weights change
    const isQueued = this.#wanted !== undefined;
    this.#wanted = snapshot;
    if (!isQueued) this.#outbox.add(() => this.#sendWanted());
  }

  async #sendWanted(): Promise<void> {
    for (let current = this.#wanted; current; current = this.#wanted) {
      current.users++;
      try {
        if (this.sharesMemory) await this.#outbox.send(encodeMessage({ type: "weights", step: current.step }));
        else
          for (const frame of current.frames()) {
            if (this.#wanted !== current) break;
            await this.#outbox.send(frame);
          }
        if (this.#wanted === current) {
          this.#wanted = undefined;
          this.step = current.step;
          this.#events.changed(this);
        }
        // Frames still in the socket's queue are read from the snapshot's memory.
        await this.#outbox.flushed();
      } finally {
        current.users--;
      }
    }
  }

  /** @param windows (windowCount, T + 1) token ids; the last unit of an evaluation may have fewer than `rows` */
  lease(message: LeaseMessage, windows: Uint16Array | Uint32Array, windowCount: number): void {
    const losses = message.purpose === "train" ? message.count : windowCount;
    this.#leases.set(message.lease, { purpose: message.purpose, losses });
    this.#outbox.add(async () => {
      await this.#outbox.send(encodeMessage(message));
      for (const frame of framesOf("windows", message.lease, bytesOf(windows))) await this.#outbox.send(frame);
    });
  }

  /** The worker may drop the lease; it still answers or hands it back. */
  cancel(lease: number): void {
    this.#say({ type: "cancel", lease });
  }

  /** The run is over. Resolves when the worker has been told, or cannot be. */
  async finish(reason: string): Promise<void> {
    if (this.state === "gone") return;
    this.#say({ type: "finish", reason });
    this.#outbox.add(async () => this.#socket.close(1000, "finished"));
    await this.#outbox.drained();
  }

  /** It cannot take part, and coming back will not help. */
  refuse(reason: string): void {
    if (this.state === "gone") return;
    this.state = "leaving";
    this.#say({ type: "refuse", reason });
    this.#outbox.add(async () => this.close(reason));
  }

  close(reason: string): void {
    // RFC 6455: a close reason has at most 123 bytes.
    this.#socket.close(
      4000,
      Buffer.from(reason)
        .subarray(0, 120)
        .toString("utf8")
        .replace(/\ufffd$/, ""),
    );
    this.#end(reason);
    // A peer that does not answer the closing handshake must not keep the socket.
    setTimeout(() => this.#socket.terminate(), 2000).unref();
  }

  #onMessage(data: RawData): void {
    this.#heardAt = performance.now();
    const message = data as Buffer;
    this.bytesIn += message.length;
    if (this.state === "gone") return;
    try {
      if (isControl(message)) this.#onControl(decodeFromWorker(message));
      else this.#onFrame(parseFrame(message));
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.close(`protocol: ${error.message}`);
    }
  }

  #onControl(message: FromWorker): void {
    switch (message.type) {
      case "hello":
        if (this.state !== "greeting") throw new ProtocolError("a second hello");
        this.host = message.host;
        this.name = this.#uniqueName(message.name);
        if (message.version !== protocolVersion) {
          this.refuse(
            `worker ${message.name} speaks version ${message.version} of the protocol, this coordinator ${protocolVersion}; run the same version of weft on both`,
          );
          return;
        }
        this.state = "opening";
        this.#say(this.#welcome);
        return;
      case "ready":
        if (this.state !== "opening") throw new ProtocolError(`"ready" while ${this.state}`);
        this.arithmetic = message.arithmetic;
        this.device = message.device;
        this.sharesMemory = message.sharesMemory ?? false;
        if (this.sharesMemory && !this.#memory) throw new ProtocolError("shared memory that was not offered");
        this.state = "ready";
        this.#ping();
        this.#events.ready(this);
        return;
      case "answer":
        this.#onAnswer(message.lease, message.losses);
        return;
      case "handback": {
        const lease = this.#heldLease(message.lease);
        if (lease.gradient) this.#pool.give(lease.gradient);
        this.#leases.delete(message.lease);
        this.#arrival = undefined;
        this.#events.handedBack(this, message.lease, message.reason);
        return;
      }
      case "leaving":
        this.state = "leaving";
        this.#events.changed(this);
        return;
    }
  }

  #onFrame(frame: Frame): void {
    if (frame.kind !== "gradient") throw new ProtocolError(`a worker sends no ${frame.kind}`);
    const lease = this.#heldLease(frame.id);
    if (this.sharesMemory) throw new ProtocolError(`${this.name} sends a gradient that it said it would share`);
    if (lease.purpose !== "train") throw new ProtocolError(`a gradient for the evaluation lease ${frame.id}`);
    if (!lease.gradient) {
      lease.gradient = this.#pool.take();
      this.#arrival = new Arrival("gradient", frame.id, bytesOf(lease.gradient));
    }
    if (!this.#arrival) throw new ProtocolError(`gradient of lease ${frame.id} after its end`);
    this.#arrival.take(frame);
  }

  #onAnswer(id: number, losses: number[]): void {
    const lease = this.#heldLease(id);
    if (losses.length !== lease.losses)
      throw new ProtocolError(`${losses.length} losses for lease ${id}, expected ${lease.losses}`);
    if (lease.purpose === "train") {
      if (this.sharesMemory) {
        lease.gradient = this.#pool.take();
        lease.gradient.set(this.#memory!.gradient.values);
        this.#say({ type: "taken", lease: id });
      } else if (!this.#arrival?.complete || this.#arrival.id !== id)
        throw new ProtocolError(`the answer of lease ${id} came before its whole gradient`);
      this.#arrival = undefined;
    }
    this.#leases.delete(id);
    this.#events.answered(this, id, losses, lease.gradient);
  }

  #heldLease(id: number): HeldLease {
    const lease = this.#leases.get(id);
    if (!lease) throw new ProtocolError(`${this.name} does not hold lease ${id}`);
    return lease;
  }

  #say(message: FromCoordinator): void {
    this.#outbox.add(() => this.#outbox.send(encodeMessage(message)));
  }

  #beat(): void {
    const { silenceMs, handshakeMs, openMs } = timesOf(this.#welcome.timeoutMs);
    const now = performance.now();
    const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`;
    const limit = this.state === "greeting" ? handshakeMs : this.state === "opening" ? openMs : Infinity;
    if (now - this.#heardAt > silenceMs) {
      this.close(`silent for ${seconds(now - this.#heardAt)}, the limit is ${seconds(silenceMs)}`);
      this.#socket.terminate();
    } else if (now - this.connectedAt > limit) this.close(`not ready to work after ${seconds(limit)}`);
    else this.#ping();
  }

  #ping(): void {
    if (this.#socket.readyState === this.#socket.OPEN) this.#socket.ping(String(performance.now()));
  }

  #onPong(data: Buffer): void {
    this.#heardAt = performance.now();
    const sentAt = Number(data.toString());
    if (sentAt > 0 && sentAt <= this.#heardAt) this.roundTripMs = this.#heardAt - sentAt;
  }

  #end(reason: string): void {
    if (this.state === "gone") return;
    this.state = "gone";
    clearInterval(this.#heart);
    this.#memory?.gradient.close();
    for (const { gradient } of this.#leases.values()) if (gradient) this.#pool.give(gradient);
    this.#leases.clear();
    this.#wanted = undefined;
    this.#events.gone(this, reason);
  }
}
