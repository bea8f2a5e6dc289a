// The xla engine: the contract of worker/engine/contract.ts over programs that XLA compiled. Weights and gradients stay on
// the devices: a lease's shards are spread over them, and their gradients are added along the tree where they are, a
// sum of two devices after one copy from the right to the left. So the bits are the same for any number of devices.
// Where every node is rounded to a small wire, the host adds and rounds: its codec is the one that all share, and what is
// rounded goes through the host anyway.
import { cpus } from "node:os";
import { gradientOf } from "../../../shared/arithmetic/adamw.ts";
import { keyOf, stream } from "../../../shared/arithmetic/philox.ts";
import { adamwScalars, squaresChunk } from "../../../shared/arithmetic/vector.ts";
import { systemClock } from "../../../shared/clock.ts";
import { EngineError, messageOf, UnfitError } from "../../../shared/errors.ts";
import { layoutOf } from "../../../shared/family/layout.ts";
import type { ModelConfig } from "../../../shared/model.ts";
import { findPlugin, type XlaPlugin } from "../../install/xla-plugin.ts";
import { checkLease, checkLength, checkTargets, checkTokens } from "../check.ts";
import type { Engine, EngineOptions, Generation, LeasePosition, LocalResult, TrainLocally } from "../contract.ts";
import { checkLocal, watched } from "../local.ts";
import { type ShardGradient, type ShardPosition, shardByShard } from "../shards.ts";
import * as adamw from "./adamw.ts";
import type { XlaFlags } from "./compile-options.ts";
import { executable } from "./executables.ts";
import { XlaGeneration } from "./generation.ts";
import { type BufferHandle, type ExecutableHandle, type OpenClient, openClient } from "./pjrt.ts";
import * as trace from "./trace.ts";

/** Of weights that go up as they arrive: 64 MiB. */
const pieceSize = 2 ** 24;

/** Of the programs: raised by whoever makes them give other bits. */
const revision = 3;

/** What decides bits must not be chosen by a stopwatch: no autotuning; nor by who comes first: no atomic sums. */
export function flagsOf({ gpu, cudaData }: XlaPlugin): XlaFlags {
  // Eigen cuts long sums by the number of threads.
  if (!gpu) return { xla_cpu_multi_thread_eigen: false };
  return {
    xla_gpu_deterministic_ops: true,
    xla_gpu_autotune_level: 0,
    xla_gpu_enable_triton_gemm: false,
    // What is rounded to bf16 is meant to be.
    xla_allow_excess_precision: false,
    // Queries, keys and values come apart from three products; as one they would have to be copied out of it.
    xla_gpu_dot_merger_threshold_mb: 0,
    ...(cudaData && { xla_gpu_cuda_data_dir: cudaData }),
  };
}

/** On a CPU every thread is a device. */
function clientOptions({ gpu }: XlaPlugin, { threads }: EngineOptions): Record<string, string | number | boolean> {
  return gpu ? { allocator: "bfc", preallocate: false, memory_fraction: 0.9 } : { cpu_device_count: threads || 1 };
}

const megabytes = (bytes: number): string => Math.ceil(bytes / 2 ** 20).toLocaleString("en");

/** @throws EngineError where the plugin has no device, or the model does not fit it */
export async function openXla(options: EngineOptions, plugin: XlaPlugin): Promise<Engine> {
  const client = await openClient(plugin, clientOptions(plugin, options));
  const engine = new XlaEngine(options, plugin, client);
  try {
    await engine.plan(options);
    return engine;
  } catch (error) {
    await engine.dispose();
    throw error;
  }
}

/** The plugin that these options ask for, if it is here. */
export function pluginFor({ device }: Pick<EngineOptions, "device">): XlaPlugin | undefined {
  if (device !== "auto") return findPlugin(device === "gpu");
  return findPlugin(true) ?? findPlugin(false);
}

