// Sequences that grow on the device: one program takes a stretch of tokens of every row, one a single token; keys and
// values of each block stay in buffers that the programs write in place. Logits come back, nothing else.
import { EngineError } from "../../../shared/errors.ts";
import type { ModelConfig } from "../../../shared/model.ts";
import { checkIds } from "../check.ts";
import type { Generation } from "../contract.ts";
import { embedAt, headLogits, hiddenOf } from "../model/model.ts";
import { productsOf } from "./ops.ts";
import type { BufferHandle, ExecutableHandle, OpenClient } from "./pjrt.ts";
import { type Argument, Program, type Value } from "./program.ts";
import { headsOf, netOf, type Traced, weightsOf } from "./trace.ts";

/** Tokens of a row that are read in one go, where there are more than one. */
const stretchOf = ({ blockSize }: ModelConfig): number => Math.min(blockSize, 32);

/** Keys and values of one block: (rows, 2, S, C). Past blockSize there is room for a stretch's unused end. */
function cacheOf({ model, precision }: Traced, rows: number): Argument {
  const { blockSize, nEmbd } = model;
  return { shape: [rows, 2, blockSize + stretchOf(model), nEmbd], type: precision === "bf16" ? "bf16" : "f32" };
}

/**
 * (P) weights, (rows * n) tokens, (rows) lengths so far, (rows) how many of the n count, caches
 * -> (rows, V) logits after each row's last token, caches
 */
export function feedProgram(traced: Traced, rows: number, n: number): string {
  const { model } = traced;
  const ids = (size: number): Argument => ({ shape: [size], type: "i32" });
  const caches = Array.from({ length: model.nLayer }, (_, l) => ({ ...cacheOf(traced, rows), becomes: 1 + l }));
  return Program.write(
    [weightsOf(model), ids(rows * n), ids(rows), ids(rows), ...caches],
    (p, weights, tokens, lengths, counts, ...past) => {
      const net = netOf(p, traced, weights!);
      const last = p.binary("add", p.binary("multiply", p.iota([rows], 0, "i32"), n), p.binary("add", counts!, -1));
      const lastOf = p.binary("maximum", last, 0);
      const table = net.weights["table.weight"];
      if (table) return [net.ops.gather(table, p.gather(tokens!, lastOf)) as Value];
      const positions = p.binary(
        "add",
        p.broadcast(p.reshape(lengths!, [rows, 1]), [rows, n]),
        p.iota([rows, n], 1, "i32"),
      );
      const starts = Array.from({ length: rows }, (_, row) => p.element(lengths!, row));
      const cached = (l: number, qkv: Value) => {
        const { y, cache } = attend(p, traced, [rows, n], qkv, past[l]!, positions, starts);
        past[l] = cache;
        return y;
      };
      const pass = {
        heads: headsOf(model, rows, n),
        mask: () => undefined,
        emit: () => {},
        cached: cached as (l: number, qkv: unknown) => Value,
      };
      const known = p.binary("minimum", p.reshape(positions, [rows * n]), model.blockSize - 1);
      const hidden = hiddenOf(net, pass, embedAt(net, tokens!, known));
      return [headLogits(net, net.ops.gather(hidden, lastOf)) as Value, ...past];
    },
  );
}

