// The models' operations (model/ops.ts) as values of a program: whoever calls the model with these writes it down in
// StableHLO. Fusing, scheduling and memory are XLA's affair, so that everything here is said in the plainest way.
import type { ModelConfig, Precision } from "../../../shared/model.ts";
import type { Heads, Ops } from "../model/ops.ts";
import { fusedAttention, fusedAttentionBackward, isFusable } from "./fused-attention.ts";
import type { Program, Value } from "./program.ts";

/** Most logits that exist at once: every further slice reads and writes the head's whole gradient. */
const headSlice = { cpu: 2 ** 26, gpu: 2 ** 28 };

/** On GPUs rows of logits over a large vocabulary fall into parts that kernels read in whole vectors. */
const [large, alignment] = [2 ** 12, 512];

export interface Lowering {
  readonly precision: Precision;
  /** For an NVIDIA GPU: attention by cuDNN where it can be. */
  readonly gpu: boolean;
  readonly model: Pick<ModelConfig, "vocabSize">;
}

/** Products of these inputs, as float32. */
export function productsOf(p: Program, precision: Precision): Program["dot"] {
  if (precision === "bf16") return (a, b, ...rest) => p.dot(p.convert(a, "bf16"), p.convert(b, "bf16"), ...rest);
  return (a, b, axes, batch = []) => p.dot(a, b, axes, batch, precision);
}

