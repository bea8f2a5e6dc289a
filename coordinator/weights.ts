// Where the run's weights live on their way to the workers: a snapshot of each step, encoded once for all, with the
// memory of the one before it used again; and shared memory for workers on this machine. Where the run's wire is small,
// who has the weights of the step before is sent what changes them into this step's.
import type { Codec } from "../shared/arithmetic/codec.ts";
import { bestCodec } from "../shared/arithmetic/native.ts";
import { encodedFrames } from "../shared/wire/frame.ts";
import type { WeightsUpdate } from "../shared/wire/protocol.ts";
import { SharedVector } from "../shared/wire/shared-memory.ts";

/** Weights of one step, and their frames that any number of connections send from the same memory. */
export class WeightsSnapshot {
  readonly step: number;
  /** (P) As they were in this step until they are encoded or a newer snapshot is made. */
  readonly weights: Float32Array;
  /** Connections that still send from its memory. */
  readonly readers: { count: number };
  readonly #codec: Codec;
  /** As the weights. */
  readonly #update: WeightsUpdate | undefined;
  readonly #spare: Partial<Record<"whole" | "update", readonly Buffer[]>>;
  readonly #frames: Partial<Record<"whole" | "update", readonly Buffer[]>> = {};
  readonly isCut = false;

  /** @param spare a snapshot without readers, whose memory is taken over */
  constructor(
    step: number,
    weights: Float32Array,
    codec: Codec,
    update: WeightsUpdate | undefined,
    spare?: WeightsSnapshot,
    passage?: Passage,
  ) {
    this.step = step;
    this.weights = weights;
    this.#codec = codec;
    this.#update = update;
    const passed = passage?.step === step ? passage : undefined;
    this.readers = passed?.readers ?? { count: 0 };
    if (passed) this.#frames[passed.from === undefined ? "whole" : "update"] = passed.received;
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
    this.#frames.whole ??= [
      ...encodedFrames("weights", this.step, this.weights, bestCodec("float32"), this.#spare.whole),
    ];
    return this.#frames.whole;
  }
}

/** Weights of one step, or what makes them, on their way through a relay: sent on frame by frame as they come. */
export class Passage {
  readonly step: number;
  /** The step whose weights they change; none where they are whole. */
  readonly from: number | undefined;
  readonly readers = { count: 0 };
  readonly received: Buffer[] = [];
  #state: "open" | "whole" | "cut" = "open";
  #look: (() => void)[] = [];

  constructor(step: number, from: number | undefined) {
    this.step = step;
    this.from = from;
  }

  /** Nothing more comes, and much is missing. */
  get isCut(): boolean {
    return this.#state === "cut";
  }

  push(frame: Buffer, isLast: boolean): void {
    this.received.push(frame);
    if (isLast) this.#state = "whole";
    this.#wake();
  }

  end(): void {
    if (this.#state === "open") this.#state = "cut";
    this.#wake();
  }

  async *frames(): AsyncGenerator<Buffer> {
    for (let i = 0; ; i++) {
      while (i >= this.received.length && this.#state === "open")
        await new Promise<void>((resolve) => this.#look.push(resolve));
      if (i >= this.received.length || this.isCut) return;
      yield this.received[i]!;
    }
  }

  #wake(): void {
    for (const look of this.#look.splice(0)) look();
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
   * @param passage their frames, where they came as such
   */
  publish(step: number, weights: Float32Array, update?: WeightsUpdate, passage?: Passage): WeightsSnapshot {
    const old = this.#newest;
    const spare = this.#spare?.readers.count === 0 ? this.#spare : undefined;
    this.#shared?.values.set(weights);
    this.#newest = new WeightsSnapshot(step, this.#shared?.values ?? weights, this.#codec, update, spare, passage);
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