/** Attention of n new positions a row over its past and themselves. @param qkv (rows * n, 3C) */
function attend(
  p: Program,
  { model, precision }: Traced,
  [rows, n]: readonly [number, number],
  qkv: Value,
  past: Value,
  positions: Value,
  starts: readonly Value[],
): { y: Value; cache: Value } {
  const { H, D } = headsOf(model, rows, n);
  const C = H * D;
  const S = past.shape[2]!;
  const type = precision === "bf16" ? "bf16" : "f32";
  const product = productsOf(p, precision);
  const parts = p.convert(p.reshape(qkv, [rows, n, 3, C]), type);
  const fresh = p.transpose(
    p.slice(parts, [
      [0, rows],
      [0, n],
      [1, 3],
    ]),
    [0, 2, 1, 3],
  ); // (rows, 2, n, C)
  const zero = p.constant(0, [], "i32");
  let cache = past;
  for (const [row, start] of starts.entries()) {
    const at = [p.constant(row, [], "i32"), zero, start, zero];
    cache = p.dynamicUpdate(cache, p.slice(fresh, [[row, row + 1]]), at);
  }
  /** Number i of those along an axis, as (rows, length, H, D). */
  const part = (x: Value, axis: 1 | 2, i: number, length: number) => {
    const ranges = x.shape.map((size, k) => (k === axis ? [i, i + 1] : [0, size]) as [number, number]);
    return p.reshape(p.slice(x, ranges), [rows, length, H, D]);
  };
  const q = part(parts, 2, 0, n);
  const [k, v] = [part(cache, 1, 0, S), part(cache, 1, 1, S)];
  const scores = p.binary(
    "multiply",
    product(
      q,
      k,
      [3, 3],
      [
        [0, 0],
        [2, 2],
      ],
    ),
    1 / Math.sqrt(D),
  ); // (rows, H, n, S)
  const seen = p.compare("GE", p.reshape(positions, [rows, 1, n, 1]), p.iota([rows, 1, n, S], 3, "i32"));
  const visible = p.select(p.broadcast(seen, [rows, H, n, S]), scores, -1e30);
  const spread = (x: Value) => p.reshape(x, [rows, H, n, 1]);
  const exps = p.unary("exponential", p.binary("subtract", visible, spread(p.reduce("maximum", visible, 3))));
  const weights = p.binary("divide", exps, spread(p.reduce("add", exps, 3)));
  const y = product(
    p.convert(weights, type),
    v,
    [3, 1],
    [
      [0, 0],
      [1, 2],
    ],
  ); // (rows, H, n, D)
  return { y: p.reshape(p.transpose(y, [0, 2, 1, 3]), [rows * n, C]), cache };
}

/** (rows) where each row comes from, caches -> caches */
function reorderProgram(traced: Traced, rows: number): string {
  const caches = Array.from({ length: traced.model.nLayer }, () => cacheOf(traced, rows));
  return Program.write([weightsOf(traced.model), { shape: [rows], type: "i32" }, ...caches], (p, _, from, ...past) =>
    past.map((cache) => p.gather(cache, from!)),
  );
}

/** (P) weights -> caches that hold nothing */
function emptyProgram(traced: Traced, rows: number): string {
  const { shape, type } = cacheOf(traced, rows);
  return Program.write([weightsOf(traced.model)], (p) =>
    Array.from({ length: traced.model.nLayer }, () => p.constant(0, shape, type)),
  );
}

/** What a generation needs of its engine. */
export interface GenerationHost {
  /** @param what for people, of those that may take long */
  executable(program: string, what?: string): Promise<ExecutableHandle>;
  /** On the weights and further inputs. */
  run(program: ExecutableHandle, inputs: readonly (Int32Array | BufferHandle)[]): Promise<BufferHandle[]>;
  inXla<T>(call: (client: OpenClient) => Promise<T>): Promise<T>;
  /** A buffer's values; it is released. */
  fetch(buffer: BufferHandle, out: Float32Array): Promise<void>;
  release(...handles: BufferHandle[]): void;
}

export class XlaGeneration implements Generation {
  readonly rows: number;
  readonly #traced: Traced;
  readonly #host: GenerationHost;
  readonly #logits: Float32Array;
  #lengths: number[];
  /** One a block, once something was fed. */
  #past: BufferHandle[] | undefined;
  #ended = false;

  constructor(traced: Traced, rows: number, host: GenerationHost) {
    this.rows = rows;
    this.#traced = traced;
    this.#host = host;
    this.#logits = new Float32Array(rows * traced.model.vocabSize);
    this.#lengths = new Array(rows).fill(0);
  }

  get lengths(): readonly number[] {
    return this.#lengths;
  }

