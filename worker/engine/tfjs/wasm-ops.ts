// Operations for which a plain loop over the wasm heap beats a chain of tfjs kernels, each of which would write a whole
// temporary tensor. Sums are accumulated in float64, which JavaScript computes in anyway. Twins: ops.ts.
import { geluExact } from "./normal.ts";
import type { Heads, Ops, Tensor } from "./ops.ts";
import { mergeHeads, portableOps, splitHeads } from "./ops.ts";
import type { WasmHeap } from "./wasm-heap.ts";
import { wasmMatMul } from "./wasm-matmul.ts";

export function wasmOps(heap: WasmHeap): Ops {
  const products = wasmMatMul(heap);
  return { ...portableOps, ...products, ...rowOps(heap), ...attentionOps(heap, products), ...vocabularyOps(heap) };
}

function rowOps(heap: WasmHeap): Pick<Ops, "columnSum" | "layerNorm" | "layerNormBackward" | "gelu"> {
  return {
    columnSum(x) {
      const C = x.shape[1]!;
      const y = heap.empty([C]);
      const from = heap.floats(x);
      const sums = new Float64Array(C);
      for (let i = 0; i < from.length; i += C) for (let c = 0; c < C; c++) sums[c]! += from[i + c]!;
      heap.floats(y).set(sums);
      return y;
    },

    layerNorm(x, weight, bias, eps) {
      const [N, C] = x.shape as [number, number];
      const y = heap.empty([N, C]);
      const normed = heap.empty([N, C]);
      const rstds = heap.empty([N]);
      const [from, to, unit, scales] = [x, y, normed, rstds].map((t) => heap.floats(t)) as Float32Array[];
      const gain = heap.floats(weight);
      const shift = bias ? heap.floats(bias) : new Float32Array(C);
      for (let n = 0, i = 0; n < N; n++, i += C) {
        let mean = 0;
        for (let c = 0; c < C; c++) mean += from![i + c]!;
        mean /= C;
        let variance = 0;
        for (let c = 0; c < C; c++) variance += (from![i + c]! - mean) ** 2;
        const rstd = 1 / Math.sqrt(variance / C + eps);
        scales![n] = rstd;
        for (let c = 0; c < C; c++) {
          const u = (from![i + c]! - mean) * rstd;
          unit![i + c] = u;
          to![i + c] = u * gain[c]! + shift[c]!;
        }
      }
      return { y, saved: [normed, rstds] };
    },

    layerNormBackward(dy, saved, weight) {
      const [N, C] = dy.shape as [number, number];
      const [dx, dWeight, dBias] = [heap.empty([N, C]), heap.empty([C]), heap.empty([C])];
      const [normed, rstds] = saved.map((t) => heap.floats(t)) as [Float32Array, Float32Array];
      const [from, to, gain] = [dy, dx, weight].map((t) => heap.floats(t)) as Float32Array[];
      const gainSums = new Float64Array(C);
      const biasSums = new Float64Array(C);
      for (let n = 0, i = 0; n < N; n++, i += C) {
        let mean = 0;
        let along = 0;
        for (let c = 0; c < C; c++) {
          const d = from![i + c]!;
          const u = normed[i + c]!;
          gainSums[c]! += d * u;
          biasSums[c]! += d;
          mean += d * gain![c]!;
          along += d * gain![c]! * u;
        }
        mean /= C;
        along /= C;
        const rstd = rstds[n]!;
        for (let c = 0; c < C; c++) to![i + c] = rstd * (from![i + c]! * gain![c]! - mean - normed[i + c]! * along);
      }
      heap.floats(dWeight).set(gainSums);
      heap.floats(dBias).set(biasSums);
      return { dx, dWeight, dBias };
    },

    gelu(x, activation) {
      if (activation !== "gelu") return portableOps.gelu(x, activation);
      const [y, slope] = [heap.empty(x.shape), heap.empty(x.shape)];
      geluExact(heap.floats(x), heap.floats(y), heap.floats(slope));
      return { y, slope };
    },
  };
}

