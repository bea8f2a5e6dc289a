// One worker at the other end of a pipe: what it may say when, and what is sent to it. Decisions are the dispatcher's;
// this file only speaks.
import type { Codec } from "../../shared/arithmetic/codec.ts";
import { bestCodec } from "../../shared/arithmetic/native.ts";
import type { Clock } from "../../shared/clock.ts";
import { ProtocolError } from "../../shared/errors.ts";
import { Channel } from "../../shared/wire/channel.ts";
import { Arrival, bytesOf, encodedFrames, type Frame, framesOf } from "../../shared/wire/frame.ts";
import type { Pipe } from "../../shared/wire/pipe.ts";
import {
  canBeDrawn,
  decodeFromWorker,
  type FromCoordinator,
  type FromWorker,
  type LeaseMessage,
  largestLease,
  protocolVersion,
  type RoundKind,
  timesOf,
  unpackLosses,
  type Welcome,
} from "../../shared/wire/protocol.ts";
import type { Passage, WeightsSnapshot, WorkerMemory } from "../weights.ts";
import type { HandedOver } from "./begun.ts";
import { holds, type Sender, type Upload, type Uploads } from "./uploads.ts";

/** What a worker made of a lease. */
export interface Answer {
  readonly losses: number[];
  /** (P) of the pool, the listener's; none where the round asks for none. */
  readonly vector: Float32Array | undefined;
  /** What the worker says that its computation took. */
  readonly computeMs: number;
}

/** How far a lease is, in shares of 0 to 1. */
export interface Progress {
  readonly share: number;
  /** From one word of it to the next. */
  readonly each: number;
  /** The answer is on its way: what is said is of that. */
  readonly upload?: Upload;
}

/** What the crew and the dispatcher hear. */
export interface ConnectionEvents {
  /** Its engine is open: it may be offered weights, or refused. */
  ready(worker: Connection): void;
  /** It may be able to take more, or less, than before. */
  changed(worker: Connection): void;
  answered(worker: Connection, lease: number, answer: Answer): void;
  /** An answer of its waits for room. */
  waits(lease: number): void;
  /** The answer of this lease holds up another's that is needed first. */
  giveWay(lease: number): void;
  /** It goes on with a lease. @param progress none: what it hands over comes in */
  progressed(worker: Connection, lease: number, progress?: Progress): void;
  /** It leaves, and would hand over the state of a lease: accept() it, or it goes on. */
  offered(worker: Connection, lease: number): void;
  /**
   * @param units computed before it was given back, or parts of one
   * @param handed the listener's: what others go on from
   */
  handedBack(worker: Connection, lease: number, reason: string, units: number, handed: HandedOver | undefined): void;
  gone(worker: Connection, reason: string): void;
  /** Our own fault. */
  broken(error: unknown): void;
}

export interface ConnectionOptions {
  readonly pipe: Pipe;
  readonly clock: Clock;
  readonly welcome: Welcome;
  /** Offered to the worker; the gradient is this connection's from now on. */
  readonly memory: WorkerMemory | undefined;
  readonly uploads: Uploads;
  /** Of the run's wire. */
  readonly codec: Codec;
  readonly events: ConnectionEvents;
  /** Where it comes from; undefined for this machine's own. */
  readonly address: string | undefined;
  readonly uniqueName: (wanted: string) => string;
  /** Why nobody of this name, from where it comes, is let in. */
  readonly whyKeptOut: (name: string) => string | undefined;
}

/** What an answer must be. */
export interface Expected {
  readonly losses: number;
  readonly vector: boolean;
}

type AnswerMessage = Extract<FromWorker, { type: "answer" }>;

interface HeldLease extends Expected, Sender {
  upload?: Upload | undefined;
  /** Losses that it says are known. */
  known: number;
  /** Nobody needs its answer, which is on its way. */
  isUnwanted: boolean;
  /** Of each of its units, where one may be handed over; else none. */
  readonly steps: number;
  /** What its holder may hand over: vectors of the room, of which so many are there. */
  state?: { readonly vectors: Float32Array[]; whole: number } | undefined;
}

export class Connection {
  /** Unique among connections: the worker's own name, with a number where two share one. */
  name = "";
  host = "";
  device = "";
  arithmetic = "";
  state: "greeting" | "opening" | "ready" | "leaving" | "refused" | "gone" = "greeting";
  /** Step of the newest weights that were sent whole; -1 before. */
  step = -1;
  /** Weights and gradients go through shared memory. */
  sharesMemory = false;
  /** It goes on with what others have begun. */
  takesOver = false;
  readonly connectedAt: number;
  readonly address: string | undefined;

