// Where the run's weights live on their way to the workers: a snapshot of each step, encoded once for all, with the
// memory of the one before it used again; and shared memory for workers on this machine.
import { bytesOf, framesOf } from "../shared/wire/frame.ts";
import { SharedVector } from "../shared/wire/shared-memory.ts";

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

export class Weights {
  readonly #length: number;
  #newest: WeightsSnapshot | undefined;
  #spare: WeightsSnapshot | undefined;
  /** Where workers on this machine find the newest weights; made for the first of them. */
  #shared: SharedVector | undefined;

  /** @param length P */
  constructor(length: number) {
    this.#length = length;
  }

  get newest(): WeightsSnapshot | undefined {
    return this.#newest;
  }

  /** @param weights (P) which may change once this has returned and every worker that shares no memory has been offered them */
  publish(step: number, weights: Float32Array): WeightsSnapshot {
    const old = this.#newest;
    const spare = this.#spare?.users === 0 ? this.#spare : undefined;
    this.#shared?.values.set(weights);
    this.#newest = new WeightsSnapshot(step, this.#shared?.values ?? weights, spare);
    this.#spare = old;
    return this.#newest;
  }

  /** Shared memory for one more worker, where there is such a thing. */
  share(): WorkerMemory | undefined {
    if (!this.#shared) {
      this.#shared = SharedVector.create(this.#length);
      if (this.#newest) this.#shared?.values.set(this.#newest.weights);
    }
    const gradient = this.#shared && SharedVector.create(this.#length);
    return gradient && { weights: this.#shared!, gradient };
  }
}
