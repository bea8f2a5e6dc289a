// Where the run's weights live on their way to the workers: a snapshot of each step, encoded once for all, with the
// memory of the one before it used again; and shared memory for workers on this machine. Where the run's wire is small,
// who has the weights of the step before is sent what changes them into this step's.
import type { Codec } from "../shared/arithmetic/codec.ts";
import { bytesOf, encodedFrames, framesOf } from "../shared/wire/frame.ts";
import type { WeightsUpdate } from "../shared/wire/protocol.ts";
import { SharedVector } from "../shared/wire/shared-memory.ts";

/** Weights of one step, and their frames that any number of connections send from the same memory. */
export class WeightsSnapshot {
  readonly step: number;
  /** (P) As they were in this step until they are encoded or a newer snapshot is made. */
  readonly weights: Float32Array;
  /** Connections that still send from its memory. */
  readonly readers = { count: 0 };
  readonly #codec: Codec;
  /** As the weights. */
  readonly #update: WeightsUpdate | undefined;
  readonly #spare: Partial<Record<"whole" | "update", readonly Buffer[]>>;
  readonly #frames: Partial<Record<"whole" | "update", readonly Buffer[]>> = {};

  /** @param spare a snapshot without readers, whose memory is taken over */
  constructor(
    step: number,
    weights: Float32Array,
    codec: Codec,
    update: WeightsUpdate | undefined,
    spare?: WeightsSnapshot,
  ) {
    this.step = step;
    this.weights = weights;
    this.#codec = codec;
    this.#update = update;
    this.#spare = spare ? { ...spare.#spare, ...spare.#frames } : {};
  }

  /**
   * Encoded for the first worker that needs them.
   * @param has the step whose weights the worker has; undefined where it has none for certain
   */
  frames(has: number | undefined): readonly Buffer[] {
    if (this.#update && has === this.#update.from) {
      this.#frames.update ??= [
        ...encodedFrames("update", this.step, this.#update.vector, this.#codec, this.#spare.update),
      ];
      return this.#frames.update;
    }
    this.#frames.whole ??= [...framesOf("weights", this.step, bytesOf(this.weights), this.#spare.whole)];
    return this.#frames.whole;
  }
}

/** What a worker on this machine shares with us: the run's weights, and a gradient of its own. */
export interface WorkerMemory {
  readonly weights: SharedVector;
  readonly gradient: SharedVector;
}

export class Weights {
  readonly #length: number;
  readonly #codec: Codec;
  #newest: WeightsSnapshot | undefined;
  #spare: WeightsSnapshot | undefined;
  /** Where workers on this machine find the newest weights; made for the first of them. */
  #shared: SharedVector | undefined;

  /** @param length P @param codec of updates */
  constructor(length: number, codec: Codec) {
    this.#length = length;
    this.#codec = codec;
  }

  get newest(): WeightsSnapshot | undefined {
    return this.#newest;
  }

  /**
   * @param weights (P) which may change once this has returned and every worker that shares no memory has been offered them
   * @param update  likewise: what made them, where that may travel instead
   */
  publish(step: number, weights: Float32Array, update?: WeightsUpdate): WeightsSnapshot {
    const old = this.#newest;
    const spare = this.#spare?.readers.count === 0 ? this.#spare : undefined;
    this.#shared?.values.set(weights);
    this.#newest = new WeightsSnapshot(step, this.#shared?.values ?? weights, this.#codec, update, spare);
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