  readonly #options: ConnectionOptions;
  readonly #channel: Channel<FromWorker, FromCoordinator>;
  readonly #leases = new Map<number, HeldLease>();
  /** Of a vector on its way in. */
  readonly #vectorBytes: number;
  /** It has the run's data. */
  #hasData = false;
  #arrival: Arrival | undefined;
  /** An answer in shared memory that waits for room. */
  #unheard: AnswerMessage | undefined;
  #wanted: WeightsSnapshot | Passage | undefined;
  /** Weights that were sent as they came, or are. */
  #passage: Passage | undefined;

  constructor(options: ConnectionOptions) {
    const { pipe, clock, welcome } = options;
    this.#options = options;
    this.connectedAt = clock.now();
    this.address = options.address;
    this.#vectorBytes = options.codec.bytes(welcome.vectors * welcome.parameters);
    this.#channel = new Channel({
      pipe,
      clock,
      decode: decodeFromWorker,
      events: {
        control: (message) => this.#onControl(message),
        frame: (frame) => this.#onFrame(frame),
        lost: (reason) => this.#end(reason),
        broken: (error) => options.events.broken(error),
      },
    });
    const { silenceMs, pingEveryMs } = timesOf(welcome.timeoutMs);
    this.#channel.watch(silenceMs, pingEveryMs, true);
    this.#limit();
  }

  get bytesIn(): number {
    return this.#channel.bytesIn;
  }

  get bytesOut(): number {
    return this.#channel.bytesOut;
  }

  get roundTripMs(): number | null {
    return this.#channel.roundTripMs;
  }

  /** May it be given leases of this step? */
  hasWeightsOf(step: number): boolean {
    return this.state === "ready" && this.step === step;
  }

  /** Send weights; newer ones offered meanwhile replace what has not left yet. */
  offer(snapshot: WeightsSnapshot): void {
    if (this.state !== "ready") return;
    // Of a run that went back: what it has is of no use, though the number of its step comes again.
    if (snapshot.step <= this.step) this.step = -1;
    const isQueued = this.#wanted !== undefined;
    // Now: they may leave later than the weights change. Who has not got those before this step needs the whole.
    if (!this.sharesMemory) snapshot.frames(isQueued ? undefined : this.step);
    this.#wanted = snapshot;
    if (!isQueued) this.#channel.add(() => this.#sendWanted());
  }

  /** Send weights that are still coming, where they are of use and nothing else is on its way. */
  pass(passage: Passage): void {
    const isOfUse = passage.from === undefined || passage.from === this.step;
    if (this.state !== "ready" || this.sharesMemory || this.#wanted || !isOfUse) return;
    // What it has is of no use once another vector has begun.
    if (passage.from === undefined) this.step = -1;
    this.#passage = this.#wanted = passage;
    this.#channel.add(() => this.#sendWanted());
  }

  /** Was it sent these as they came? */
  hasPassed(passage: Passage | undefined): boolean {
    return passage !== undefined && !passage.isCut && this.#passage === passage;
  }

  async #sendWanted(): Promise<void> {
    while (this.#wanted) {
      const readers = await this.#sendSnapshot(this.#wanted);
      // Frames still in the pipe's queue are read from the snapshot's memory; the rest of it is not needed here.
      await this.#channel.flushed();
      readers.count--;
    }
  }

  /** @returns of its memory, this connection one of them */
  async #sendSnapshot(current: WeightsSnapshot | Passage): Promise<WeightsSnapshot["readers"]> {
    const { readers, step } = current;
    readers.count++;
    if (this.sharesMemory) await this.#channel.tell({ type: "weights", step });
    else
      for await (const frame of current.frames(this.step)) {
        if (this.#wanted !== current) break;
        await this.#channel.send(frame);
      }
    // What did not become whole is of no use.
    if (current.isCut && this.#wanted === current) this.#wanted = undefined;
    if (this.#wanted === current) {
      this.#wanted = undefined;
      this.step = step;
      this.#options.events.changed(this);
    }
    return readers;
  }

  /** Does it draw the windows of such a round itself? */
  draws(kind: RoundKind): boolean {
    return this.#hasData && canBeDrawn(kind);
  }

  /**
   * @param windows (message.windows, T + 1) token ids, perhaps still to be read; none where the worker draws them
   * @param state of what others have begun of it, lent while it is needed
   */
  lease(
    message: LeaseMessage,
    expected: Expected,
    windows: Promise<Uint16Array | Uint32Array> | Uint16Array | Uint32Array | undefined,
    state: readonly Float32Array[] = [],
  ): void {
    const { lease: id, first, count, local } = message;
    const { events, welcome } = this.#options;
    const held: HeldLease = {
      ...{ ...expected, first, count, known: 0, isUnwanted: false },
      steps: (welcome.handsOver && local?.learningRates.length) || 0,
      holdsUp: (unit) =>
        [...this.#leases.values()].some((other) => other.first !== first && !other.isUnwanted && holds(other, unit)),
      again: () => this.#onRoom(),
      giveWay: () => events.giveWay(id),
      ...(!this.sharesMemory && {
        evict: () => this.close(`the answer of lease ${id} takes so long that it holds up the others`),
      }),
    };
    this.#leases.set(id, held);
    this.#channel.add(async () => {
      const ids = windows instanceof Promise ? await windows : windows;
      await this.#channel.tell(ids ? message : { ...message, drawn: true });
      const frames = framesBehind(id, ids, state);
      // Once it is over nobody waits for the rest, and its state may be another's memory.
      while (!held.isUnwanted && this.#leases.has(id)) {
        const { value: frame } = frames.next();
        if (!frame) return;
        await this.#channel.send(frame);
      }
    });
  }

  /** The worker may drop the lease, what still follows it included; it answers or hands it back all the same. */
  cancel(lease: number): void {
    this.#channel.say({ type: "cancel", lease });
    const held = this.#leases.get(lease);
    if (!held) return;
    held.isUnwanted = true;
    if (this.#arrival?.id === lease) this.#arrival.discard();
    this.#forget(held);
    this.#onRoom();
  }

  /** Its holder may stop in a lease that it offered, and hand over its state; it goes on where there is no room for that. */
  accept(lease: number): void {
    const { uploads, welcome } = this.#options;
    const vectors = uploads.setAside(3 / welcome.vectors);
    if (!vectors) return;
    this.#heldLease(lease).state = { vectors, whole: 0 };
    this.#channel.say({ type: "accept", lease });
  }

  /** Frames, or an answer in shared memory, are taken in again. */
  #onRoom(): void {
    const answer = this.#unheard;
    this.#unheard = undefined;
    if (answer) this.#onAnswer(answer);
    this.#channel.release();
  }

  /** The run is over. Resolves when the worker has been told, or cannot be. */
  async finish(reason: string): Promise<void> {
    this.#channel.say({ type: "finish", reason });
    this.#channel.add(async () => this.#channel.close(1000, "finished"));
    await this.#channel.drained();
  }

  /** It cannot take part, and coming back will not help. */
  refuse(reason: string): void {
    if (this.state === "gone") return;
    this.state = "refused";
    this.#channel.say({ type: "refuse", reason: reason.slice(0, 2000) });
    this.#channel.add(async () => this.close(reason));
  }

  close(reason: string): void {
    this.#channel.close(4000, reason);
  }

  #onControl(message: FromWorker): void {
    const { welcome, memory, events } = this.#options;
    switch (message.type) {
      case "hello": {
        if (this.state !== "greeting") throw new ProtocolError("a second hello");
        this.host = message.host;
        this.name = this.#options.uniqueName(message.name);
        if (message.version !== protocolVersion) {
          this.refuse(
            `worker ${message.name} speaks version ${message.version} of the protocol, this coordinator ${protocolVersion}; run the same version of weft on both`,
          );
          return;
        }
        const keptOut = this.#options.whyKeptOut(this.name);
        if (keptOut !== undefined) {
          this.refuse(keptOut);
          return;
        }
        this.state = "opening";
        this.#channel.say(
          memory
            ? { ...welcome, sharedMemory: { weights: memory.weights.address, gradient: memory.gradient.address } }
            : welcome,
        );
        return;
      }
      case "ready":
        if (this.state !== "opening") throw new ProtocolError(`"ready" while ${this.state}`);
        this.arithmetic = message.arithmetic;
        this.device = message.device;
        this.sharesMemory = message.sharesMemory ?? false;
        this.takesOver = message.takesOver ?? false;
        if (message.data !== undefined && message.data !== welcome.data?.fingerprint) {
          this.refuse(`worker ${this.name} would draw windows of other data than the run's`);
          return;
        }
        this.#hasData = message.data !== undefined;
        if (this.sharesMemory && !memory) throw new ProtocolError("shared memory that was not offered");
        this.state = "ready";
        this.#channel.ping();
        events.ready(this);
        return;
      case "device":
        this.device = message.device;
        events.changed(this);
        return;
      case "answer":
        this.#onAnswer(message);
        return;
      case "progress": {
        const lease = this.#heldLease(message.lease);
        const more = message.losses - lease.known;
        // Less than a shard of the largest step is no sign of work.
        if (more < 1 / largestLease || message.losses > lease.losses)
          throw new ProtocolError(
            `progress of lease ${message.lease}: ${message.losses} losses of ${lease.losses}, after ${lease.known}`,
          );
        lease.known = message.losses;
        const progress = { share: lease.known / lease.losses, each: more / lease.losses };
        events.progressed(this, message.lease, progress);
        return;
      }
      case "paused":
        this.#heldLease(message.lease);
        this.#channel.expect(false);
        return;
      case "offer": {
        const lease = this.#heldLease(message.lease);
        if (lease.steps === 0) throw new ProtocolError(`lease ${message.lease} cannot be handed over`);
        if (this.state !== "leaving")
          throw new ProtocolError(`${this.name} would hand over lease ${message.lease} and does not leave`);
        if (lease.state) throw new ProtocolError(`lease ${message.lease} is offered again`);
        if (!lease.isUnwanted) events.offered(this, message.lease);
        return;
      }
      case "handback": {
        const lease = this.#heldLease(message.lease);
        const handed = message.state && this.#handedOver(message.lease, lease, unpackLosses(message.state));
        this.#forget(lease);
        this.#leases.delete(message.lease);
        if (this.#unheard?.lease === message.lease) this.#unheard = undefined;
        if (this.#arrival?.id === message.lease) this.#arrival = undefined;
        if (!this.#arrival) this.#channel.expect(false);
        events.handedBack(this, message.lease, message.reason, message.units ?? 0, handed);
        return;
      }
      case "leaving":
        if (this.state !== "refused") this.state = "leaving";
        events.changed(this);
        return;
    }
  }

  #onFrame(frame: Frame): "hold" | undefined {
    if (frame.kind === "state") return this.#onState(frame);
    if (frame.kind !== "gradient") throw new ProtocolError(`a worker sends no ${frame.kind}`);
    const lease = this.#heldLease(frame.id);
    if (this.sharesMemory) throw new ProtocolError(`${this.name} sends a gradient that it said it would share`);
    if (!lease.vector) throw new ProtocolError(`a gradient for lease ${frame.id}, which asks for none`);
    this.#decline(frame.id, lease);
    if (!lease.upload && !lease.isUnwanted) {
      lease.upload = this.#beginUpload(frame.id, lease);
      if (!lease.upload) return "hold";
      this.#arrival = Arrival.ofVector("gradient", frame.id, lease.upload.vector, this.#options.codec);
    }
    this.#arrival ??= frame.offset === 0 ? Arrival.ofNothing("gradient", frame.id, this.#vectorBytes) : undefined;
    if (!this.#arrival) throw new ProtocolError(`gradient of lease ${frame.id} after its end`);
    this.#arrival.take(frame);
    this.#channel.expect(true);
    if (lease.upload) {
      lease.upload.known = this.#arrival.known;
      const each = frame.data.length / frame.total;
      const share = frame.offset / frame.total + each;
      this.#options.events.progressed(this, frame.id, { share, each, upload: lease.upload });
    }
    return undefined;
  }

  /** A part of what is handed over. */
  #onState(frame: Frame): undefined {
    const { id } = frame;
    const { welcome } = this.#options;
    const lease = this.#heldLease(id);
    if (!lease.state && !lease.isUnwanted) throw new ProtocolError(`a state of lease ${id}, which was not accepted`);
    if (!this.#arrival) {
      const vector = lease.state?.vectors[lease.state.whole];
      if (lease.state && !vector) throw new ProtocolError(`more than the state of lease ${id}`);
      this.#arrival = vector
        ? Arrival.ofVector("state", id, vector, bestCodec("float32"))
        : Arrival.ofNothing("state", id, 4 * welcome.vectors * welcome.parameters);
    }
    this.#arrival.take(frame);
    this.#channel.expect(true);
    this.#options.events.progressed(this, id);
    if (!this.#arrival.complete) return;
    this.#arrival = undefined;
    if (lease.state) lease.state.whole++;
  }

  /** @param losses of the steps that its holder says it hands over */
  #handedOver(id: number, lease: HeldLease, losses: number[]): HandedOver | undefined {
    if (losses.length < 1 || losses.length >= lease.steps)
      throw new ProtocolError(`a state after ${losses.length} of the ${lease.steps} steps of lease ${id}`);
    if (lease.isUnwanted) return undefined;
    const { vectors: state, whole } = lease.state ?? { vectors: [], whole: 0 };
    if (whole === 0 || whole < state.length)
      throw new ProtocolError(`lease ${id} was handed over before its whole state`);
    lease.state = undefined;
    return { losses, state };
  }

  /** It is finished after all, not handed over. */
  #decline(id: number, lease: HeldLease): void {
    if (!lease.state) return;
    if (lease.state.whole > 0 || this.#arrival?.kind === "state")
      throw new ProtocolError(`lease ${id} is answered in the middle of being handed over`);
    this.#options.uploads.giveBack(lease.state.vectors);
    lease.state = undefined;
  }

  #beginUpload(id: number, lease: HeldLease): Upload | undefined {
    const upload = this.#options.uploads.begin(lease);
    if (!upload) this.#options.events.waits(id);
    return upload;
  }

  #onAnswer(message: AnswerMessage): void {
    const { lease: id, computeMs } = message;
    const losses = unpackLosses(message.losses);
    const lease = this.#heldLease(id);
    if (this.#unheard && lease.vector)
      throw new ProtocolError(`the answer of lease ${id} before that in shared memory was taken`);
    this.#decline(id, lease);
    if (losses.length !== lease.losses)
      throw new ProtocolError(`${losses.length} losses for lease ${id}, expected ${lease.losses}`);
    if (this.sharesMemory && lease.vector && !lease.isUnwanted) {
      lease.upload = this.#beginUpload(id, lease);
      if (!lease.upload) {
        this.#unheard = message;
        return;
      }
    }
    this.#options.events.answered(this, id, { losses, vector: this.#vectorOf(id, lease), computeMs });
  }

  /** The vector that came with an answer; the lease is over. */
  #vectorOf(id: number, lease: HeldLease): Float32Array | undefined {
    if (lease.vector && !this.sharesMemory && (!this.#arrival?.complete || this.#arrival.id !== id))
      throw new ProtocolError(`the answer of lease ${id} came before its whole gradient`);
    this.#leases.delete(id);
    if (!lease.vector) return undefined;
    if (this.sharesMemory) {
      lease.upload?.vector.set(this.#options.memory!.gradient.values);
      this.#channel.say({ type: "taken", lease: id });
    } else {
      this.#arrival = undefined;
      this.#channel.expect(false);
    }
    return lease.isUnwanted ? undefined : this.#options.uploads.finish(lease.upload!);
  }

  /** It will not be answered. */
  #forget(lease: HeldLease): void {
    const { uploads } = this.#options;
    uploads.forget(lease);
    if (lease.upload) uploads.drop(lease.upload);
    if (lease.state) uploads.giveBack(lease.state.vectors);
    lease.upload = lease.state = undefined;
  }

  #heldLease(id: number): HeldLease {
    const lease = this.#leases.get(id);
    if (!lease) throw new ProtocolError(`${this.name} does not hold lease ${id}`);
    return lease;
  }

  /** Whoever comes has to be ready in time. */
  #limit(): void {
    const { clock, welcome } = this.#options;
    const { handshakeMs, openMs } = timesOf(welcome.timeoutMs);
    const unless = (state: (typeof this)["state"][], ms: number) =>
      clock.after(
        ms,
        () => {
          if (state.includes(this.state)) this.close(`not ready to work after ${(ms / 1000).toFixed(1)} s`);
        },
        true,
      );
    const timers = [unless(["greeting"], handshakeMs), unless(["greeting", "opening"], openMs)];
    this.#cancelLimits = () => {
      for (const timer of timers) timer.cancel();
    };
  }

  #cancelLimits: () => void = () => {};

  #end(reason: string): void {
    if (this.state === "gone") return;
    this.state = "gone";
    this.#cancelLimits();
    this.#options.memory?.gradient.close();
    for (const lease of this.#leases.values()) this.#forget(lease);
    this.#leases.clear();
    this.#wanted = undefined;
    this.#options.events.gone(this, reason);
  }
}

/** What follows a lease. */
function* framesBehind(
  id: number,
  ids: Uint16Array | Uint32Array | undefined,
  state: readonly Float32Array[],
): Generator<Buffer> {
  if (ids) yield* framesOf("windows", id, bytesOf(ids));
  for (const vector of state) yield* encodedFrames("state", id, vector, bestCodec("float32"));
}
