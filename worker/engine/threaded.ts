// tfjs computes on the thread that calls it, for as long as a step takes. Here it runs in a thread of its own, so that
// the worker's event loop stays free: heartbeats go out and sockets are read in the middle of a step. Weights and
// gradients pass through shared memory; whoever gives arrays on a SharedArrayBuffer saves the copy.
import { SHARE_ENV, Worker } from "node:worker_threads";
import { EngineError, UnfitError } from "../../shared/errors.ts";
import { layoutOf } from "../../shared/family/layout.ts";
import type { Engine, EngineKind, EngineOptions, Generation } from "./contract.ts";
import { type ShardGradient, shardByShard } from "./shards.ts";
import { tfjs } from "./tfjs/kind.ts";
import type { Answer, Call, Facts } from "./thread.ts";

/** The tfjs engine off the event loop. */
export const threadedTfjs: EngineKind = {
  ...tfjs,
  async create(options) {
    const thread = new Thread(options);
    try {
      return new ThreadedEngine(thread, (await thread.call("create")) as Facts, options);
    } catch (error) {
      await thread.end();
      throw error;
    }
  },
};

/** From sources (tests) the compiled twin runs: Node 20 cannot load TypeScript into a thread. */
const entry = new URL(
  import.meta.url.endsWith(".ts") ? "../../dist/worker/engine/thread.js" : "./thread.js",
  import.meta.url,
);

/** Calls into the thread and their answers. It keeps the process alive only while a call is open. */
class Thread {
  readonly #worker: Worker;
  readonly #open = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>();
  #calls = 0;
  #gone: string | undefined;

  /** @param options of which a function cannot go into a thread */
  constructor({ note: _, ...options }: EngineOptions) {
    // TensorFlow reads the process's environment: a thread's own copy of it would not reach C++.
    this.#worker = new Worker(entry, { workerData: options, env: SHARE_ENV });
    this.#worker.unref();
    this.#worker.on("message", (answer: Answer) => this.#settle(answer));
    this.#worker.on("error", (error) => this.#fail(`engine tfjs: its thread failed: ${error.stack ?? error.message}`));
    this.#worker.on("exit", (code) => this.#fail(`engine tfjs: its thread ended with code ${code}`));
  }

  async call(method: string, args: readonly unknown[] = [], generation?: number): Promise<unknown> {
    if (this.#gone) throw new EngineError(this.#gone);
    const id = this.#calls++;
    const call: Call = generation === undefined ? { id, method, args } : { id, generation, method, args };
    this.#worker.ref();
    return await new Promise((resolve, reject) => {
      this.#open.set(id, { resolve, reject });
      this.#worker.postMessage(call);
    });
  }

  async end(): Promise<void> {
    this.#gone = "engine tfjs: it was disposed";
    await this.#worker.terminate();
  }

  #settle({ id, value, error }: Answer): void {
    const waiting = this.#open.get(id)!;
    this.#open.delete(id);
    if (this.#open.size === 0) this.#worker.unref();
    if (!error) waiting.resolve(value);
    else if (error.isUnfit) waiting.reject(new UnfitError(error.message));
    else if (error.name === "EngineError") waiting.reject(new EngineError(error.message));
    else waiting.reject(new Error(error.message, { cause: error.stack }));
  }

  #fail(reason: string): void {
    this.#gone ??= reason;
    for (const { reject } of this.#open.values()) reject(new EngineError(this.#gone));
    this.#open.clear();
  }
}

class ThreadedEngine implements Engine {
  readonly name = "tfjs";
  readonly arithmetic: string;
  readonly device: string;
  readonly model: Engine["model"];
  readonly plannedBytes: number;
  readonly gradient: Engine["gradient"];
  readonly #thread: Thread;
  /** (P) floats that both sides see, made when first needed: calls are not reentrant, so one is enough. */
  #shared: Float32Array | undefined;

  constructor(thread: Thread, facts: Facts, options: EngineOptions) {
    this.#thread = thread;
    // Between shards nothing is under way in the thread: here a lease can be cancelled.
    this.gradient = shardByShard(options, (...shard) => this.#shard(...shard));
    this.arithmetic = facts.arithmetic;
    this.device = facts.device;
    this.model = facts.model;
    this.plannedBytes = facts.plannedBytes;
  }

  async setWeights(weights: Float32Array): Promise<void> {
    const shared = this.#through(weights);
    if (shared !== weights) shared.set(weights);
    await this.#thread.call("setWeights", [shared]);
  }

  async #shard(...[tokens, targets, rows, at, out]: Parameters<ShardGradient>): Promise<number> {
    const shared = this.#through(out);
    const args = [tokens, targets, rows, { ...at, first: at.shard, count: 1 }, shared];
    const [loss] = (await this.#thread.call("gradient", args)) as [number];
    if (shared !== out) out.set(shared);
    return loss;
  }

  async losses(tokens: Int32Array, targets: Int32Array, rows: number): Promise<Float32Array> {
    return (await this.#thread.call("losses", [tokens, targets, rows])) as Float32Array;
  }

  async logits(tokens: Int32Array, rows: number): Promise<Float32Array> {
    return (await this.#thread.call("logits", [tokens, rows])) as Float32Array;
  }

  async hidden(tokens: Int32Array, rows: number): Promise<Float32Array> {
    return (await this.#thread.call("hidden", [tokens, rows])) as Float32Array;
  }

  async generation(rows: number): Promise<Generation> {
    const id = (await this.#thread.call("generation", [rows])) as number;
    return new ThreadedGeneration(this.#thread, id, rows);
  }

  async dispose(): Promise<void> {
    await this.#thread.end();
  }

  /** An array of the same length that the thread sees: the given one if it is shared and of this model. */
  #through(array: Float32Array): Float32Array {
    if (array.buffer instanceof SharedArrayBuffer) return array;
    const { size } = layoutOf(this.model);
    // A wrong length goes over as it is, and comes back as the engine's refusal.
    if (array.length !== size) return array;
    this.#shared ??= new Float32Array(new SharedArrayBuffer(4 * size));
    return this.#shared;
  }
}

class ThreadedGeneration implements Generation {
  readonly rows: number;
  readonly #thread: Thread;
  readonly #id: number;
  #lengths: number[];

  constructor(thread: Thread, id: number, rows: number) {
    this.#thread = thread;
    this.#id = id;
    this.rows = rows;
    this.#lengths = new Array(rows).fill(0);
  }

  get lengths(): readonly number[] {
    return this.#lengths;
  }

  async feed(tokens: readonly Int32Array[]): Promise<Float32Array> {
    const logits = (await this.#thread.call("feed", [tokens], this.#id)) as Float32Array;
    this.#lengths = this.#lengths.map((length, row) => length + tokens[row]!.length);
    return logits;
  }

  async reorder(from: readonly number[]): Promise<void> {
    await this.#thread.call("reorder", [from], this.#id);
    this.#lengths = from.map((row) => this.#lengths[row]!);
  }

  clear(row: number): void {
    if (!(row in this.#lengths)) throw new EngineError(`generation: row ${row} of ${this.rows}`);
    this.#lengths[row] = 0;
    this.#send("clear", row);
  }

  dispose(): void {
    this.#send("dispose");
  }

  /** A call that nobody waits for: the thread answers in order, so that its failure shows in the next one. */
  #send(method: string, ...args: unknown[]): void {
    this.#thread.call(method, args, this.#id).catch(() => {
      // Only a thread that is gone fails here, and every later call says so.
    });
  }
}
