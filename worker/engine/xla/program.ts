// StableHLO as text, one operation a line: what XLA compiles. A Value is a name with a shape and a type; every function
// here writes the line that computes a new one. Source: the StableHLO specification (openxla/stablehlo, docs/spec.md).
import type { Precision } from "../../../shared/model.ts";
import type { Ids, Tensor } from "../model/ops.ts";

export type Type = "f32" | "f64" | "bf16" | "i32" | "ui8" | "ui32" | "ui64" | "i1";

/** A value of the program that is being written. */
export class Value implements Tensor, Ids {
  readonly name: string;
  readonly shape: readonly number[];
  readonly type: Type;
  readonly #program: Program;

  constructor(program: Program, name: string, shape: readonly number[], type: Type) {
    this.#program = program;
    this.name = name;
    this.shape = shape;
    this.type = type;
  }

  /** Rows, as of ids. */
  get length(): number {
    return this.shape[0]!;
  }

  subarray(from: number, to: number): Value {
    return this.#program.slice(this, [[from, to]]);
  }

  toString(): string {
    return this.name;
  }
}

export const tensor = (shape: readonly number[], type: Type): string => `tensor<${[...shape, type].join("x")}>`;
const typeOf = ({ shape, type }: Value): string => tensor(shape, type);
const sizeOf = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1);
const isFloat = (type: Type): boolean => type === "f32" || type === "f64" || type === "bf16";

/** A number as MLIR reads it, exactly. */
function literal(x: number, type: Type): string {
  if (type === "i1") return `${x !== 0}`;
  if (!isFloat(type)) return `${x}`;
  if (x === Number.NEGATIVE_INFINITY) return type === "f32" ? "0xFF800000" : "0xFF80";
  return (type === "f64" ? x : Math.fround(x)).toExponential().replace(/^(-?\d+)e/, "$1.0e");
}

/** How float32 values are multiplied. */
const float32Products = {
  float32: "precision = [HIGHEST, HIGHEST]",
  tf32:
    "algorithm = <lhs_precision_type = tf32, rhs_precision_type = tf32, accumulation_type = f32, lhs_component_count = 1, " +
    "rhs_component_count = 1, num_primitive_operations = 1, allow_imprecise_accumulation = false>",
};

export interface Argument {
  readonly shape: readonly number[];
  readonly type: Type;
  /** The output that takes this argument's memory over. */
  readonly becomes?: number;
}

export class Program {
  readonly #lines: string[] = [];
  #names = 0;

  /**
   * A whole module.
   * @param write is given the arguments and returns the results
   */
  static write(args: readonly Argument[], write: (program: Program, ...args: Value[]) => readonly Value[]): string {
    const program = new Program();
    const values = args.map(({ shape, type }) => program.#name(shape, type));
    const results = write(program, ...values);
    const inputs = args.map(
      ({ becomes }, i) =>
        `${values[i]}: ${typeOf(values[i]!)}${becomes === undefined ? "" : ` {tf.aliasing_output = ${becomes} : i32}`}`,
    );
    const types = results.map(typeOf).join(", ");
    return [
      "module @weft {",
      `func.func public @main(${inputs.join(", ")}) -> (${types}) {`,
      ...program.#lines,
      `return ${results.join(", ")} : ${types}`,
      "} }",
      "",
    ].join("\n");
  }

  #name(shape: readonly number[], type: Type): Value {
    return new Value(this, `%${this.#names++}`, shape, type);
  }