class XlaEngine implements Engine {
  readonly name = "xla";
  readonly arithmetic: string;
  readonly device: string;
  readonly model: ModelConfig;
  plannedBytes = 0;
  readonly #client: OpenClient;
  readonly #flags: XlaFlags;
  readonly #traced: trace.Traced;
  readonly #maxRows: number;
  readonly #size: number;
  readonly #devices: readonly number[];
  readonly #onHost: Engine["gradient"];
  /** By the program's text. */
  readonly #executables = new Map<string, Promise<ExecutableHandle>>();
  /** Programs of a shard's gradient, by its shape: to trace a large model takes a tenth of a second. */
  readonly #gradientPrograms = new Map<string, string>();
  readonly #generations = new Set<Generation>();
  /** Buffers that are being given back. */
  readonly #leaving = new Set<Promise<void>>();
  /** One a device. */
  #weights: BufferHandle[] = [];
  /** Weights that still arrive, and their pieces on the first device. */
  #ahead: { readonly weights: Float32Array; known: number; readonly pieces: Promise<BufferHandle>[] } | undefined;
  readonly #note: EngineOptions["note"];
  #ended = false;

  constructor(options: EngineOptions, plugin: XlaPlugin, client: OpenClient) {
    const { model, maxRows, precision, checkpointActivations = false, note } = options;
    const { devices } = client.facts;
    this.model = model;
    this.#client = client;
    this.#note = note;
    this.#flags = flagsOf(plugin);
    this.#traced = { model, recompute: checkpointActivations, precision, gpu: plugin.gpu };
    this.#maxRows = maxRows;
    this.#size = layoutOf(model).size;
    this.#devices = [...devices.keys()];
    this.#onHost = shardByShard(options, (...shard) => this.#shard(...shard), this.#devices);
    // LLVM compiles for the processor that it finds, and fuses otherwise what is computed twice.
    const kind = plugin.gpu ? devices[0]!.kind : (cpus()[0]?.model.trim() ?? process.arch);
    this.arithmetic = `xla ${revision} ${plugin.identity} ${precision} on ${kind}${checkpointActivations ? ", recomputing" : ""}`;
    const count = devices.length === 1 ? "1 device" : `${devices.length} devices`;
    this.device = plugin.gpu ? `${kind}, ${count} (XLA)` : `XLA on the CPU, ${count}`;
  }

