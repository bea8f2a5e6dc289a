// The contract of an engine: the whole forward and backward pass of one model on one device. Implementations live in
// engine/; one suite of tests runs over all of them (test/worker/engine/engine.contract.test.ts).
import type { AdamWOptions, AdamWState } from "../../shared/arithmetic/adamw.ts";
import type { NodeRounding, TreeNode } from "../../shared/arithmetic/tree.ts";
import type { Options } from "../../shared/config.ts";
import type { ModelConfig } from "../../shared/model.ts";

/** Options of the table (shared/config.ts) that an engine is opened with; `backend` is for tfjs, `isa` for native. */
export interface EngineOptions
  extends Readonly<Pick<Options, "precision" | "threads" | "device">>,
    Readonly<Partial<Pick<Options, "backend" | "isa" | "checkpointActivations">>> {
  readonly model: ModelConfig;
  /** Most sequences of blockSize tokens in one shard or one other call: memory is planned for this before the first step. */
  readonly maxRows: number;
  /** Most shards of one lease: sums of some of them wait for the others. */
  readonly mostShards?: number;
  /** It will train by itself: room for AdamW's moments is planned too, where the engine has them. */
  readonly trainsLocally?: boolean;
  /** The engine refuses to start when it would need more than this; default: what is free on the machine. */
  readonly memoryLimitBytes?: number;
  /** Told, in a sentence, of what takes its time, such as a compiler. */
  readonly note?: ((line: string) => void) | undefined;
}

/**
 * A node of the tree over a step's shards: what a lease asks for. Seed, step and shard determine every random number
 * of a shard's gradient.
 */
export interface LeasePosition extends TreeNode {
  readonly seed: number;
  readonly step: number;
  /** Where the run's wire is small: every node's sum is rounded as soon as it is whole, the shards' own and the lease's too. */
  readonly round?: NodeRounding | undefined;
}

/** What H local steps are, but for their windows and the state that they start from. */
export interface LocalSteps {
  /**
   * Of the first step: its 0-based number, and the node of the tree over a step's shards that this replica computes in
   * every step. With the seed they determine its dropout. What stays with a replica is not rounded.
   */
  readonly at: Omit<LeasePosition, "round">;
  /** Of one shard. */
  readonly rows: number;
  /** (H) of each step. */
  readonly learningRates: readonly number[];
  /** Updates that the moments have seen before, for AdamW's bias corrections. */
  readonly updates: number;
  readonly optimizer: AdamWOptions;
}

/** Both (done): of every whole step, H unless it was stopped. */
export interface LocalResult {
  /** Mean over the step's shards, in nats. */
  readonly losses: number[];
  /** Of the step's mean gradient, before the clip. */
  readonly gradientNorms: number[];
}

export interface LocalWatch {
  /** How many steps are done: after every one, and after parts of it where the engine can tell. */
  progress?(done: number): void;
  /** Asked as often as the engine can stop. The state is then that of the last whole step. */
  stopped?(): boolean;
}

/**
 * H steps of AdamW, in place.
 * @param tokens  (H * count * rows, T) ids, step after step
 * @param targets (H * count * rows, T) ids
 * @param state   (P) each, updated; the engine computes with these weights until the next setWeights
 * @throws EngineError as Engine.gradient does; the state is then that of a whole step, the first's or a later one
 */
export type TrainLocally = (
  tokens: Int32Array,
  targets: Int32Array,
  steps: LocalSteps,
  state: AdamWState,
  watch?: LocalWatch,
) => Promise<LocalResult>;

/** One model on one device. Calls are not reentrant: await one before the next. */
export interface Engine {
  readonly name: "native" | "tfjs" | "xla";
  /**
   * What decides the last bits of a result, such as "native avx512 float32" or "tfjs wasm float32". Two engines with
   * equal strings give equal bits, whatever their thread counts. A run holds all its workers to one.
   */
  readonly arithmetic: string;
  /** For people: device and threads, such as "AVX-512, 2 threads" or "NVIDIA H100 (CUDA 12.4)". */
  readonly device: string;
  readonly model: ModelConfig;
  /** Bytes planned for weights, gradients and activations of maxRows rows. */
  readonly plannedBytes: number;

