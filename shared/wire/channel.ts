// A conversation over a pipe, the same at both ends: messages leave one after another under back-pressure, whatever comes
// in is checked before anyone sees it, and a peer that is silent, or does not read, is given up.
import type { Clock, Timer } from "../clock.ts";
import { messageOf, ProtocolError } from "../errors.ts";
import { type Frame, parseFrame } from "./frame.ts";
import type { Pipe } from "./pipe.ts";
import { encodeMessage, type FromCoordinator, type FromWorker, isControl } from "./protocol.ts";

export interface ChannelEvents<In> {
  /** @throws ProtocolError on what may not be said now: the channel closes with its message */
  control(message: In): void;
  /** @returns "hold": there is no room for it now; it comes again after release() @throws ProtocolError */
  frame(frame: Frame): "hold" | undefined;
  /** Once; nothing comes after it. */
  lost(reason: string): void;
  /** A listener threw what is not the peer's fault. */
  broken(error: unknown): void;
}

export interface ChannelOptions<In> {
  readonly pipe: Pipe;
  readonly clock: Clock;
  /** Check and decode the peer's control message number `sequence`, counted from 0. @throws ProtocolError */
  readonly decode: (message: Buffer, sequence: number) => In;
  readonly events: ChannelEvents<In>;
}

/** Bytes that may wait in the pipe before the sender has to. */
const highWater = 4 * 2 ** 20;
/** How long a peer may take to answer a close before its connection is cut. */
const closingMs = 2000;

export class Channel<In, Out extends FromWorker | FromCoordinator> {
  bytesIn = 0;
  bytesOut = 0;
  roundTripMs: number | null = null;
  readonly #pipe: Pipe;
  readonly #clock: Clock;
  readonly #decode: (message: Buffer, sequence: number) => In;
  readonly #events: ChannelEvents<In>;
  readonly #jobs: (() => Promise<void>)[] = [];
  #working = false;
  #sent = 0;
  #received = 0;
  #heardAt: number;
  /** Messages given to the pipe that have not left, and since when none of them has. */
  #unsent = 0;
  #stuckSince = 0;
  /** When the peer, which is in the middle of something, last went on with it. */
  #expectingSince: number | undefined;
  /** What came since the listener had no room, while the peer is made to wait: its silence is no fault then. */
  #held: Buffer[] | undefined;
  #watch: Timer | undefined;
  #idle: (() => void)[] = [];
  #isLost = false;

  constructor({ pipe, clock, decode, events }: ChannelOptions<In>) {
    this.#pipe = pipe;
    this.#clock = clock;
    this.#decode = decode;
    this.#events = events;
    this.#heardAt = clock.now();
    pipe.listen({
      message: (data) => this.#onMessage(data),
      ping: () => {
        this.#heardAt = clock.now();
      },
      pong: (payload) => this.#onPong(payload),
      closed: (reason) => this.#lose(reason),
    });
  }

