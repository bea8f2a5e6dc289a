// How a worker that is asked to go leaves a replica that it is in the middle of. Its state travels up from here and down
// to somebody else; that is worth it where the steps that are in it would take longer to do again.

export interface Prospect {
  /** Steps that it has taken of those that it was to take. */
  readonly done: number;
  readonly steps: number;
  readonly stepMs: number;
  /** Milliseconds that the state takes up, and down to who goes on. */
  readonly upMs: number;
  readonly downMs: number;
}

export type WayOut = "finish" | "hand over" | "hand back";

export function wayOut({ done, steps, stepMs, upMs, downMs }: Prospect): WayOut {
  // It would not be gone any sooner.
  if ((steps - done) * stepMs <= upMs) return "finish";
  return done * stepMs > upMs + downMs ? "hand over" : "hand back";
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