function attentionOps(heap: WasmHeap, { matMul }: Pick<Ops, "matMul">): Pick<Ops, "attention" | "attentionBackward"> {
  return {
    attention(qkv, heads, mask) {
      const n = heads.B * heads.H;
      const split = splitHeads(qkv, 3, heads);
      const [q, k, v] = [0, 1, 2].map((part) => slab(part, split, [n, heads.T, heads.D])) as [Tensor, Tensor, Tensor];
      split.dispose();
      const probabilities = matMul(q, k, false, true);
      causalSoftmax(heap.floats(probabilities), heads);
      const dropped = mask ? portableOps.mul(probabilities, mask) : probabilities;
      const y = mergeHeads(matMul(dropped, v, false, false), 1, heads);
      return { y, saved: { q, k, v, probabilities, dropped } };
    },

    attentionBackward(dy, { q, k, v, probabilities, dropped }, heads) {
      const n = heads.B * heads.H;
      const dOut = splitHeads(dy, 1, heads);
      const dV = matMul(dropped, dOut, true, false);
      const dScores = matMul(dOut, v, false, true);
      causalSoftmaxBackward(heap.floats(dScores), heap.floats(probabilities), heap.floats(dropped), heads);
      const dQ = matMul(dScores, k, false, false);
      const dK = matMul(dScores, q, true, false);
      const joined = heap.empty([3 * n, heads.T, heads.D]);
      const to = heap.floats(joined);
      [dQ, dK, dV].forEach((part, i) => {
        to.set(heap.floats(part), i * part.size);
      });
      return mergeHeads(joined, 3, heads);
    },
  };

  /** The part-th of equal stretches of x, as a tensor of its own. */
  function slab(part: number, x: Tensor, shape: readonly number[]): Tensor {
    const y = heap.empty(shape);
    heap.floats(y).set(heap.floats(x).subarray(part * y.size, (part + 1) * y.size));
    return y;
  }
}

/** scores (n, T, T) become softmax(scores / sqrt(D)) over the keys up to the query's own place, 0 beyond. */
function causalSoftmax(scores: Float32Array, { T, D }: Heads): void {
  const scale = 1 / Math.sqrt(D);
  for (let start = 0, t = 0; start < scores.length; start += T, t = (t + 1) % T) {
    let max = Number.NEGATIVE_INFINITY;
    for (let s = start; s <= start + t; s++) max = Math.max(max, scores[s]!);
    let sum = 0;
    for (let s = start; s <= start + t; s++) {
      const e = Math.exp((scores[s]! - max) * scale);
      scores[s] = e;
      sum += e;
    }
    for (let s = start; s <= start + t; s++) scores[s]! /= sum;
    scores.fill(0, start + t + 1, start + T);
  }
}

/** d (n, T, T), the gradient of the dropped probabilities, becomes the gradient of the scores. See ops.ts. */
function causalSoftmaxBackward(d: Float32Array, p: Float32Array, dropped: Float32Array, { T, D }: Heads): void {
  const scale = 1 / Math.sqrt(D);
  for (let start = 0, t = 0; start < d.length; start += T, t = (t + 1) % T) {
    let sum = 0;
    for (let s = start; s <= start + t; s++) sum += dropped[s]! * d[s]!;
    for (let s = start; s <= start + t; s++) d[s] = scale * (dropped[s]! * d[s]! - p[s]! * sum);
    d.fill(0, start + t + 1, start + T);
  }
}

function vocabularyOps(heap: WasmHeap): Pick<Ops, "crossEntropy" | "scatterAdd"> {
  return {
    crossEntropy(logits, targets, scale) {
      const [N, V] = logits.shape as [number, number];
      const losses = heap.empty([N]);
      const [rows, out] = [heap.floats(logits), heap.floats(losses)];
      for (let n = 0, start = 0; n < N; n++, start += V) {
        const target = start + targets[n]!;
        let max = Number.NEGATIVE_INFINITY;
        for (let i = start; i < start + V; i++) max = Math.max(max, rows[i]!);
        const wanted = rows[target]! - max;
        let sum = 0;
        for (let i = start; i < start + V; i++) {
          const e = Math.exp(rows[i]! - max);
          rows[i] = e;
          sum += e;
        }
        out[n] = Math.log(sum) - wanted;
        for (let i = start; i < start + V; i++) rows[i]! *= scale / sum;
        rows[target]! -= scale;
      }
      return { losses, dLogits: logits };
    },

    scatterAdd(x, ids, V) {
      const C = x.shape[1]!;
      const y = heap.empty([V, C]);
      const [from, to] = [heap.floats(x), heap.floats(y)];
      to.fill(0);
      ids.forEach((id, n) => {
        for (let c = 0; c < C; c++) to[id * C + c]! += from[n * C + c]!;
      });
      return y;
    },
  };
}
