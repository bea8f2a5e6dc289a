// The native engine: the contract of worker/engine/contract.ts over the C++ core in worker/engine/native/core/ (weft.h), which the addon runs
// off the event loop. What is here: the model described to the core, memory counted before it is taken, and errors.
import { availableParallelism } from "node:os";
import { type Addon, computesWith, nativeAddon, nativeStatus } from "../../../shared/arithmetic/native.ts";
import { keyOf, stream } from "../../../shared/arithmetic/philox.ts";
import { adamwScalars } from "../../../shared/arithmetic/vector.ts";
import { EngineError, messageOf, UnfitError } from "../../../shared/errors.ts";
import { familyOf } from "../../../shared/family/families.ts";
import type { Architecture } from "../../../shared/family/family.ts";
import { decayStretches, type Layout, layoutOf } from "../../../shared/family/layout.ts";
import type { ModelConfig } from "../../../shared/model.ts";
import { checkIds, checkLength, checkTargets, checkTokens } from "../check.ts";
import type { Engine, EngineKind, EngineOptions, Generation, TrainLocally } from "../contract.ts";
import { type ComputeUpdate, stepByStep } from "../local.ts";
import { type ShardGradient, shardByShard } from "../shards.ts";

/** What worker/engine/native/core/addon.cpp exports for this file. Its methods check their arguments and settle when done. */
interface CoreConfig extends ModelConfig {
  readonly architecture: Architecture;
  readonly maxRows: number;
  readonly precision: EngineOptions["precision"];
  readonly checkpointActivations: boolean;
  readonly threads: number;
  readonly isa: string;
}

interface CoreModel {
  /** Such as "avx512 float32". */
  arithmetic(): string;
  /** Lent until the next ones, or dispose. */
  setWeights(weights: Float32Array): void;
  gradient(
    tokens: Int32Array,
    targets: Int32Array,
    rows: number,
    position: Uint32Array,
    out: Float32Array,
    loss: Float64Array,
  ): Promise<void>;
  adamw(
    weights: Float32Array,
    m: Float32Array,
    v: Float32Array,
    sum: Float32Array,
    stretches: BigInt64Array,
    scalars: Float32Array,
    clip: Float64Array,
  ): Promise<void>;
  losses(tokens: Int32Array, targets: Int32Array, rows: number, out: Float32Array): Promise<void>;
  logits(tokens: Int32Array, rows: number, out: Float32Array): Promise<void>;
  hidden(tokens: Int32Array, rows: number, out: Float32Array): Promise<void>;
  dispose(): void;
}

interface CoreGeneration {
  feed(tokens: Int32Array, counts: Int32Array, logits: Float32Array): Promise<void>;
  reorder(from: Int32Array): Promise<void>;
  clear(row: number): void;
  dispose(): void;
}

interface EngineAddon extends Addon {
  readonly Model: new (config: CoreConfig, parameters: BigInt64Array, keys: string) => CoreModel;
  readonly Generation: new (model: CoreModel, rows: number) => CoreGeneration;
  plannedBytes(config: CoreConfig): number;
  generationBytes(model: CoreModel, rows: number): number;
}

/** Runs a call of the addon; what it throws says what is wrong and becomes this worker's EngineError. */
async function inCore<T>(call: () => T | Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    const Kind = error instanceof UnfitError ? UnfitError : EngineError;
    throw new Kind(`engine native: ${messageOf(error)}`, { cause: error });
  }
}

const megabytes = (bytes: number) => `${Math.ceil(bytes / 2 ** 20).toLocaleString("en")} MB`;

/** @throws UnfitError with both numbers, when `bytes` are more than the limit or what is free */
function checkMemory(what: string, bytes: number, limit = process.availableMemory()): void {
  if (bytes > limit)
    throw new UnfitError(
      `${what} need about ${megabytes(bytes)}, the limit is ${megabytes(limit)}; use fewer rows a call (more shards), ` +
        "--checkpoint-activations, or a smaller model",
    );
}

/** The instruction sets of worker/engine/native/core/isa.h, for people. */
const deviceNames: Readonly<Record<string, string>> = {
  avx512: "AVX-512",
  avx512bf16: "AVX-512 BF16",
  avx2: "AVX2",
  neon: "NEON",
  plain: "any CPU's instructions",
};

