// Connections between simulated processes: messages take time and room, keep their order, and go wrong when they are told
// to. Each direction is a queue with a bandwidth, a latency and a window: what the other end does not take in waits here.
import type { Pipe, PipeEvents } from "../../shared/wire/pipe.ts";
import { UnreachableError } from "../../shared/wire/web-socket.ts";
import type { Random } from "./random.ts";
import type { Process, Time } from "./time.ts";

export interface LinkSettings {
  readonly latencyMs: number;
  readonly bytesPerMs: number;
}

/** What can happen to a message on its way. */
export type Mishap = "lose" | "repeat" | "swap" | "flip";

/** Bytes that the system takes in for a process that does not read. */
const windowBytes = 4096;

type Item =
  | { kind: "message"; data: Buffer; left: (error?: Error) => void }
  | { kind: "ping" | "pong"; data: string }
  | { kind: "close"; data: string };

/** One direction of a connection. */
class Way {
  readonly #time: Time;
  readonly #link: LinkSettings;
  readonly #random: Random;
  readonly #queue: Item[] = [];
  #sending = false;
  /** Bytes that the other end has been given by the system and has not read. */
  #unread = 0;
  queuedBytes = 0;
  extraMs = 0;
  /** Nothing comes through any more, and nobody is told. */
  isCut = false;
  mishap: Mishap | undefined;
  #swapped: Item | undefined;
  #lastAt = 0;
  arrive: (item: Item) => void = () => {};

  constructor(time: Time, link: LinkSettings, random: Random) {
    this.#time = time;
    this.#link = link;
    this.#random = random;
  }

  send(item: Item): void {
    this.#queue.push(item);
    if (item.kind === "message") this.queuedBytes += item.data.length;
    this.#go();
  }

  /** The other end has read so many bytes. */
  read(bytes: number): void {
    this.#unread -= bytes;
    this.#go();
  }

  /** Nobody sends any more. */
  fail(error: Error): void {
    for (const item of this.#queue.splice(0)) if (item.kind === "message") item.left(error);
    this.queuedBytes = 0;
  }

  #go(): void {
    const item = this.#queue[0];
    if (!item || this.#sending || (this.#unread > windowBytes && item.kind === "message")) return;
    const bytes = item.kind === "message" ? item.data.length : 10;
    this.#sending = true;
    this.#time.after(bytes / this.#link.bytesPerMs, () => {
      this.#sending = false;
      if (this.#queue[0] !== item) return;
      this.#queue.shift();
      if (item.kind === "message") {
        this.queuedBytes -= item.data.length;
        this.#unread += item.data.length;
        item.left();
      }
      if (!this.isCut) this.#deliver(item);
      this.#go();
    });
  }