  /** Give the peer up when nothing came, or nothing left, for so long; and ping it, so that it is never silent for nothing. */
  watch(silenceMs: number, everyMs: number, pings: boolean): void {
    this.#watch?.cancel();
    if (this.#isLost) return;
    const look = () => {
      const now = this.#clock.now();
      const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`;
      const silent = this.#held ? 0 : now - this.#heardAt;
      // Who pings us is alive: where it takes nothing in, it has no room yet, and we wait.
      const isBusy = !pings && silent <= silenceMs;
      const stuck = this.#unsent > 0 && !isBusy ? now - this.#stuckSince : 0;
      const stopped = this.#held || this.#expectingSince === undefined ? 0 : now - this.#expectingSince;
      if (silent > silenceMs) this.abandon(`silent for ${seconds(silent)}, the limit is ${seconds(silenceMs)}`);
      else if (stuck > silenceMs)
        this.abandon(`has read nothing for ${seconds(stuck)}, the limit is ${seconds(silenceMs)}`);
      else if (stopped > silenceMs)
        this.abandon(`stopped in the middle of a tensor for ${seconds(stopped)}, the limit is ${seconds(silenceMs)}`);
      else if (pings) this.ping();
    };
    this.#watch = this.#clock.every(everyMs, look);
  }

  /** The peer has begun something, or gone on with it, and owes the rest; or owes nothing any more. */
  expect(more: boolean): void {
    this.#expectingSince = more ? this.#clock.now() : undefined;
  }

  ping(): void {
    this.#pipe.ping(String(this.#clock.now()));
  }

  /** There is room again: hear what was held, and let more come in. @returns false when there is nobody to hear */
  release(): boolean {
    if (!this.#held || this.#isLost) return false;
    const messages = this.#held;
    this.#held = undefined;
    for (const message of messages) if (!this.#isLost) this.#hear(message);
    if (this.#held) return true;
    this.#heardAt = this.#clock.now();
    if (this.#expectingSince !== undefined) this.#expectingSince = this.#heardAt;
    this.#pipe.resume();
    return true;
  }

  /** Send a control message after the jobs before it. */
  say(message: Out): void {
    if (!this.#working) void this.#sayNow(message);
    else this.add(async () => this.#sayNow(message));
  }

  /** Run a job that sends, after those before it; none once the pipe has closed. */
  add(job: () => Promise<void>): void {
    this.#jobs.push(job);
    if (!this.#working) void this.#work();
  }

  /** Inside a job: send a control message. */
  async tell(message: Out): Promise<void> {
    await this.#sayNow(message);
  }

  /** Inside a job: send a tensor's frame, whose memory must not change until flushed(). */
  async send(frame: Buffer): Promise<void> {
    await this.#give(frame);
  }

  /** Inside a job: resolves when all that was sent has left this process, or will not. */
  async flushed(): Promise<void> {
    while (this.#unsent > 0 && !this.#isLost) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  /** Resolves when every job so far is done and all has left, or cannot. */
  async drained(): Promise<void> {
    let done = false;
    this.add(async () => {
      await this.flushed();
      done = true;
      this.#wakeIdle();
    });
    while (!done && !this.#isLost) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  /** Tell the peer why and close; `lost` is heard at once. */
  close(code: number, reason: string): void {
    if (this.#isLost) return;
    this.#pipe.close(code, reason);
    // A peer that does not answer the closing handshake must not keep the connection.
    this.#clock.after(closingMs, () => this.#pipe.terminate(), true);
    this.#lose(reason);
  }

  /** Close without waiting for anything: the peer does not answer. */
  abandon(reason: string): void {
    if (this.#isLost) return;
    this.#pipe.close(4000, reason);
    this.#pipe.terminate();
    this.#lose(reason);
  }

  #sayNow(message: Out): Promise<void> | undefined {
    return this.#give(encodeMessage(message, this.#sent++));
  }

  /** @returns what to wait for where the pipe is full */
  #give(message: Buffer): Promise<void> | undefined {
    if (this.#isLost || !this.#pipe.isOpen) return undefined;
    this.bytesOut += message.length;
    if (this.#unsent++ === 0) this.#stuckSince = this.#clock.now();
    let resolve: (() => void) | undefined;
    this.#pipe.send(message, (error) => {
      this.#unsent--;
      this.#stuckSince = this.#clock.now();
      if (error) this.abandon(`sending failed: ${messageOf(error)}`);
      resolve?.();
      if (this.#unsent === 0) this.#wakeIdle();
    });
    if (this.#pipe.queuedBytes <= highWater) return undefined;
    return new Promise((done) => {
      resolve = done;
      this.#idle.push(done);
    });
  }

  async #work(): Promise<void> {
    this.#working = true;
    try {
      for (let job = this.#jobs.shift(); job; job = this.#jobs.shift()) if (this.#pipe.isOpen) await job();
    } catch (error) {
      this.#events.broken(error);
    } finally {
      this.#working = false;
    }
  }

  #wakeIdle(): void {
    for (const wake of this.#idle.splice(0)) wake();
  }

  #onMessage(data: Buffer): void {
    this.#heardAt = this.#clock.now();
    this.bytesIn += data.length;
    if (!this.#isLost) this.#hear(data);
  }

  #hear(data: Buffer): void {
    if (this.#held) {
      this.#held.push(data);
      return;
    }
    try {
      if (isControl(data)) this.#events.control(this.#decode(data, this.#received++));
      else if (this.#events.frame(parseFrame(data)) === "hold") {
        this.#held = [data];
        this.#pipe.pause();
      }
    } catch (error) {
      if (error instanceof ProtocolError) this.close(4000, `protocol: ${error.message}`);
      else this.#events.broken(error);
    }
  }

  #onPong(payload: string): void {
    this.#heardAt = this.#clock.now();
    const sentAt = Number(payload);
    if (sentAt > 0 && sentAt <= this.#heardAt) this.roundTripMs = this.#heardAt - sentAt;
  }

  #lose(reason: string): void {
    if (this.#isLost) return;
    this.#isLost = true;
    this.#watch?.cancel();
    this.#jobs.length = 0;
    this.#wakeIdle();
    this.#events.lost(reason);
  }
}