function coreConfig(options: EngineOptions): CoreConfig {
  return {
    ...options.model,
    architecture: familyOf(options.model).architecture,
    maxRows: options.maxRows,
    precision: options.precision,
    checkpointActivations: options.checkpointActivations ?? false,
    threads: options.threads || availableParallelism(),
    isa: options.isa ?? "auto",
  };
}

/** Of the core, and the weights and the gradient that it is given. */
function plannedBytes(addon: EngineAddon, config: CoreConfig): number {
  return addon.plannedBytes(config) + 2 * 4 * layoutOf(config).size;
}

class NativeEngine implements Engine {
  readonly name = "native";
  readonly arithmetic: string;
  readonly device: string;
  readonly model: ModelConfig;
  readonly plannedBytes: number;
  readonly gradient: Engine["gradient"];
  readonly train: TrainLocally;
  readonly #addon: EngineAddon;
  readonly #core: CoreModel;
  readonly #layout: Layout;
  readonly #stretches: BigInt64Array;
  readonly #maxRows: number;
  readonly #limit: number | undefined;
  readonly #loss = new Float64Array(1);

  /** @throws what the addon throws, or EngineError */
  constructor(addon: EngineAddon, options: EngineOptions) {
    const config = coreConfig(options);
    this.gradient = shardByShard(options, (...shard) => this.#shard(...shard));
    this.model = options.model;
    this.#addon = addon;
    this.#layout = layoutOf(options.model);
    this.#stretches = BigInt64Array.from(
      decayStretches(this.#layout).flatMap(({ offset, size, decay }) => [
        BigInt(offset),
        BigInt(size),
        decay ? 1n : 0n,
      ]),
    );
    this.#maxRows = options.maxRows;
    this.#limit = options.memoryLimitBytes;
    this.plannedBytes = plannedBytes(addon, config);
    const what = `${options.maxRows} rows of ${options.model.blockSize} tokens`;
    checkMemory(what, this.plannedBytes, options.memoryLimitBytes);
    const pairs = this.#layout.parameters.flatMap(({ offset, size }) => [BigInt(offset), BigInt(size)]);
    const keys = this.#layout.parameters.map(({ key }) => key).join("\n");
    this.#core = new addon.Model(config, BigInt64Array.from(pairs), keys);
    this.train = stepByStep(this, (...update) => this.#update(...update));
    const arithmetic = this.#core.arithmetic();
    this.arithmetic = `native ${arithmetic}`;
    this.device = `${deviceNames[arithmetic.split(" ")[0]!]}, ${config.threads} thread${config.threads === 1 ? "" : "s"}`;
  }

  #check(tokens: Int32Array, rows: number): void {
    checkTokens(this.model, this.#maxRows, "tokens", tokens, rows);
  }

