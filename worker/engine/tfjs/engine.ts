// The tfjs engine: the contract of worker/engine/contract.ts over a backend. Everything between the ids and the gradients is one
// synchronous tf.tidy, so that an error leaves nothing behind on the device.

import { dropoutMask } from "../../../shared/arithmetic/philox.ts";
import { EngineError, UnfitError } from "../../../shared/errors.ts";
import { familyOf } from "../../../shared/family/families.ts";
import type { ParameterKey } from "../../../shared/family/family.ts";
import { type Layout, layoutOf } from "../../../shared/family/layout.ts";
import type { ModelConfig } from "../../../shared/model.ts";
import { checkLength, checkTargets, checkTokens } from "../check.ts";
import type { Engine, EngineOptions, Generation } from "../contract.ts";
import * as network from "../model/model.ts";
import type { Net, Pass } from "../model/net.ts";
import type { Tensor } from "../model/ops.ts";
import { type ShardGradient, type ShardPosition, shardByShard } from "../shards.ts";
import type { Backend } from "./backend.ts";
import { TfjsGeneration } from "./generation.ts";
import { scope, type Tensor as TfjsTensor } from "./ops.ts";
import { plannedBytes } from "./plan.ts";

export class TfjsEngine implements Engine {
  readonly name = "tfjs";
  readonly arithmetic: string;
  readonly device: string;
  readonly model: ModelConfig;
  readonly plannedBytes: number;
  readonly gradient: Engine["gradient"];
  readonly #backend: Backend;
  readonly #layout: Layout;
  readonly #maxRows: number;
  readonly #recompute: boolean;
  readonly #generations = new Set<Generation>();
  #weights: Partial<Record<ParameterKey, TfjsTensor>> | undefined;

  /** @throws EngineError when the plan does not fit the memory */
  constructor(options: EngineOptions, backend: Backend) {
    const { model, maxRows } = options;
    this.gradient = shardByShard(options, (...shard) => this.#shard(...shard));
    this.#backend = backend;
    this.#layout = layoutOf(model);
    this.#maxRows = maxRows;
    this.#recompute = options.checkpointActivations ?? false;
    this.model = model;
    this.arithmetic = `tfjs ${backend.arithmetic}`;
    this.device = backend.device;
    this.plannedBytes = plannedBytes(model, maxRows, this.#recompute, backend.productBytes);
    const limit = Math.min(
      options.memoryLimitBytes ?? backend.memoryLimitBytes,
      backend.addressableBytes ?? Number.POSITIVE_INFINITY,
    );
    if (this.plannedBytes > limit)
      throw new UnfitError(
        `engine tfjs: ${maxRows} rows of ${model.blockSize} tokens need about ${megabytes(this.plannedBytes)} MB, ` +
          `${backend.arithmetic} has ${megabytes(limit)} MB; use fewer rows a call (more shards)` +
          `${this.#recompute ? "" : ", --checkpoint-activations"} or a smaller model`,
      );
  }

  async setWeights(weights: Float32Array): Promise<void> {
    checkLength("weights", weights.length, this.#layout.size);
    this.#dropWeights();
    // New tensors, never new values in old ones: a backend may keep packed copies of what a tensor held.
    this.#weights = Object.fromEntries(
      this.#layout.parameters.map(({ key, offset, size, shape }) => [
        key,
        this.#backend.upload(weights.subarray(offset, offset + size), shape),
      ]),
    );
  }

  async #shard(...[tokens, targets, rows, at, out]: Parameters<ShardGradient>): Promise<number> {
    const losses = new Float32Array(tokens.length);
    const taken: (Promise<void> | undefined)[] = [];
    const pass: Pass = {
      heads: this.#heads(rows, tokens.length / rows),
      mask: (site, shape) => this.#mask(at, site, shape),
      emit: (key, gradient) => {
        const { offset, size } = this.#layout.byKey.get(key)!;
        taken.push(this.#take(gradient, out.subarray(offset, offset + size)));
      },
    };
    scope(() => {
      network.gradient(this.#net(), pass, tokens, targets, this.#recompute, (part, from) => {
        taken.push(this.#take(part, losses.subarray(from, from + part.shape[0]!)));
      });
    });
    await Promise.all(taken);
    return mean(losses);
  }