/** @param p the program that is being written */
export function symbolicOps(p: Program, { precision, gpu, model: { vocabSize } }: Lowering): Ops<Value, Value> {
  /** Activations may come in bf16; all but products and copies is float32. */
  const wide = <X extends Value | number>(x: X) =>
    (typeof x !== "number" && x.type === "bf16" ? p.convert(x, "f32") : x) as X;
  const add = (a: Value | number, b: Value | number) => p.binary("add", wide(a), wide(b));
  const sub = (a: Value | number, b: Value | number) => p.binary("subtract", wide(a), wide(b));
  const mul = (a: Value | number, b: Value | number) => p.binary("multiply", wide(a), wide(b));
  const div = (a: Value | number, b: Value | number) => p.binary("divide", wide(a), wide(b));
  /** (N, C) -> (N, 1) */
  const column = (x: Value) => p.reshape(x, [...x.shape, 1]);
  const rowSum = (x: Value) => column(p.reduce("add", wide(x), x.shape.length - 1));
  const rowMean = (x: Value) => div(rowSum(x), x.shape.at(-1)!);
  const product = productsOf(p, precision);
  const activation = (a: Value, b: Value, axes: [number, number], batch?: [number, number][]) =>
    product(a, b, axes, batch, undefined, precision === "bf16" ? "bf16" : "f32");

  /** What linear layers were made of. */
  const linears = new WeakMap<Value, readonly [x: Value, weight: Value, bias: Value | undefined]>();

  function linear(x: Value, weight: Value, bias: Value | undefined): Value {
    const rest = activation(x, weight, [1, 0]);
    const y = bias ? p.binary("add", rest, p.convert(bias, rest.type)) : rest;
    linears.set(y, [x, weight, bias]);
    return y;
  }

  /** Queries, keys and values (B, T, H, D) of (N, 3C), each a product of its own: cut out of one they would be copies. */
  function apart(qkv: Value, { B, T, H, D }: Heads): [Value, Value, Value] {
    const [x, weight, bias] = linears.get(qkv)!;
    return [0, 1, 2].map((i) => {
      const range = [i * H * D, (i + 1) * H * D] as const;
      const columns = p.slice(weight, [[0, weight.length], range]);
      return p.reshape(linear(x, columns, bias && p.slice(bias, [range])), [B, T, H, D]);
    }) as [Value, Value, Value];
  }

  /** Queries, keys and values (B, T, H, D) of (N, 3C). */
  function split(qkv: Value, { B, T, H, D }: Heads): [Value, Value, Value] {
    const parts = p.reshape(qkv, [B, T, 3, H, D]);
    return [0, 1, 2].map((i) =>
      p.reshape(
        p.slice(parts, [
          [0, B],
          [0, T],
          [i, i + 1],
        ]),
        [B, T, H, D],
      ),
    ) as [Value, Value, Value];
  }
  const heads: [number, number][] = [
    [0, 0],
    [2, 2],
  ];
  const squares: [number, number][] = [
    [0, 0],
    [1, 2],
  ];

  /**
   * Rows with equal ids brought together by a stable sort and added pair by pair over growing distances (a segmented
   * scan; Hillis & Steele 1986), the sum of each id then written once: one order, without atomics.
   */
  function scatterAdd(x: Value, ids: Value, V: number): Value {
    const N = ids.length;
    const [sorted, places] = p.sort(ids);
    let sums = p.gather(x, places);
    // Ids shifted by one, so that the zeros of a shift are nobody's.
    const marks = add(sorted, 1);
    for (let distance = 1; distance < N; distance *= 2) {
      const same = p.compare("EQ", marks, p.shiftDown(marks, distance));
      sums = add(sums, p.select(p.broadcast(column(same), sums.shape), p.shiftDown(sums, distance), 0));
    }
    const next = N === 1 ? p.constant(0, [1], "i32") : p.pad(p.slice(marks, [[1, N]]), N);
    const isLast = p.compare("NE", marks, next);
    const nowhere = add(p.iota([N], 0, "i32"), V);
    return p.scatter(sums, p.select(isLast, sorted, nowhere), V);
  }

  function normalize(x: Value, eps: number): [Value, Value] {
    const centred = sub(x, rowMean(x));
    const rstd = p.unary("rsqrt", add(rowMean(mul(centred, centred)), eps));
    return [mul(centred, rstd), rstd];
  }

  function normalizeBackward(dy: Value, [normed, rstd]: readonly Value[]): Value {
    const along = mul(normed!, rowMean(mul(dy, normed!)));
    return mul(sub(sub(dy, rowMean(dy)), along), rstd!);
  }

  /** For products what is normalized is stored in bf16; backward, x is there anyhow, and gives it and its deviation again. */
  const folding: Ops<Value, Value>["folding"] = {
    normalize(x, eps) {
      const saved = normalize(x, eps);
      return [p.convert(saved[0], "bf16"), ...saved];
    },
    normalizeBackward: (dy, [, ...saved]) => normalizeBackward(dy, saved),
    rowSum: (x) => p.reduce("add", x, 1),
  };

  /** Logits of which those of padding are far below all others: a bias, which the product before it takes in. */
  function withoutPadding(logits: Value): Value {
    const count = logits.shape[1]!;
    if (count === vocabSize) return logits;
    const isToken = p.compare("LT", p.iota([count], 0, "i32"), vocabSize);
    return p.binary("add", logits, p.convert(p.select(isToken, 0, -1e30), logits.type));
  }

  /** Whether cuBLASLt goes on with x before it is rounded: a linear layer's bf16 on an NVIDIA GPU, and not of few rows. */
  const isEpilogue = (x: Value): boolean => gpu && x.type === "bf16" && linears.has(x) && x.length >= 64;

  /** GELU by tanh in the words in which XLA finds it behind a product: there it becomes part of it, in float32. */
  function geluEpilogue(x: Value): Value {
    const times = (left: Value | number, right: Value) => p.binary("multiply", left, right);
    const cube = times(x, times(x, x));
    const u = times(Math.sqrt(2 / Math.PI), p.binary("add", x, times(0.044715, cube)));
    return times(x, times(0.5, p.binary("add", 1, p.unary("tanh", u))));
  }

  return {
    ...(precision === "bf16" && { folding }),
    scope: (run) => run(),
    free: () => {},
    reshape: (x, shape) => p.reshape(x, shape),
    rows: (x, from, count) => p.slice(x, [[from, from + count]]),
    stack: (parts) => p.concatenate(parts, 0),
    padRows: (x, count) => p.pad(x, count),
    after: (x, ready) => p.barrier(x, ready)[0]!,
    headRows: (V) => 2 ** Math.max(0, Math.floor(Math.log2(headSlice[gpu ? "gpu" : "cpu"] / V))),

    matMul(a, b, transposeA, transposeB) {
      const batch: [number, number][] = a.shape.length === 3 ? [[0, 0]] : [];
      const first = batch.length;
      const axes: [number, number] = [transposeA ? first : first + 1, transposeB ? first + 1 : first];
      return activation(a, b, axes, batch);
    },
    stored: (x) => p.barrier(x)[0]!,
    forProducts: (x) => p.convert(x, precision === "bf16" ? "bf16" : "f32"),
    weightGradient: (x, dy) => product(x, dy, [0, 0]),
    padVocabulary: (table) =>
      gpu && vocabSize >= large ? p.pad(table, alignment * Math.ceil(vocabSize / alignment)) : table,
    logits: (x, table) => product(x, table, [1, 1]),

    linear,

    add,
    mul,
    columnSum: (x) => p.reduce("add", wide(x), 0),

    layerNorm(x, weight, bias, eps) {
      const [normed, rstd] = normalize(x, eps);
      const scaled = mul(normed, weight);
      return { y: bias ? add(scaled, bias) : scaled, saved: [normed, rstd] };
    },

    layerNormBackward(dy, saved, weight) {
      const [normed] = saved as [Value];
      const dx = normalizeBackward(mul(dy, weight), saved);
      return { dx, dWeight: p.reduce("add", mul(dy, normed), 0), dBias: p.reduce("add", wide(dy), 0) };
    },

    gelu(x, activation) {
      if (activation === "gelu") {
        const phi = mul(add(p.erf(mul(x, Math.SQRT1_2)), 1), 0.5);
        const density = mul(p.unary("exponential", mul(mul(x, x), -0.5)), 1 / Math.sqrt(2 * Math.PI));
        return { y: mul(x, phi), slope: add(phi, mul(x, density)) };
      }
      // 0.5 x (1 + tanh(u)) = x sigmoid(2u), 2u = a x + b x^3.
      const a = 2 * Math.sqrt(2 / Math.PI);
      const b = 0.044715 * a;
      const square = mul(x, x);
      const gate = p.unary("logistic", mul(x, add(mul(square, b), a)));
      const steepness = mul(mul(x, sub(1, gate)), add(mul(square, 3 * b), a));
      return { y: isEpilogue(x) ? geluEpilogue(x) : mul(x, gate), slope: mul(gate, add(steepness, 1)) };
    },

    attention(qkv, shape, mask) {
      const { B, T, H, D } = shape;
      if (gpu && precision === "bf16" && !mask && isFusable(shape)) {
        const parts = apart(qkv, shape);
        const { y, statistics } = fusedAttention(p, parts, shape);
        const [q, k, v] = parts;
        return { y: p.reshape(y, [B * T, H * D]), saved: { q, k, v, statistics, y } };
      }
      const [q, k, v] = split(qkv, shape);
      const scores = mul(product(q, k, [3, 3], heads), 1 / Math.sqrt(D)); // (B, H, T, T)
      const seen = p.compare("GE", p.iota([T, T], 0, "i32"), p.iota([T, T], 1, "i32"));
      const visible = p.select(p.broadcast(seen, [B, H, T, T]), scores, -1e30);
      const exps = p.unary("exponential", sub(visible, column(p.reduce("maximum", visible, 3))));
      const probabilities = div(exps, rowSum(exps));
      const dropped = mask ? mul(probabilities, p.reshape(mask, [B, H, T, T])) : probabilities;
      const y = product(dropped, v, [3, 1], squares); // (B, H, T, D)
      return {
        y: p.reshape(p.transpose(y, [0, 2, 1, 3]), [B * T, H * D]),
        saved: { q, k, v, probabilities, dropped },
      };
    },

    attentionBackward(dy, saved, shape) {
      const { B, T, H, D } = shape;
      if (saved.statistics) {
        const { q, k, v, statistics, y } = saved as Record<"q" | "k" | "v" | "statistics" | "y", Value>;
        const wanted = p.reshape(p.convert(dy, "bf16"), [B, T, H, D]);
        const parts = fusedAttentionBackward(p, wanted, { qkv: [q, k, v], statistics, y }, shape);
        const together = p.concatenate(
          parts.map((x) => p.reshape(x, [B, T, 1, H, D])),
          2,
        );
        return p.reshape(together, [B * T, 3 * H * D]);
      }
      const { q, k, v, probabilities, dropped } = saved as Record<"q" | "k" | "v" | "probabilities" | "dropped", Value>;
      const dOut = p.reshape(dy, [B, T, H, D]);
      const dV = product(dropped, dOut, [2, 1], squares); // (B, H, S, D)
      // With p the probabilities, m the mask and g the gradient of p m: dp = g m, so p dp = (p m) g needs no mask.
      const flow = mul(dropped, product(dOut, v, [3, 3], heads));
      const dScores = mul(sub(flow, mul(probabilities, rowSum(flow))), 1 / Math.sqrt(D));
      const dQ = product(dScores, k, [3, 1], squares);
      const dK = product(dScores, q, [2, 1], squares);
      const parts = [dQ, dK, dV].map((x) => p.reshape(p.transpose(x, [0, 2, 1, 3]), [B, T, 1, H, D]));
      return p.reshape(p.concatenate(parts, 2), [B * T, 3 * H * D]);
    },

    crossEntropy(logits, targets, scale) {
      const isTarget = p.compare("EQ", p.iota(logits.shape, 1, "i32"), column(targets));
      const x = wide(withoutPadding(logits));
      const [largest, sums, wanted] = p.softmaxSums(x, p.select(isTarget, x, 0));
      const logSums = add(largest, p.unary("log", sums));
      const losses = sub(logSums, wanted);
      // Probabilities as powers, not as quotients: V divisions a row cost more than all else here.
      const probabilities = p.unary("exponential", sub(x, column(logSums)));
      const dLogits = sub(mul(probabilities, scale), p.select(isTarget, scale, 0));
      return { losses, dLogits };
    },

    gather: (table, ids) => p.gather(table, ids),
    scatterAdd,
  };
}
