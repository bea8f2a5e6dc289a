// Operations for which a plain loop over the wasm heap beats a chain of tfjs kernels, each of which would write a whole
// temporary tensor. Sums are accumulated in float64, which JavaScript computes in anyway. Twins: ../ops.ts.
import { portableOps, type TfjsOps } from "../ops.ts";
import type { WasmHeap } from "./heap.ts";
import { geluExact } from "./normal.ts";
import { wasmProducts } from "./products.ts";

export function wasmOps(heap: WasmHeap): TfjsOps {
  return { ...portableOps, ...wasmProducts(heap), ...rowOps(heap), ...vocabularyOps(heap) };
}

function rowOps(heap: WasmHeap): Pick<TfjsOps, "columnSum" | "layerNorm" | "layerNormBackward" | "gelu"> {
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

function vocabularyOps(heap: WasmHeap): Pick<TfjsOps, "crossEntropy" | "scatterAdd"> {
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