  #emit(text: string, shape: readonly number[], type: Type): Value {
    const value = this.#name(shape, type);
    this.#lines.push(`${value} = ${text}`);
    return value;
  }

  constant(x: number, shape: readonly number[] = [], type: Type = "f32"): Value {
    return this.#emit(`stablehlo.constant dense<${literal(x, type)}> : ${tensor(shape, type)}`, shape, type);
  }

  /** Position along an axis, everywhere. */
  iota(shape: readonly number[], axis: number, type: Type): Value {
    return this.#emit(`stablehlo.iota dim = ${axis} : ${tensor(shape, type)}`, shape, type);
  }

  unary(name: string, x: Value): Value {
    return this.#emit(`stablehlo.${name} ${x} : ${typeOf(x)}`, x.shape, x.type);
  }

  erf(x: Value): Value {
    return this.#emit(`chlo.erf ${x} : ${typeOf(x)} -> ${typeOf(x)}`, x.shape, x.type);
  }

  /** Element by element, numbers and smaller shapes spread out as numpy does. */
  binary(name: string, a: Value | number, b: Value | number): Value {
    const [x, y] = this.#spread(a, b);
    return this.#emit(`stablehlo.${name} ${x}, ${y} : ${typeOf(x)}`, x.shape, x.type);
  }

  compare(direction: "LT" | "EQ" | "NE" | "GE", a: Value | number, b: Value | number): Value {
    const [x, y] = this.#spread(a, b);
    const text = `stablehlo.compare ${direction}, ${x}, ${y} : (${typeOf(x)}, ${typeOf(y)}) -> ${tensor(x.shape, "i1")}`;
    return this.#emit(text, x.shape, "i1");
  }

  select(condition: Value, a: Value | number, b: Value | number, type: Type = "f32"): Value {
    const [x, y] = [a, b].map((value) =>
      typeof value === "number" ? this.constant(value, condition.shape, type) : this.broadcast(value, condition.shape),
    );
    return this.#emit(
      `stablehlo.select ${condition}, ${x}, ${y} : ${typeOf(condition)}, ${typeOf(x!)}`,
      condition.shape,
      x!.type,
    );
  }

  #spread(a: Value | number, b: Value | number): [Value, Value] {
    const known = typeof a === "number" ? (b as Value) : a;
    const [left, right] = [a, b].map((x) => (typeof x === "number" ? [] : x.shape)) as [
      readonly number[],
      readonly number[],
    ];
    const rank = Math.max(left.length, right.length);
    const shape = Array.from({ length: rank }, (_, i) => Math.max(left.at(i - rank) ?? 1, right.at(i - rank) ?? 1));
    const whole = (x: Value | number) =>
      typeof x === "number" ? this.constant(x, shape, known.type) : this.broadcast(x, shape);
    return [whole(a), whole(b)];
  }

  /** x with a shape that numpy would spread it over. */
  broadcast(x: Value, shape: readonly number[]): Value {
    if (x.shape.length === shape.length && x.shape.every((size, i) => size === shape[i])) return x;
    const axes = x.shape.map((_, i) => i + shape.length - x.shape.length);
    const kept = axes.filter((axis, i) => x.shape[i] === shape[axis]);
    const dense = this.reshape(
      x,
      kept.map((axis) => shape[axis]!),
    );
    const text = `stablehlo.broadcast_in_dim ${dense}, dims = [${kept.join(", ")}] : (${typeOf(dense)}) -> ${tensor(shape, x.type)}`;
    return this.#emit(text, shape, x.type);
  }

  convert(x: Value, type: Type): Value {
    if (x.type === type) return x;
    return this.#emit(`stablehlo.convert ${x} : (${typeOf(x)}) -> ${tensor(x.shape, type)}`, x.shape, type);
  }

  /** The same bits, read as another type of their size. */
  bits(x: Value, type: Type): Value {
    return this.#emit(`stablehlo.bitcast_convert ${x} : (${typeOf(x)}) -> ${tensor(x.shape, type)}`, x.shape, type);
  }

  reshape(x: Value, shape: readonly number[]): Value {
    if (x.shape.length === shape.length && x.shape.every((size, i) => size === shape[i])) return x;
    if (sizeOf(x.shape) !== sizeOf(shape)) throw new Error(`[${x.shape}] cannot be [${shape}]`);
    return this.#emit(`stablehlo.reshape ${x} : (${typeOf(x)}) -> ${tensor(shape, x.type)}`, shape, x.type);
  }

  transpose(x: Value, order: readonly number[]): Value {
    const shape = order.map((axis) => x.shape[axis]!);
    return this.#emit(
      `stablehlo.transpose ${x}, dims = [${order.join(", ")}] : (${typeOf(x)}) -> ${tensor(shape, x.type)}`,
      shape,
      x.type,
    );
  }

  /** @param ranges [from, to) of the first axes; the others stay whole */
  slice(x: Value, ranges: readonly (readonly [number, number])[]): Value {
    const all = x.shape.map((size, i) => ranges[i] ?? ([0, size] as const));
    const shape = all.map(([from, to]) => to - from);
    if (shape.every((size, i) => size === x.shape[i])) return x;
    const text = `stablehlo.slice ${x} [${all.map(([from, to]) => `${from}:${to}`).join(", ")}] : (${typeOf(x)}) -> ${tensor(shape, x.type)}`;
    return this.#emit(text, shape, x.type);
  }

  concatenate(parts: readonly Value[], axis: number): Value {
    const first = parts[0]!;
    if (parts.length === 1) return first;
    const shape = first.shape.with(
      axis,
      parts.reduce((sum, part) => sum + part.shape[axis]!, 0),
    );
    const text = `stablehlo.concatenate ${parts.join(", ")}, dim = ${axis} : (${parts.map(typeOf).join(", ")}) -> ${tensor(shape, first.type)}`;
    return this.#emit(text, shape, first.type);
  }

  /** Zeros after the end of axis 0. */
  pad(x: Value, count: number): Value {
    const shape = x.shape.with(0, count);
    const zeros = x.shape.map(() => 0);
    const zero = this.constant(0, [], x.type);
    const text = `stablehlo.pad ${x}, ${zero}, low = [${zeros.join(", ")}], high = [${zeros.with(0, count - x.length).join(", ")}], interior = [${zeros.join(", ")}] : (${typeOf(x)}, ${typeOf(zero)}) -> ${tensor(shape, x.type)}`;
    return this.#emit(text, shape, x.type);
  }

  /** Sum or largest over an axis, which goes. */
  reduce(name: "add" | "maximum", x: Value, axis: number): Value {
    const shape = x.shape.toSpliced(axis, 1);
    const start = this.constant(name === "add" ? 0 : Number.NEGATIVE_INFINITY, [], x.type);
    const text = `stablehlo.reduce(${x} init: ${start}) applies stablehlo.${name} across dimensions = [${axis}] : (${typeOf(x)}, ${typeOf(start)}) -> ${tensor(shape, x.type)}`;
    return this.#emit(text, shape, x.type);
  }

  /**
   * Of each row of x (N, V): its largest element m, the sum of exp(x - m), and the sum of `also` (N, V), in one reading.
   * Milakov & Gimelshein 2018, arXiv:1805.02867.
   */
  softmaxSums(x: Value, also: Value): [m: Value, sum: Value, also: Value] {
    const inputs = [x, this.constant(1, x.shape), also];
    const starts = [this.constant(-1e30), this.constant(0), this.constant(0)];
    const name = `%${this.#names++}`;
    const scalar = tensor([], "f32");
    const args = ["m1", "s1", "a1", "m2", "s2", "a2"].map((arg) => `%${arg}: ${scalar}`);
    const rows = inputs.map(() => tensor([x.length], "f32"));
    const choose = (a: string, b: string) => `stablehlo.select %first, ${a}, ${b} : tensor<i1>, ${scalar}`;
    this.#lines.push(
      `${name}:3 = "stablehlo.reduce"(${[...inputs, ...starts].join(", ")}) ({ ^bb0(${args.join(", ")}):`,
      `%first = stablehlo.compare GE, %m1, %m2 : (${scalar}, ${scalar}) -> tensor<i1>`,
      `%m = ${choose("%m1", "%m2")}`,
      `%lower = ${choose("%m2", "%m1")}`,
      `%s = ${choose("%s1", "%s2")}`,
      `%lesser = ${choose("%s2", "%s1")}`,
      `%distance = stablehlo.subtract %lower, %m : ${scalar}`,
      `%factor = stablehlo.exponential %distance : ${scalar}`,
      `%scaled = stablehlo.multiply %lesser, %factor : ${scalar}`,
      `%sum = stablehlo.add %s, %scaled : ${scalar}`,
      `%also = stablehlo.add %a1, %a2 : ${scalar}`,
      `stablehlo.return %m, %sum, %also : ${scalar}, ${scalar}, ${scalar} }) {dimensions = array<i64: 1>} : (${[...inputs, ...starts].map(typeOf).join(", ")}) -> (${rows.join(", ")})`,
    );
    return [0, 1, 2].map((i) => new Value(this, `${name}#${i}`, [x.length], "f32")) as [Value, Value, Value];
  }

  /**
   * Products summed over one axis of each; batch axes are those of both that stand at the same place in `batch`.
   * The result has the batch axes, the rest of a, the rest of b.
   * @param precision of float32 values
   * @param type of the result; the sums are float32
   */
  dot(
    a: Value,
    b: Value,
    contract: [number, number],
    batch: readonly [number, number][] = [],
    precision: Exclude<Precision, "bf16"> = "float32",
    type: "f32" | "bf16" = "f32",
  ): Value {
    const list = (side: 0 | 1) => batch.map((pair) => pair[side]);
    const rest = (x: Value, side: 0 | 1) => x.shape.filter((_, i) => i !== contract[side] && !list(side).includes(i));
    const shape = [...list(0).map((axis) => a.shape[axis]!), ...rest(a, 0), ...rest(b, 1)];
    const batching = batch.length > 0 ? `, batching_dims = [${list(0).join(", ")}] x [${list(1).join(", ")}]` : "";
    const how = a.type === "f32" ? `, ${float32Products[precision]}` : "";
    const text = `stablehlo.dot_general ${a}, ${b}${batching}, contracting_dims = [${contract[0]}] x [${contract[1]}]${how} : (${typeOf(a)}, ${typeOf(b)}) -> ${tensor(shape, type)}`;
    return this.#emit(text, shape, type);
  }

  /** Rows of table (V, ...) by ids (N). */
  gather(table: Value, ids: Value): Value {
    const shape = [ids.length, ...table.shape.slice(1)];
    const offsets = shape.slice(1).map((_, i) => i + 1);
    const text =
      `"stablehlo.gather"(${table}, ${ids}) {dimension_numbers = #stablehlo.gather<offset_dims = [${offsets.join(", ")}], ` +
      "collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, " +
      `slice_sizes = array<i64: ${[1, ...shape.slice(1)].join(", ")}>} : (${typeOf(table)}, ${typeOf(ids)}) -> ${tensor(shape, table.type)}`;
    return this.#emit(text, shape, table.type);
  }

  /** (V, C) of zeros with the rows of x (N, C) put where `ids` (N), all different, say; ids beyond V are left out. */
  scatter(x: Value, ids: Value, V: number): Value {
    const zeros = this.constant(0, [V, x.shape[1]!], x.type);
    const scalar = tensor([], x.type);
    const text =
      `"stablehlo.scatter"(${zeros}, ${ids}, ${x}) ({ ^bb0(%left: ${scalar}, %right: ${scalar}): ` +
      `stablehlo.return %right : ${scalar} }) ` +
      "{scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1], inserted_window_dims = [0], " +
      "scatter_dims_to_operand_dims = [0], index_vector_dim = 1>, unique_indices = true} " +
      `: (${typeOf(zeros)}, ${typeOf(ids)}, ${typeOf(x)}) -> ${typeOf(zeros)}`;
    return this.#emit(text, zeros.shape, x.type);
  }

  /** Keys (N) in ascending order, those that are equal as they were, and where each one stood. */
  sort(keys: Value): [Value, Value] {
    const places = this.iota(keys.shape, 0, keys.type);
    const scalar = tensor([], keys.type);
    const name = `%${this.#names++}`;
    const types = `${typeOf(keys)}, ${typeOf(places)}`;
    this.#lines.push(
      `${name}:2 = "stablehlo.sort"(${keys}, ${places}) ({ ^bb0(%a: ${scalar}, %b: ${scalar}, %c: ${scalar}, %d: ${scalar}): ` +
        `%less = stablehlo.compare LT, %a, %b : (${scalar}, ${scalar}) -> tensor<i1> ` +
        `stablehlo.return %less : tensor<i1> }) {dimension = 0 : i64, is_stable = true} : (${types}) -> (${types})`,
    );
    return [0, 1].map((i) => new Value(this, `${name}#${i}`, keys.shape, keys.type)) as [Value, Value];
  }

  /** x with its rows `count` further down, zeros before them. */
  shiftDown(x: Value, count: number): Value {
    const zeros = x.shape.map(() => 0);
    const zero = this.constant(0, [], x.type);
    const text = `stablehlo.pad ${x}, ${zero}, low = [${zeros.with(0, count).join(", ")}], high = [${zeros.with(0, -count).join(", ")}], interior = [${zeros.join(", ")}] : (${typeOf(x)}, ${typeOf(zero)}) -> ${typeOf(x)}`;
    return this.#emit(text, x.shape, x.type);
  }

  /** Part of x whose first element stands at `at`, one index a dimension. */
  dynamicSlice(x: Value, at: readonly Value[], shape: readonly number[]): Value {
    const types = [typeOf(x), ...at.map(typeOf)].join(", ");
    const text = `stablehlo.dynamic_slice ${x}, ${at.join(", ")}, sizes = [${shape.join(", ")}] : (${types}) -> ${tensor(shape, x.type)}`;
    return this.#emit(text, shape, x.type);
  }

  /** x with `part` written over it from `at` on. */
  dynamicUpdate(x: Value, part: Value, at: readonly Value[]): Value {
    const types = [x, part, ...at].map(typeOf).join(", ");
    return this.#emit(
      `stablehlo.dynamic_update_slice ${[x, part, ...at].join(", ")} : (${types}) -> ${typeOf(x)}`,
      x.shape,
      x.type,
    );
  }

  /** Element i of x (n), as a scalar. */
  element(x: Value, i: number): Value {
    return this.reshape(this.slice(x, [[i, i + 1]]), []);
  }

  /** The same values, of which no compiler knows where they come from, and none before all are there. */
  barrier(...values: Value[]): Value[] {
    const name = `%${this.#names++}`;
    this.#lines.push(
      `${name}:${values.length} = stablehlo.optimization_barrier ${values.join(", ")} : ${values.map(typeOf).join(", ")}`,
    );
    return values.map(({ shape, type }, i) => new Value(this, `${name}#${i}`, shape, type));
  }

  /** A call of a library: `config` is its backend_config. @returns its results */
  customCall(
    target: string,
    args: readonly Value[],
    results: readonly { shape: readonly number[]; type: Type }[],
    attributes: string,
  ): Value[] {
    const name = `%${this.#names++}`;
    const types = results.map(({ shape, type }) => tensor(shape, type)).join(", ");
    this.#lines.push(
      `${name}:${results.length} = stablehlo.custom_call @${target}(${args.join(", ")}) {${attributes}} : (${args.map(typeOf).join(", ")}) -> (${types})`,
    );
    return results.map(
      ({ shape, type }, i) => new Value(this, results.length === 1 ? name : `${name}#${i}`, shape, type),
    );
  }

  /**
   * `body` for i = 0 to count - 1, each time on what it returned before.
   * @param fixed what the body reads and does not change
   * @returns the carried values after the last turn
   */
  loop(
    count: number,
    fixed: readonly Value[],
    carried: readonly Value[],
    body: (i: Value, fixed: Value[], carried: Value[]) => readonly Value[],
  ): Value[] {
    const start = [this.constant(0, [], "i32"), ...fixed, ...carried];
    const inside = start.map(({ shape, type }) => this.#name(shape, type));
    const types = start.map(typeOf).join(", ");
    const result = `%${this.#names++}`;
    this.#lines.push(
      `${result}:${start.length} = stablehlo.while(${inside.map((x, i) => `${x} = ${start[i]}`).join(", ")}) : ${types} cond {`,
    );
    const more = this.compare("LT", inside[0]!, this.constant(count, [], "i32"));
    this.#lines.push(`stablehlo.return ${more} : ${typeOf(more)} } do {`);
    const [i, ...rest] = inside as [Value, ...Value[]];
    const next = body(i, rest.slice(0, fixed.length), rest.slice(fixed.length));
    const one = this.binary("add", i, 1);
    this.#lines.push(`stablehlo.return ${[one, ...rest.slice(0, fixed.length), ...next].join(", ")} : ${types} }`);
    return carried.map(({ shape, type }, k) => new Value(this, `${result}#${1 + fixed.length + k}`, shape, type));
  }
}