  /**
   * Compute with these weights from now on, (P) in the layout's order. They are lent until the next setWeights or
   * dispose: an engine may read them at every call, or keep a copy; change them in between, then set them again.
   */
  setWeights(weights: Float32Array): Promise<void>;

  /**
   * A hint, where the way to the device is worth it: of weights that still arrive, the first `known` are there, and stay as
   * they are. Once all are, setWeights is called with the same array. Others may come in their place: then less is known than
   * before, or nothing.
   */
  foresee?(weights: Float32Array, known: number): void;

  /**
   * Mean loss in nats over the rows * T targets of each shard of a lease, and their gradients added along the tree, left
   * + right in float32 (shared/arithmetic/tree.ts): the bits do not depend on how a step is cut into leases.
   * @param tokens    (count * rows, T) ids of shards first, first + 1, ...; 1 <= T <= blockSize
   * @param targets   (count * rows, T) ids
   * @param rows      of one shard, <= maxRows
   * @param out       (P) overwritten with the sum; without meaning where the call is cancelled or fails
   * @param cancelled asked as often as the engine can stop
   * @returns (count) losses; undefined when cancelled
   * @throws EngineError on a wrong length, an id outside the vocabulary, or a failing device
   */
  gradient(
    tokens: Int32Array,
    targets: Int32Array,
    rows: number,
    at: LeasePosition,
    out: Float32Array,
    cancelled?: () => boolean,
  ): Promise<number[] | undefined>;

  /**
   * H steps of AdamW in place (local.ts), for engines that keep weights, moments and gradients where they compute. Call
   * `localTraining(engine)`: it drives the others by their gradients.
   */
  train?: TrainLocally;

  /** Mean loss in nats of each row, without dropout. tokens, targets: (B, T). @returns (B) */
  losses(tokens: Int32Array, targets: Int32Array, rows: number): Promise<Float32Array>;

  /** Logits of every position, without dropout. tokens: (B, T). @returns (B, T, V), owned by the caller */
  logits(tokens: Int32Array, rows: number): Promise<Float32Array>;

  /** What enters the head: (B, T, C), after the final norm where the family has one. Bigram: throws EngineError. */
  hidden(tokens: Int32Array, rows: number): Promise<Float32Array>;

  /** Begin generating for `rows` sequences at once with the current weights; a later setWeights ends its validity. */
  generation(rows: number): Promise<Generation>;

  /** Release device memory and threads. Nothing may be called afterwards. */
  dispose(): Promise<void>;
}

/** Sequences that grow token by token, with keys and values cached where the engine can. */
export interface Generation {
  readonly rows: number;
  /** Tokens each row holds. */
  readonly lengths: readonly number[];
  /**
   * Append tokens[row] to each row (none, one or many; lengths[row] + added <= blockSize).
   * @returns (rows, V) logits after the last token of each row, valid until the next call; a row that has never been
   *          fed is all zero
   */
  feed(tokens: readonly Int32Array[]): Promise<Float32Array>;
  /** Row i goes on from what row from[i] held: beams. */
  reorder(from: readonly number[]): Promise<void>;
  /** Forget what `row` held (its window slides). */
  clear(row: number): void;
  dispose(): void;
}

export interface Probed {
  readonly usable: boolean;
  /** A full sentence either way, with the cure when it cannot. */
  readonly why: string;
  /** The device is there and would be used but for what else was asked for: whoever passes it over says so. */
  readonly isMissed?: boolean;
}

/** An engine that may or may not run here. */
export interface EngineKind {
  readonly name: Engine["name"];
  /** Can it run here with these options? */
  probe(options: EngineOptions): Promise<Probed>;
  /**
   * Bytes of this machine's memory that `create` would plan for, and how many it can address at all; undefined where only
   * opening tells, or on a GPU's own.
   */
  planned?(options: EngineOptions): Promise<{ bytes: number; addressableBytes?: number | undefined } | undefined>;
  /**
   * @throws EngineError when it cannot start: never another device or precision than asked for
   * @throws UnfitError when what it plans does not fit
   */
  create(options: EngineOptions): Promise<Engine>;
}
