// How a worker that is asked to go leaves a replica that it is in the middle of: finished, or handed over. Its state would
// travel up from here and down to somebody else.

export interface Prospect {
  /** Steps that it has taken of those that it was to take. */
  readonly done: number;
  readonly steps: number;
  readonly stepMs: number;
  /** Milliseconds that the state takes up, and down to who goes on. */
  readonly upMs: number;
  readonly downMs: number;
}

/** Is it gone sooner by handing over, and would the steps that are done take longer to do again than the state to travel? */
export function isHandedOver({ done, steps, stepMs, upMs, downMs }: Prospect): boolean {
  return (steps - done) * stepMs > upMs && done * stepMs > upMs + downMs;
}

/** What a connection was seen to take for tensors each way; nothing is taken for free until one went. */
export class Link {
  #downMsPerByte = 0;
  #upMsPerByte: number | undefined;

  /** A tensor came, or went. */
  down(bytes: number, ms: number): void {
    this.#downMsPerByte = ms / bytes;
  }

  up(bytes: number, ms: number): void {
    this.#upMsPerByte = ms / bytes;
  }

  /** Of so many bytes; up as down before anything has gone up. */
  takes(bytes: number): { upMs: number; downMs: number } {
    return {
      upMs: bytes * (this.#upMsPerByte ?? this.#downMsPerByte),
      downMs: bytes * this.#downMsPerByte,
    };
  }
}
