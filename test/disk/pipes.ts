// A connection inside one process: what is sent at one end comes out at the other in a later turn of the event loop.
import type { Pipe, PipeEvents } from "../../shared/wire/pipe.ts";

class End implements Pipe {
  isOpen = true;
  readonly queuedBytes = 0;
  other!: End;
  #events: PipeEvents | undefined;
  #isPaused = false;
  readonly #held: Buffer[] = [];

  listen(events: PipeEvents): void {
    this.#events = events;
  }

  send(message: Buffer, left: (error?: Error) => void): void {
    if (!this.isOpen) {
      left(new Error("the connection is closed"));
      return;
    }
    const copy = Buffer.from(message);
    setImmediate(() => {
      left();
      this.other.#take(copy);
    });
  }

  ping(payload: string): void {
    setImmediate(() => {
      this.other.#events?.ping();
      this.#events?.pong(payload);
    });
  }

  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    this.#isPaused = false;
    while (!this.#isPaused && this.#held.length > 0) this.#take(this.#held.shift()!);
  }

  close(_code: number, reason: string): void {
    setImmediate(() => {
      for (const end of [this, this.other]) end.#end(reason);
    });
  }

  terminate(): void {
    this.close(1006, "the connection was cut");
  }

  #take(message: Buffer): void {
    if (this.#isPaused) this.#held.push(message);
    else if (this.isOpen) this.#events?.message(message);
  }

  #end(reason: string): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.#events?.closed(reason);
  }
}

export function pipes(): [Pipe, Pipe] {
  const [a, b] = [new End(), new End()];
  a.other = b;
  b.other = a;
  return [a, b];
}