  async losses(tokens: Int32Array, targets: Int32Array, rows: number): Promise<Float32Array> {
    const T = checkTokens(this.model, this.#maxRows, "tokens", tokens, rows);
    checkTargets(this.model, tokens, targets);
    const losses = new Float32Array(tokens.length);
    await this.#eachLogits(tokens, rows, T, (logits, from, count) => {
      const part = this.#backend.ops.crossEntropy(logits as TfjsTensor, targets.subarray(from, from + count), 1).losses;
      return this.#take(part, losses.subarray(from, from + count));
    });
    return Float32Array.from({ length: rows }, (_, row) => mean(losses.subarray(row * T, (row + 1) * T)));
  }

  async logits(tokens: Int32Array, rows: number): Promise<Float32Array> {
    const T = checkTokens(this.model, this.#maxRows, "tokens", tokens, rows);
    const V = this.model.vocabSize;
    const out = new Float32Array(tokens.length * V);
    await this.#eachLogits(tokens, rows, T, (logits, from, count) =>
      this.#take(logits, out.subarray(from * V, (from + count) * V)),
    );
    return out;
  }

  async hidden(tokens: Int32Array, rows: number): Promise<Float32Array> {
    if (familyOf(this.model).architecture === "table")
      throw new EngineError(`${this.model.family} has no hidden states: its table is its head`);
    const T = checkTokens(this.model, this.#maxRows, "tokens", tokens, rows);
    const out = new Float32Array(tokens.length * this.model.nEmbd);
    const taken: (Promise<void> | undefined)[] = [];
    scope(() => {
      taken.push(this.#take(network.hidden(this.#net(), this.#reading(rows, T), tokens), out));
    });
    await Promise.all(taken);
    return out;
  }

  async generation(rows: number): Promise<Generation> {
    if (!Number.isInteger(rows) || rows < 1) throw new EngineError(`generation: ${rows} rows, expected 1 or more`);
    const generation = new TfjsGeneration(this.#net(), this.#backend, rows);
    this.#generations.add(generation);
    return generation;
  }

  async dispose(): Promise<void> {
    this.#dropWeights();
  }

  #dropWeights(): void {
    for (const generation of this.#generations) generation.dispose();
    this.#generations.clear();
    for (const tensor of Object.values(this.#weights ?? {})) tensor?.dispose();
    this.#weights = undefined;
  }

  #net(): Net {
    if (!this.#weights) throw new EngineError("engine tfjs: setWeights has not been called");
    return { model: this.model, ops: this.#backend.ops, weights: this.#weights };
  }

  /** A tensor that the model handed over: tfjs's own, since its operations made it. */
  #take(tensor: Tensor, out: Float32Array): Promise<void> | undefined {
    return this.#backend.take(tensor as TfjsTensor, out);
  }

  #heads(B: number, T: number): Pass["heads"] {
    return { B, T, H: this.model.nHead, D: this.model.nEmbd / this.model.nHead };
  }

  /** A pass without dropout and gradients. */
  #reading(rows: number, T: number): Pass {
    const emit = (key: string): never => {
      throw new Error(`a gradient of ${key} from a forward pass`);
    };
    return { heads: this.#heads(rows, T), mask: () => undefined, emit };
  }

  #mask(at: ShardPosition, site: number, shape: readonly number[]): Tensor | undefined {
    if (this.model.dropout === 0) return undefined;
    const values = new Float32Array(shape.reduce((product, size) => product * size, 1));
    dropoutMask(values, this.model.dropout, { ...at, site });
    return this.#backend.upload(values, shape);
  }

  async #eachLogits(
    tokens: Int32Array,
    rows: number,
    T: number,
    take: (logits: Tensor, from: number, count: number) => Promise<void> | undefined,
  ): Promise<void> {
    const taken: (Promise<void> | undefined)[] = [];
    scope(() => {
      network.logits(this.#net(), this.#reading(rows, T), tokens, (logits, from, count) => {
        taken.push(take(logits, from, count));
      });
    });
    await Promise.all(taken);
  }
}

function mean(values: Float32Array): number {
  let sum = 0;
  for (const value of values) sum += value;
  return sum / values.length;
}

const megabytes = (bytes: number): string => Math.round(bytes / 2 ** 20).toLocaleString("en");
