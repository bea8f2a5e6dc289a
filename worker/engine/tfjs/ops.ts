// The operations of the models (model/ops.ts), each in tfjs-core operations that every backend has. A backend replaces
// those that it does faster or better (wasm/ops.ts). Nothing here uses tfjs's automatic differentiation: tfjs-core
// registers no gradients in plain Node, and its tape would hold every temporary of a step.
//
// Temporaries belong to the caller's scope. Ids travel as host arrays.
import * as tf from "@tensorflow/tfjs-core";
import type { Heads, Ops } from "../model/ops.ts";
import { headSlice } from "./plan.ts";

export type Tensor = tf.Tensor;
export type TfjsOps = Ops<Tensor, Int32Array>;

/** tf.tidy for records of any depth. */
export const scope = tf.tidy as unknown as <T>(run: () => T) => T;
export const free = tf.dispose as unknown as (tensors: unknown) => void;

const int32 = (ids: Int32Array): Tensor => tf.tensor1d(ids, "int32");

/** (N, P * C) -> (P * B * H, T, D): part, sequence and head first. */
export function splitHeads(x: Tensor, parts: number, { B, T, H, D }: Heads): Tensor {
  return tf.reshape(tf.transpose(tf.reshape(x, [B, T, parts, H, D]), [2, 0, 3, 1, 4]), [parts * B * H, T, D]);
}

/** The inverse of `splitHeads`. */
export function mergeHeads(x: Tensor, parts: number, { B, T, H, D }: Heads): Tensor {
  return tf.reshape(tf.transpose(tf.reshape(x, [parts, B, H, T, D]), [1, 3, 0, 2, 4]), [B * T, parts * H * D]);
}

/** (T, S): 0 where query t, which stands at S - T + t, may look, and very low where it may not. */
export function causalBias(T: number, S: number): Tensor {
  return scope(() => {
    const query = tf.reshape(tf.range(S - T, S), [T, 1]);
    return tf.mul(tf.cast(tf.less(query, tf.reshape(tf.range(0, S), [1, S])), "float32"), -1e30);
  });
}