  #deliver(item: Item): void {
    const mishap = item.kind === "message" ? this.mishap : undefined;
    const items: Item[] = [item];
    if (this.#swapped) {
      items.push(this.#swapped);
      this.#swapped = undefined;
    }
    if (mishap) this.mishap = undefined;
    if (mishap === "lose") items.shift();
    if (mishap === "repeat") items.push(item);
    if (mishap === "swap") {
      this.#swapped = item;
      items.shift();
    }
    if (mishap === "flip" && item.kind === "message") {
      const data = Buffer.from(item.data);
      const at = Math.floor(this.#random() * data.length);
      data[at]! ^= 1 << Math.floor(this.#random() * 8);
      items[0] = { ...item, data };
    }
    for (const each of items) {
      // Latency that shrinks lets no message overtake another: TCP keeps their order.
      this.#lastAt = Math.max(this.#lastAt, this.#time.now + this.#link.latencyMs + this.extraMs);
      this.#time.after(this.#lastAt - this.#time.now, () => this.arrive(each));
    }
  }
}

/** An end of a connection. */
class End implements Pipe {
  readonly process: Process;
  readonly out: Way;
  readonly #in: Way;
  #events: PipeEvents | undefined;
  #isOpen = true;
  #isPaused = false;
  readonly #unread: (() => void)[] = [];

  constructor(process: Process, out: Way, into: Way) {
    this.process = process;
    this.out = out;
    this.#in = into;
    into.arrive = (item) => this.process.deliver(() => this.#take(item));
  }

  get isOpen(): boolean {
    return this.#isOpen && this.process.isAlive;
  }

  get queuedBytes(): number {
    return this.out.queuedBytes;
  }

  listen(events: PipeEvents): void {
    this.#events = events;
  }

  send(message: Buffer, left: (error?: Error) => void): void {
    if (!this.isOpen) {
      left(new Error("the connection is closed"));
      return;
    }
    // A copy: the sender may use its memory again once the message has left.
    this.out.send({
      kind: "message",
      data: Buffer.from(message),
      left: (error) => this.process.deliver(() => left(error)),
    });
  }

  ping(payload: string): void {
    if (this.isOpen) this.out.send({ kind: "ping", data: payload });
  }

  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    this.#isPaused = false;
    while (!this.#isPaused && this.#unread.length > 0) this.#unread.shift()!();
  }

  close(_code: number, reason: string): void {
    if (!this.#isOpen) return;
    this.out.send({ kind: "close", data: reason });
    this.#isOpen = false;
  }

  terminate(): void {
    this.#isOpen = false;
    this.out.fail(new Error("the connection was cut"));
    this.out.send({ kind: "close", data: "" });
  }

  /** The connection breaks under both. */
  break(reason: string): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.out.isCut = true;
    this.out.fail(new Error(reason));
    this.process.deliver(() => this.#events?.closed(reason));
  }

  #take(item: Item): void {
    if (this.#isPaused && item.kind === "message") {
      this.#unread.push(() => this.#take(item));
      return;
    }
    if (item.kind === "message") this.#in.read(item.data.length);
    if (item.kind === "close") {
      if (!this.#isOpen) return;
      this.#isOpen = false;
      this.out.fail(new Error("the connection closed"));
      this.#events?.closed(item.data || "the connection closed (1006)");
      return;
    }
    if (!this.#isOpen) return;
    if (item.kind === "ping") {
      this.#events?.ping();
      this.out.send({ kind: "pong", data: item.data });
    } else if (item.kind === "pong") this.#events?.pong(item.data);
    else if (item.kind === "message") this.#events?.message(item.data);
  }
}

export interface Connected {
  readonly worker: End;
  readonly coordinator: End;
}

/** Who listens, and who is connected. */
export class Network {
  readonly connections = new Set<Connected>();
  readonly #time: Time;
  readonly #random: Random;
  /** By address: the coordinator of this moment, if there is one, and relays. */
  readonly listeners = new Map<
    string,
    { readonly process: Process; readonly admit: (pipe: Pipe, address?: string) => void }
  >();

  constructor(time: Time, random: Random) {
    this.#time = time;
    this.#random = random;
  }

  /** @throws UnreachableError where nobody listens */
  dial(process: Process, url: string, link: LinkSettings, isReachable: () => boolean, address?: string): Promise<Pipe> {
    return new Promise((resolve, reject) => {
      this.#time.after(2 * link.latencyMs + 0.1, () =>
        process.deliver(() => {
          const listener = this.listeners.get(url);
          if (!listener?.process.isAlive || !isReachable())
            return reject(new UnreachableError("connect ECONNREFUSED, nobody listens"));
          const [up, down] = [new Way(this.#time, link, this.#random), new Way(this.#time, link, this.#random)];
          const connected = {
            worker: new End(process, up, down),
            coordinator: new End(listener.process, down, up),
          };
          this.connections.add(connected);
          listener.process.deliver(() => listener.admit(connected.coordinator, address));
          resolve(connected.worker);
        }),
      );
    });
  }

  of(process: Process): Connected[] {
    for (const connected of this.connections)
      if (!connected.worker.isOpen && !connected.coordinator.isOpen) this.connections.delete(connected);
    return [...this.connections].filter(({ worker, coordinator }) =>
      [worker.process, coordinator.process].includes(process),
    );
  }

  /** A process is gone: its peers hear of it, or do not. */
  gone(process: Process, silently: boolean): void {
    for (const { worker, coordinator } of this.of(process)) {
      const [dead, peer] = worker.process === process ? [worker, coordinator] : [coordinator, worker];
      dead.out.isCut = true;
      if (!silently) peer.break("read ECONNRESET");
    }
  }
}
