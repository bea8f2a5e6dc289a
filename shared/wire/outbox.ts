// Messages leave a socket one after another, and no more of them wait in it than a few megabytes: back-pressure that
// reaches whoever makes the messages.

/** What both ends' WebSockets have. */
export interface Sendable {
  readonly readyState: number;
  readonly OPEN: number;
  readonly bufferedAmount: number;
  send(data: Buffer, done: (error?: Error) => void): void;
}

/** Bytes that may wait in the socket before the sender has to. */
const highWater = 4 * 2 ** 20;

export class Outbox {
  /** Sent so far. */
  bytes = 0;
  readonly #socket: Sendable;
  readonly #onError: (error: Error) => void;
  #jobs: Promise<void> = Promise.resolve();
  #last: Promise<void> = Promise.resolve();

  /** @param onError hears that the socket is broken, perhaps more than once */
  constructor(socket: Sendable, onError: (error: Error) => void) {
    this.#socket = socket;
    this.#onError = onError;
  }

  /** Run a job that sends, after those before it; a socket that is no longer open gets none. */
  add(job: () => Promise<void>): void {
    this.#jobs = this.#jobs
      .then(async () => {
        if (this.#socket.readyState === this.#socket.OPEN) await job();
      })
      .catch(this.#onError);
  }

  /** Inside a job: send a message, whose memory must not change until flushed(). */
  async send(message: Buffer): Promise<void> {
    this.bytes += message.length;
    this.#last = new Promise((resolve) => {
      this.#socket.send(message, (error) => {
        if (error) this.#onError(error);
        resolve();
      });
    });
    if (this.#socket.bufferedAmount > highWater) await this.#last;
  }

  /** Resolves when all that was sent has left this process, or will not. */
  async flushed(): Promise<void> {
    await this.#last;
  }

  /** Resolves when every job so far is done and has left. */
  async drained(): Promise<void> {
    await this.#jobs;
    await this.#last;
  }
}
