// The operations that are matrix products, on wasm: all through one kernel that takes any strides, so that nothing is
// transposed, and attention reads and writes each head in its place among the others. The half that the causal mask
// hides is skipped, stripe by stripe. Twins: ../ops.ts.
import type { Heads } from "../../model/ops.ts";
import { portableOps, type Tensor, type TfjsOps } from "../ops.ts";
import { compileGemm, type Matrix, scratchBytes } from "./gemm.ts";
import type { WasmHeap } from "./heap.ts";

/** Queries that are computed together, up to the last key that the last of them sees. */
const stripe = 32;

export function wasmProducts(heap: WasmHeap): Pick<TfjsOps, "matMul" | "linear" | "attention" | "attentionBackward"> {
  const gemm = compileGemm(heap.memory, heap.reserve(scratchBytes));

  /** Calls `each` with where (in floats) each head of each row begins: in (N, C), in (N, 3C), in (B*H, T, T). */
  function eachHead({ B, T, H, D }: Heads, each: (head: number, q: number, square: number) => void): void {
    for (let b = 0; b < B; b++)
      for (let h = 0; h < H; h++) each(b * T * H * D + h * D, b * T * 3 * H * D + h * D, (b * H + h) * T * T);
  }

  /** Calls `each` with the stripes of T queries: the first and how many. */
  function stripes(T: number, each: (from: number, count: number) => void): void {
    for (let from = 0; from < T; from += stripe) each(from, Math.min(stripe, T - from));
  }

  /** The matrix whose first element is number `first` at an address, its rows `width` floats apart. */
  const rows = (address: number, first: number, width: number): Matrix => ({
    address: address + 4 * first,
    row: width,
    column: 1,
  });
  /** The transpose of `rows`. */
  const columns = (address: number, first: number, width: number): Matrix => ({
    address: address + 4 * first,
    row: 1,
    column: width,
  });

  return {
    matMul(a, b, transposeA, transposeB) {
      const [aRows, aColumns] = a.shape.slice(-2) as [number, number];
      const [bRows, bColumns] = b.shape.slice(-2) as [number, number];
      const [M, K] = transposeA ? [aColumns, aRows] : [aRows, aColumns];
      const N = transposeB ? bRows : bColumns;
      const batch = a.rank === 2 ? 1 : a.shape[0]!;
      const y = heap.empty(a.rank === 2 ? [M, N] : [batch, M, N]);
      const [left, right, to] = [heap.address(a), heap.address(b), heap.address(y)];
      for (let i = 0; i < batch; i++) {
        const A = (transposeA ? columns : rows)(left, i * M * K, aColumns);
        const B = (transposeB ? columns : rows)(right, i * K * N, bColumns);
        gemm(M, N, K, A, B, rows(to, i * M * N, N), 0);
      }
      return y;
    },

    linear(x, weight, bias) {
      const [M, K] = x.shape as [number, number];
      const N = weight.shape[1]!;
      const y = heap.empty([M, N]);
      const [A, B, C] = [rows(heap.address(x), 0, K), rows(heap.address(weight), 0, N), rows(heap.address(y), 0, N)];
      gemm(M, N, K, A, B, C, bias ? heap.address(bias) : 0);
      return y;
    },

    attention(qkv, heads, mask) {
      const { B, T, H, D } = heads;
      const C = H * D;
      const probabilities = heap.empty([B * H, T, T]);
      const [from, p] = [heap.address(qkv), heap.address(probabilities)];
      eachHead(heads, (_, q, square) => {
        stripes(T, (t, count) => {
          const Q = rows(from, q + t * 3 * C, 3 * C);
          gemm(count, t + count, D, Q, columns(from, q + C, 3 * C), rows(p, square + t * T, T), 0);
        });
      });
      causalSoftmax(heap.floats(probabilities), heads);
      const dropped = mask ? portableOps.mul(probabilities, mask) : probabilities;
      const y = heap.empty([B * T, C]);
      const [d, to] = [heap.address(dropped), heap.address(y)];
      eachHead(heads, (head, q, square) => {
        stripes(T, (t, count) => {
          const V = rows(from, q + 2 * C, 3 * C);
          gemm(count, D, t + count, rows(d, square + t * T, T), V, rows(to, head + t * C, C), 0);
        });
      });
      return { y, saved: { qkv, probabilities, dropped } };
    },

    attentionBackward(dy, saved, heads) {
      const { qkv, probabilities, dropped } = saved as Record<"qkv" | "probabilities" | "dropped", Tensor>;
      const { B, T, H, D } = heads;
      const C = H * D;
      const dScores = heap.empty([B * H, T, T]);
      const dQkv = heap.empty([B * T, 3 * C]);
      const [from, d, s] = [heap.address(qkv), heap.address(dropped), heap.address(dScores)];
      const [out, to] = [heap.address(dy), heap.address(dQkv)];
      eachHead(heads, (head, q, square) => {
        stripes(T, (t, count) => {
          const V = columns(from, q + 2 * C, 3 * C);
          gemm(count, t + count, D, rows(out, head + t * C, C), V, rows(s, square + t * T, T), 0);
        });
      });
      causalSoftmaxBackward(heap.floats(dScores), heap.floats(probabilities), heap.floats(dropped), heads);
      eachHead(heads, (head, q, square) => {
        const [k, v] = [q + C, q + 2 * C];
        stripes(T, (t, count) => {
          const row = t * 3 * C;
          gemm(count, D, t + count, rows(s, square + t * T, T), rows(from, k, 3 * C), rows(to, q + row, 3 * C), 0);
          // Keys and values from t on are seen by queries from t on only.
          const seen = square + t * T + t;
          gemm(count, D, T - t, columns(s, seen, T), rows(from, q + row, 3 * C), rows(to, k + row, 3 * C), 0);
          gemm(count, D, T - t, columns(d, seen, T), rows(out, head + t * C, C), rows(to, v + row, 3 * C), 0);
        });
      });
      return dQkv;
    },
  };
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