  async setWeights(weights: Float32Array): Promise<void> {
    checkLength("weights", weights.length, this.#layout.size);
    await inCore(() => this.#core.setWeights(weights));
  }

  async #shard(...[tokens, targets, rows, at, out]: Parameters<ShardGradient>): Promise<number> {
    const position = Uint32Array.of(...keyOf(at.seed, stream.dropout), at.step, at.shard);
    await inCore(() => this.#core.gradient(tokens, targets, rows, position, out, this.#loss));
    return this.#loss[0]!;
  }

  /** AdamW off the event loop, on the threads of the engine. */
  async #update(...[state, sum, update]: Parameters<ComputeUpdate>): Promise<number> {
    const scalars = Float32Array.of(
      ...adamwScalars({ ...update, gradientScale: 1 }),
      ...adamwScalars({ ...update, gradientScale: 1, weightDecay: 0 }),
    );
    const { weights, m, v } = state;
    const clip = Float64Array.of(update.gradientClip, update.units, Number.NaN);
    await inCore(() => this.#core.adamw(weights, m, v, sum, this.#stretches, scalars, clip));
    return clip[2]!;
  }

  async losses(tokens: Int32Array, targets: Int32Array, rows: number): Promise<Float32Array> {
    this.#check(tokens, rows);
    checkTargets(this.model, tokens, targets);
    const out = new Float32Array(rows);
    await inCore(() => this.#core.losses(tokens, targets, rows, out));
    return out;
  }

  async logits(tokens: Int32Array, rows: number): Promise<Float32Array> {
    this.#check(tokens, rows);
    const out = new Float32Array(tokens.length * this.model.vocabSize);
    await inCore(() => this.#core.logits(tokens, rows, out));
    return out;
  }

  async hidden(tokens: Int32Array, rows: number): Promise<Float32Array> {
    this.#check(tokens, rows);
    if (familyOf(this.model).architecture === "table")
      throw new EngineError(`engine native: ${this.model.family} has no hidden state: its table is its head`);
    const out = new Float32Array(tokens.length * this.model.nEmbd);
    await inCore(() => this.#core.hidden(tokens, rows, out));
    return out;
  }

  async generation(rows: number): Promise<Generation> {
    return await inCore(() => {
      checkMemory(`${rows} growing sequences`, this.#addon.generationBytes(this.#core, rows), this.#limit);
      return new NativeGeneration(new this.#addon.Generation(this.#core, rows), this.model, rows);
    });
  }

  async dispose(): Promise<void> {
    await inCore(() => this.#core.dispose());
  }
}

class NativeGeneration implements Generation {
  readonly rows: number;
  readonly #core: CoreGeneration;
  readonly #model: ModelConfig;
  readonly #logits: Float32Array;
  #lengths: number[];

  constructor(core: CoreGeneration, model: ModelConfig, rows: number) {
    this.rows = rows;
    this.#core = core;
    this.#model = model;
    this.#logits = new Float32Array(rows * model.vocabSize);
    this.#lengths = Array(rows).fill(0);
  }

  get lengths(): readonly number[] {
    return this.#lengths;
  }

  async feed(tokens: readonly Int32Array[]): Promise<Float32Array> {
    checkLength("rows to feed", tokens.length, this.rows);
    const grown = tokens.map((ids, row) => this.#lengths[row]! + ids.length);
    for (const [row, ids] of tokens.entries()) {
      checkIds(this.#model, `row ${row}`, ids);
      if (grown[row]! > this.#model.blockSize)
        throw new EngineError(
          `row ${row}: ${this.#lengths[row]} tokens and ${ids.length} more are over the model's blockSize of ${this.#model.blockSize}`,
        );
    }
    const all = new Int32Array(tokens.reduce((sum, ids) => sum + ids.length, 0));
    let offset = 0;
    for (const ids of tokens) {
      all.set(ids, offset);
      offset += ids.length;
    }
    const counts = Int32Array.from(tokens, (ids) => ids.length);
    await inCore(() => this.#core.feed(all, counts, this.#logits));
    this.#lengths = grown;
    return this.#logits;
  }

  async reorder(from: readonly number[]): Promise<void> {
    await inCore(() => this.#core.reorder(Int32Array.from(from)));
    this.#lengths = from.map((row) => this.#lengths[row]!);
  }

  clear(row: number): void {
    this.#core.clear(row);
    this.#lengths[row] = 0;
  }

  dispose(): void {
    this.#core.dispose();
  }
}

/** Why these options cannot run on the native engine here, or nothing. */
function refusal(options: EngineOptions): string | undefined {
  if (options.device === "gpu") return "native: it computes on the CPU; a GPU needs --engine xla or tfjs";
  if (options.precision === "tf32") return "native: tf32 is for NVIDIA GPUs; pass --precision float32 or bf16";
  const addon = nativeAddon();
  if (!addon) return nativeStatus().why;
  try {
    addon.chooseIsa(options.isa ?? "auto");
    return undefined;
  } catch (error) {
    return `native: ${messageOf(error)}`;
  }
}

export const native: EngineKind = {
  name: "native",
  async probe(options) {
    const why = refusal(options);
    if (why !== undefined) return { usable: false, why };
    return { usable: true, why: computesWith(nativeStatus().path, nativeAddon()!.chooseIsa(options.isa ?? "auto")) };
  },
  planned: (options) => inCore(() => ({ bytes: plannedBytes(nativeAddon() as EngineAddon, coreConfig(options)) })),
  async create(options) {
    const why = refusal(options);
    if (why !== undefined) throw new EngineError(`engine ${why}`);
    return await inCore(() => new NativeEngine(nativeAddon() as EngineAddon, options));
  },
};