  async feed(tokens: readonly Int32Array[]): Promise<Float32Array> {
    this.#check(tokens);
    const longest = Math.max(...tokens.map((row) => row.length));
    const stretch = stretchOf(this.#traced.model);
    for (let from = 0; from < longest; ) {
      const n = longest - from > 1 ? stretch : 1;
      await this.#feed(
        tokens.map((row) => row.subarray(from, from + n)),
        n,
      );
      from += n;
    }
    return this.#logits;
  }

  async reorder(from: readonly number[]): Promise<void> {
    this.#checkAlive();
    if (from.length !== this.rows || from.some((row) => !Number.isInteger(row) || row < 0 || row >= this.rows))
      throw new EngineError(`generation: cannot reorder ${this.rows} rows by [${from}]`);
    const past = this.#past;
    if (past && past.length > 0) {
      const program = await this.#host.executable(reorderProgram(this.#traced, this.rows));
      const moved = await this.#host.inXla(() => this.#host.run(program, [Int32Array.from(from), ...past]));
      this.#host.release(...past);
      this.#past = moved;
    }
    const V = this.#traced.model.vocabSize;
    const logits = this.#logits.slice();
    for (const [i, row] of from.entries()) this.#logits.set(logits.subarray(row * V, (row + 1) * V), i * V);
    this.#lengths = from.map((row) => this.#lengths[row]!);
  }

  clear(row: number): void {
    if (!(row in this.#lengths)) throw new EngineError(`generation: row ${row} of ${this.rows}`);
    const V = this.#traced.model.vocabSize;
    this.#lengths[row] = 0;
    this.#logits.fill(0, row * V, (row + 1) * V);
  }

  dispose(): void {
    this.#ended = true;
    this.#host.release(...(this.#past ?? []));
    this.#past = undefined;
  }

  /** Up to n tokens of each row. */
  async #feed(tokens: readonly Int32Array[], n: number): Promise<void> {
    const { vocabSize: V } = this.#traced.model;
    const what = `a generation's step of ${this.rows} x ${n} tokens`;
    const program = await this.#host.executable(feedProgram(this.#traced, this.rows, n), what);
    if (this.#traced.model.nLayer === 0) this.#past = []; // a bigram remembers nothing
    const empty = this.#past ? undefined : await this.#host.executable(emptyProgram(this.#traced, this.rows));
    const ids = new Int32Array(this.rows * n);
    for (const [row, added] of tokens.entries()) ids.set(added, row * n);
    const counts = Int32Array.from(tokens, (added) => added.length);
    const fresh = new Float32Array(this.rows * V);
    await this.#host.inXla(async () => {
      const past = this.#past ?? (await this.#host.run(empty!, []));
      const [logits, ...grown] = await this.#host.run(program, [ids, Int32Array.from(this.#lengths), counts, ...past]);
      this.#host.release(...past);
      this.#past = grown;
      await this.#host.fetch(logits!, fresh);
    });
    for (const [row, count] of counts.entries())
      if (count > 0) this.#logits.set(fresh.subarray(row * V, (row + 1) * V), row * V);
    this.#lengths = this.#lengths.map((length, row) => length + counts[row]!);
  }

  #checkAlive(): void {
    if (this.#ended) throw new EngineError("generation: it ended with the weights that it began with; begin a new one");
  }

  #check(tokens: readonly Int32Array[]): void {
    this.#checkAlive();
    if (tokens.length !== this.rows)
      throw new EngineError(`generation: tokens for ${tokens.length} rows, expected ${this.rows}`);
    for (const [row, added] of tokens.entries()) {
      checkIds(this.#traced.model, `row ${row}`, added);
      const [held, { blockSize }] = [this.#lengths[row]!, this.#traced.model];
      if (held + added.length > blockSize)
        throw new EngineError(
          `generation: row ${row} holds ${held} tokens and ${added.length} more exceed the blockSize of ${blockSize}; ` +
            "clear the row and feed the end of its text",
        );
    }
  }
}