export const portableOps: TfjsOps = {
  scope,
  free,
  reshape: (x, shape) => tf.reshape(x, [...shape]),
  rows: (x, from, count) => tf.slice(x, [from, 0], [count, x.shape[1]!]),
  stack: (parts) => (parts.length === 1 ? parts[0]! : tf.concat([...parts], 0)),
  padRows: (x, count) =>
    tf.pad(x, [
      [0, count - x.shape[0]!],
      [0, 0],
    ]),
  after: (x) => x,
  headRows: (V) => Math.max(1, Math.floor(headSlice / V)),

  stored: (x) => x,
  forProducts: (x) => x,

  weightGradient(x, dy) {
    return this.matMul(x, dy, true, false);
  },

  padVocabulary: (table) => table,

  logits(x, table) {
    return this.matMul(x, table, false, true);
  },

  matMul: (a, b, transposeA, transposeB) => tf.matMul(a, b, transposeA, transposeB),

  linear(x, weight, bias) {
    const y = this.matMul(x, weight, false, false);
    return bias ? tf.add(y, bias) : y;
  },

  add: (a, b) => tf.add(a, b),
  mul: (a, b) => tf.mul(a, b),
  columnSum: (x) => tf.sum(x, 0),

  layerNorm(x, weight, bias, eps) {
    const centred = tf.sub(x, tf.mean(x, 1, true));
    const rstd = tf.rsqrt(tf.add(tf.mean(tf.square(centred), 1, true), eps));
    const normed = tf.mul(centred, rstd);
    const scaled = tf.mul(normed, weight);
    return { y: bias ? tf.add(scaled, bias) : scaled, saved: [normed, rstd] };
  },

  layerNormBackward(dy, saved, weight) {
    const [normed, rstd] = saved as [Tensor, Tensor];
    const dNormed = tf.mul(dy, weight);
    const along = tf.mean(tf.mul(dNormed, normed), 1, true);
    const inner = tf.sub(tf.sub(dNormed, tf.mean(dNormed, 1, true)), tf.mul(normed, along));
    return { dx: tf.mul(inner, rstd), dWeight: this.columnSum(tf.mul(dy, normed)), dBias: this.columnSum(dy) };
  },

  gelu(x, activation) {
    if (activation === "gelu") {
      const phi = tf.mul(tf.add(tf.erf(tf.mul(x, Math.SQRT1_2)), 1), 0.5);
      const density = tf.mul(tf.exp(tf.mul(tf.square(x), -0.5)), 1 / Math.sqrt(2 * Math.PI));
      return { y: tf.mul(x, phi), slope: tf.add(phi, tf.mul(x, density)) };
    }
    // 0.5 x (1 + tanh(u)) = x sigmoid(2u), 2u = a x + b x^3: the sigmoid is the cheaper of the two everywhere.
    const a = 2 * Math.sqrt(2 / Math.PI);
    const b = 0.044715 * a;
    const square = tf.square(x);
    const gate = tf.sigmoid(tf.mul(x, tf.add(tf.mul(square, b), a)));
    const steepness = tf.mul(tf.mul(x, tf.sub(1, gate)), tf.add(tf.mul(square, 3 * b), a));
    return { y: tf.mul(x, gate), slope: tf.mul(gate, tf.add(steepness, 1)) };
  },

  attention(qkv, heads, mask) {
    const [q, k, v] = tf.split(splitHeads(qkv, 3, heads), 3) as [Tensor, Tensor, Tensor];
    const scores = tf.mul(this.matMul(q, k, false, true), 1 / Math.sqrt(heads.D));
    const probabilities = tf.softmax(tf.add(scores, causalBias(heads.T, heads.T)));
    const dropped = mask ? tf.mul(probabilities, mask) : probabilities;
    const y = mergeHeads(this.matMul(dropped, v, false, false), 1, heads);
    return { y, saved: { q, k, v, probabilities, dropped } };
  },

  attentionBackward(dy, saved, heads) {
    const { q, k, v, probabilities, dropped } = saved as Record<"q" | "k" | "v" | "probabilities" | "dropped", Tensor>;
    const dOut = splitHeads(dy, 1, heads);
    const dV = this.matMul(dropped, dOut, true, false);
    // With p the probabilities, m the mask and g the gradient of p m: dp = g m, so p dp = (p m) g needs no mask.
    const flow = tf.mul(dropped, this.matMul(dOut, v, false, true));
    const dScores = tf.sub(flow, tf.mul(probabilities, tf.sum(flow, -1, true)));
    const scaled = tf.mul(dScores, 1 / Math.sqrt(heads.D));
    const dQ = this.matMul(scaled, k, false, false);
    const dK = this.matMul(scaled, q, true, false);
    return mergeHeads(tf.concat([dQ, dK, dV], 0), 3, heads);
  },

  crossEntropy(logits, targets, scale) {
    const [N, V] = logits.shape as [number, number];
    const at = int32(targets.map((target, n) => n * V + target));
    const shifted = tf.sub(logits, tf.max(logits, 1, true));
    logits.dispose();
    const exps = tf.exp(shifted);
    const sums = tf.sum(exps, 1, true);
    const losses = tf.sub(tf.reshape(tf.log(sums), [N]), tf.gather(tf.reshape(shifted, [N * V]), at));
    const ones = tf.scatterND(tf.reshape(at, [N, 1]), tf.fill([N], scale), [N * V]);
    const dLogits = tf.sub(tf.mul(exps, tf.div(scale, sums)), tf.reshape(ones, [N, V]));
    return { losses, dLogits };
  },

  gather: (table, ids) => tf.gather(table, int32(ids)),
  scatterAdd: (x, ids, V) => tf.unsortedSegmentSum(x, int32(ids) as tf.Tensor1D, V),
};