  /** Compile the largest step and refuse what does not fit. @throws UnfitError with both numbers */
  async plan({ maxRows, mostShards = 1, memoryLimitBytes, trainsLocally }: EngineOptions): Promise<void> {
    const { model } = this;
    const { bytesLimit } = this.#client.facts.devices[0]!;
    const available = bytesLimit ?? process.availableMemory() / this.#devices.length;
    const limit =
      memoryLimitBytes === undefined ? available : memoryLimitBytes / (bytesLimit ? 1 : this.#devices.length);
    const vector = 4 * this.#size;
    // Sums that wait for their right neighbour on the device that computes a lease's last shard.
    const waiting = vector * Math.max(1, Math.ceil(Math.log2(mostShards / this.#devices.length)));
    // Both, and which weights decay.
    const moments = trainsLocally ? 2 * vector + this.#size : 0;
    const arriving = this.#size > pieceSize ? vector : 0;
    const check = (bytes: number, how: string) => {
      this.plannedBytes = bytes * this.#devices.length;
      if (bytes > limit)
        throw new UnfitError(
          `engine xla: ${maxRows} rows of ${model.blockSize} tokens need about ${megabytes(bytes)} MB on each device ` +
            `(${how}), the limit is ${megabytes(limit)} MB; use fewer rows a call (more shards)` +
            `${this.#traced.recompute ? "" : ", --checkpoint-activations"} or a smaller model`,
        );
    };
    // Weights, the sums of the left and the gradient of the right: before anything is compiled.
    check(
      2 * vector + waiting + moments + arriving,
      `weights${trainsLocally ? ", AdamW's moments" : ""} and gradients alone`,
    );
    const program = await this.#gradientExecutable(maxRows, model.blockSize);
    const { argument, output, temporary, code } = this.#client.pjrt.memory(program);
    check(argument + output + temporary + code + waiting + moments + arriving, "by XLA's own analysis");
  }

  async setWeights(weights: Float32Array): Promise<void> {
    checkLength("weights", weights.length, this.#size);
    this.#dropWeights();
    this.foresee(weights, this.#size);
    const ahead = this.#ahead;
    this.#ahead = undefined;
    await this.#inXla(async ({ pjrt, handle }) => {
      if (!ahead) return await this.#spread(await pjrt.upload(handle, weights, [this.#size], 0));
      const pieces = await Promise.all(ahead.pieces).catch((error) => {
        void this.#abandon(ahead.pieces);
        throw error;
      });
      const join = await this.#executable(trace.joinProgram(ahead.pieces.map((_, i) => this.#pieceAt(i).length)));
      const [whole] = await pjrt.execute(join, pieces, 0).finally(() => this.#release(...pieces));
      await this.#spread(whole!);
    });
  }

  /** Weights of more than one piece go up piece by piece, as they come. */
  foresee(weights: Float32Array, known: number): void {
    if (this.#ended || this.#size <= pieceSize) return;
    const isOther =
      this.#ahead?.weights.buffer !== weights.buffer || this.#ahead.weights.byteOffset !== weights.byteOffset;
    // A piece is longer than what comes at once: who begins anew has told of less than the first one.
    if (isOther || known < this.#ahead!.known) {
      void this.#abandon(this.#ahead?.pieces);
      this.#ahead = { weights, known, pieces: [] };
    }
    const { pjrt, handle } = this.#client;
    const { pieces } = this.#ahead!;
    this.#ahead!.known = known;
    for (;;) {
      const { start, length } = this.#pieceAt(pieces.length);
      if (length === 0 || start + length > known) return;
      const piece = pjrt.upload(handle, weights.subarray(start, start + length), [length], 0);
      piece.catch(() => {}); // setWeights is told
      pieces.push(piece);
    }
  }

  #pieceAt(i: number): { start: number; length: number } {
    const start = Math.min(i * pieceSize, this.#size);
    return { start, length: Math.min(pieceSize, this.#size - start) };
  }

  /** Of weights that do not come. */
  async #abandon(pieces: readonly Promise<BufferHandle>[] = []): Promise<void> {
    const settled = await Promise.allSettled(pieces);
    this.#release(...settled.map((piece) => (piece.status === "fulfilled" ? piece.value : undefined)));
  }

  /** These weights of the first device to all. */
  async #spread(first: BufferHandle): Promise<void> {
    const copies = this.#devices.slice(1).map((to) => this.#client.pjrt.copyTo(first, to));
    this.#weights = [first, ...(await Promise.all(copies))];
  }

  async gradient(
    tokens: Int32Array,
    targets: Int32Array,
    rows: number,
    at: LeasePosition,
    out: Float32Array,
    cancelled: () => boolean = () => false,
  ): Promise<number[] | undefined> {
    if (at.round) return await this.#onHost(tokens, targets, rows, at, out, cancelled);
    checkLength("gradient", out.length, this.#size);
    return await this.#inXla(async () => {
      const lease = await this.#lease(tokens, targets, rows, at, cancelled);
      if (lease) await this.#fetch(lease.sum, out);
      return lease?.losses;
    });
  }

  /** Losses of a lease's shards, and their gradients' sum on the first device. */
  async #lease(
    tokens: Int32Array,
    targets: Int32Array,
    rows: number,
    at: LeasePosition,
    cancelled: () => boolean,
  ): Promise<{ losses: number[]; sum: BufferHandle } | undefined> {
    const { first, count } = at;
    const T = checkLease(this.model, this.#maxRows, { tokens, targets, rows, first, count });
    this.#checkWeights();
    const adding = count > 1 ? await this.#executable(trace.sumProgram(this.model)) : undefined;
    const { pjrt } = this.#client;
    const losses = new Array<number>(count).fill(0);

    /** The last shard of each device, which may still be computed. */
    const last = new Map<number, Promise<void>>();

    /** Gradient of one shard, on `device`: queued behind the one before it, so that the device never waits for the host. */
    const leaf = async (index: number, device: number): Promise<BufferHandle | undefined> => {
      if (cancelled()) return undefined;
      const [start, end] = [(index - first) * rows * T, (index - first + 1) * rows * T];
      const ids = [tokens.subarray(start, end), targets.subarray(start, end)] as const;
      const { loss, gradient } = await this.#compute(...ids, rows, { ...at, shard: index }, device);
      const before = last.get(device);
      const known = loss.then((value) => {
        losses[index - first] = value;
      });
      known.catch(() => {}); // whoever comes next, or the end, is told
      last.set(device, known);
      await before?.catch(this.#letting(gradient));
      return gradient;
    };

    /** Sum of a node of the tree, on the first of `devices`, which share its work. */
    const node = async (from: number, size: number, devices: readonly number[]): Promise<BufferHandle | undefined> => {
      const [home] = devices as [number];
      if (size === 1) return await leaf(from, home);
      const half = Math.ceil(devices.length / 2);
      const goRight = () => node(from + size / 2, size / 2, devices.length > 1 ? devices.slice(half) : devices);
      const goLeft = () => node(from, size / 2, devices.slice(0, half));
      const [left, right] =
        devices.length > 1 ? await both(goLeft(), goRight(), this.#letGo) : [await goLeft(), undefined];
      const other = devices.length > 1 ? right : left && (await goRight().catch(this.#letting(left)));
      if (!left || !other) {
        this.#release(left, other);
        return undefined;
      }
      let here: BufferHandle | undefined;
      try {
        here = devices.length > 1 ? await pjrt.copyTo(other, home) : other;
        return (await pjrt.execute(adding!, [left, here], home))[0];
      } finally {
        this.#release(left, other, here);
      }
    };

    const sum = await node(first, count, this.#devices.slice(0, count));
    await Promise.all(last.values()).catch((error) => {
      this.#release(sum);
      throw error;
    });
    return sum && { losses, sum };
  }

  /**
   * Weights, moments and gradients stay on the devices from the first step to the last. One call a step, not one for all:
   * it can be stopped and tells of its progress, and any number of devices computes its gradient.
   */
  async train(...[tokens, targets, steps, state, watch = {}]: Parameters<TrainLocally>): Promise<LocalResult> {
    const ids = checkLocal(this.#size, tokens, targets, steps, state);
    const { at, rows, learningRates, updates, optimizer } = steps;
    const result: LocalResult = { losses: [], gradientNorms: [] };
    await this.setWeights(state.weights);
    await this.#inXla(async ({ pjrt, handle }) => {
      const programs = [adamw.decayProgram, adamw.squaresProgram, adamw.updateProgram];
      const [decay, squares, update] = (await Promise.all(
        programs.map((program) => this.#executable(program(this.model))),
      )) as [ExecutableHandle, ExecutableHandle, ExecutableHandle];
      const decays = (await pjrt.execute(decay, [], 0))[0]!;
      const zero = await pjrt.upload(handle, Uint32Array.of(0), [1], 0);
      let moments = await Promise.all([state.m, state.v].map((x) => pjrt.upload(handle, x, [this.#size], 0)));
      try {
        for (const [h, learningRate] of learningRates.entries()) {
          const part = (x: Int32Array) => x.subarray(h * ids, (h + 1) * ids);
          const position = { ...at, step: at.step + h };
          const cancelled = watched(watch, h, at.count);
          const lease = await this.#lease(part(tokens), part(targets), rows, position, cancelled);
          if (!lease) break;
          const total = (await this.#values(await pjrt.execute(squares, [lease.sum], 0))).reduce((a, b) => a + b, 0);
          const { gradientNorm, gradientScale } = gradientOf(total, at.count, optimizer.gradientClip);
          const scalars = adamwScalars({ ...optimizer, gradientScale, learningRate, count: updates + h + 1 });
          const uploaded = await pjrt.upload(handle, scalars, [scalars.length], 0);
          const inputs = [this.#weights[0]!, ...moments, lease.sum, decays, uploaded, zero];
          const [weights, m, v] = (await pjrt.execute(update, inputs, 0).finally(() => {
            this.#release(...this.#weights, ...moments, lease.sum, uploaded);
            this.#weights = moments = [];
          })) as [BufferHandle, BufferHandle, BufferHandle];
          moments = [m, v];
          await this.#spread(weights);
          result.losses.push(lease.losses.reduce((sum, loss) => sum + loss, 0) / at.count);
          result.gradientNorms.push(gradientNorm);
          watch.progress?.(h + 1);
        }
        const from = [this.#weights[0]!, ...moments];
        await Promise.all([state.weights, state.m, state.v].map((out, i) => pjrt.download(from[i]!, out)));
      } finally {
        this.#release(decays, zero, ...moments);
      }
    });
    return result;
  }

  /** Of a program's one result, float64. */
  async #values([buffer]: readonly BufferHandle[], size = Math.ceil(this.#size / squaresChunk)): Promise<Float64Array> {
    const out = new Float64Array(size);
    // The addon moves bytes.
    await this.#fetch(buffer!, new Float32Array(out.buffer));
    return out;
  }

  /** A buffer's values, the last that is asked of it. */
  async #fetch(buffer: BufferHandle, out: Float32Array): Promise<void> {
    try {
      await this.#client.pjrt.download(buffer, out);
    } finally {
      this.#release(buffer);
    }
  }

  /** Of one shard, whose gradient stays on its device, as soon as it is queued there. */
  async #compute(
    tokens: Int32Array,
    targets: Int32Array,
    rows: number,
    { seed, step, shard }: ShardPosition,
    device: number,
  ): Promise<{ loss: Promise<number>; gradient: BufferHandle }> {
    const program = await this.#gradientExecutable(rows, tokens.length / rows);
    const position = Uint32Array.of(...keyOf(seed, stream.dropout), step, shard);
    const [perToken, gradient] = await this.#run(program, device, [tokens, targets, position]);
    const values = new Float32Array(tokens.length);
    return { loss: this.#fetch(perToken!, values).then(() => mean(values)), gradient: gradient! };
  }

  async #shard(...[tokens, targets, rows, at, out, device]: Parameters<ShardGradient>): Promise<number> {
    this.#checkWeights();
    return await this.#inXla(async () => {
      const { loss, gradient } = await this.#compute(tokens, targets, rows, at, device);
      const [value] = await both<unknown>(loss, this.#fetch(gradient, out), () => {});
      return value as number;
    });
  }

  async losses(tokens: Int32Array, targets: Int32Array, rows: number): Promise<Float32Array> {
    const T = checkTokens(this.model, this.#maxRows, "tokens", tokens, rows);
    checkTargets(this.model, tokens, targets);
    // One program serves a validation and its last few rows; rows do not touch each other.
    const all = (ids: Int32Array) => {
      const whole = new Int32Array(this.#maxRows * T);
      whole.set(ids);
      return whole;
    };
    const program = trace.lossesProgram(this.#traced, this.#maxRows, T);
    const what = `the losses of ${this.#maxRows} x ${T} tokens`;
    const perToken = await this.#forward(program, what, [all(tokens), all(targets)], this.#maxRows * T);
    return Float32Array.from({ length: rows }, (_, row) => mean(perToken.subarray(row * T, (row + 1) * T)));
  }

  async logits(tokens: Int32Array, rows: number): Promise<Float32Array> {
    const T = checkTokens(this.model, this.#maxRows, "tokens", tokens, rows);
    return await this.#forward(
      trace.logitsProgram(this.#traced, rows, T),
      `the logits of ${rows} x ${T} tokens`,
      [tokens],
      tokens.length * this.model.vocabSize,
    );
  }

  async hidden(tokens: Int32Array, rows: number): Promise<Float32Array> {
    if (this.model.nLayer === 0)
      throw new EngineError("engine xla: a bigram has no hidden states: its table is its head");
    const T = checkTokens(this.model, this.#maxRows, "tokens", tokens, rows);
    return await this.#forward(
      trace.hiddenProgram(this.#traced, rows, T),
      `the hidden states of ${rows} x ${T} tokens`,
      [tokens],
      tokens.length * this.model.nEmbd,
    );
  }

  async generation(rows: number): Promise<Generation> {
    if (!Number.isInteger(rows) || rows < 1) throw new EngineError(`generation: ${rows} rows, expected 1 or more`);
    this.#checkWeights();
    const generation = new XlaGeneration(this.#traced, rows, {
      executable: (...program) => this.#executable(...program),
      run: (program, inputs) => this.#run(program, 0, inputs),
      inXla: (call) => this.#inXla(call),
      release: (...handles) => this.#release(...handles),
      fetch: (buffer, out) => this.#fetch(buffer, out),
    });
    this.#generations.add(generation);
    return generation;
  }

  async dispose(): Promise<void> {
    this.#ended = true;
    this.#dropWeights();
    await this.#abandon(this.#ahead?.pieces);
    // Those that were refused are nothing to release.
    const opened = await Promise.allSettled(this.#executables.values());
    this.#executables.clear();
    await this.#client.pjrt.release(opened.flatMap((each) => (each.status === "fulfilled" ? [each.value] : [])));
    await Promise.all(this.#leaving);
  }

  #dropWeights(): void {
    for (const generation of this.#generations) generation.dispose();
    this.#generations.clear();
    this.#release(...this.#weights);
    this.#weights = [];
  }

  #checkWeights(): void {
    if (this.#ended) throw new EngineError("engine xla: it was disposed");
    if (this.#weights.length === 0) throw new EngineError("engine xla: setWeights has not been called");
  }

  /** Of a shard of (rows, T). */
  async #gradientExecutable(rows: number, T: number): Promise<ExecutableHandle> {
    const shape = `${rows} x ${T}`;
    const program = this.#gradientPrograms.get(shape) ?? trace.gradientProgram(this.#traced, rows, T);
    this.#gradientPrograms.set(shape, program);
    return await this.#executable(program, `the gradient of ${shape} tokens`);
  }

  /** @param what for people, of those that may take long */
  async #executable(program: string, what?: string): Promise<ExecutableHandle> {
    let opening = this.#executables.get(program);
    if (!opening) {
      const waiting = what && this.#note ? { what, note: this.#note, clock: systemClock } : undefined;
      opening = executable(this.#client, program, this.#flags, waiting);
      this.#executables.set(program, opening);
      opening.catch(() => this.#executables.delete(program));
    }
    return await opening;
  }

  /** A program on the weights of a device and further inputs: buffers are used as they are, arrays go up first. */
  async #run(
    program: ExecutableHandle,
    device: number,
    inputs: readonly (Int32Array | Uint32Array | BufferHandle)[],
  ): Promise<BufferHandle[]> {
    const { pjrt, handle } = this.#client;
    const isArray = (input: (typeof inputs)[number]) => input instanceof Int32Array || input instanceof Uint32Array;
    const buffers = await Promise.all(
      inputs.map((input) =>
        isArray(input)
          ? pjrt.upload(handle, input as Int32Array, [(input as Int32Array).length], device)
          : (input as BufferHandle),
      ),
    );
    try {
      return await pjrt.execute(program, [this.#weights[device]!, ...buffers], device);
    } finally {
      this.#release(...buffers.filter((_, i) => isArray(inputs[i]!)));
    }
  }

  async #forward(program: string, what: string, inputs: readonly Int32Array[], size: number): Promise<Float32Array> {
    this.#checkWeights();
    const compiled = await this.#executable(program, what);
    return await this.#inXla(async () => {
      const [result] = await this.#run(compiled, 0, inputs);
      const out = new Float32Array(size);
      await this.#fetch(result!, out);
      return out;
    });
  }

  #release(...handles: (BufferHandle | undefined)[]): void {
    const held = handles.filter((handle) => handle !== undefined);
    if (held.length === 0) return;
    const leaving = this.#client.pjrt.release(held).finally(() => this.#leaving.delete(leaving));
    this.#leaving.add(leaving);
  }

  readonly #letGo = (buffer: BufferHandle | undefined): void => this.#release(buffer);

  /** Rethrows, and leaves nothing behind on the device. */
  #letting(...handles: BufferHandle[]): (error: unknown) => never {
    return (error) => {
      this.#release(...handles);
      throw error;
    };
  }

  /** What XLA throws becomes this worker's EngineError. */
  async #inXla<T>(call: (client: OpenClient) => Promise<T>): Promise<T> {
    try {
      return await call(this.#client);
    } catch (error) {
      if (error instanceof EngineError) throw error;
      throw new EngineError(`engine xla: ${messageOf(error)}`, { cause: error });
    }
  }
}

/** Both results, once both are settled: where one fails, the other is let go and nothing is still under way. */
async function both<T>(left: Promise<T>, right: Promise<T>, letGo: (done: T) => void): Promise<[T, T]> {
  const settled = await Promise.allSettled([left, right]);
  const failed = settled.find((each) => each.status === "rejected");
  const done = settled.flatMap((each) => (each.status === "fulfilled" ? [each.value] : []));
  if (!failed) return done as [T, T];
  for (const value of done) letGo(value);
  throw failed.reason;
}

function mean(values: Float32Array): number {
  let sum = 0;
  for (const value of values) sum += value;
  return sum / values.length;
}
