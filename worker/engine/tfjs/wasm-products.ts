// The operations that are matrix products, on wasm: all through one kernel that takes any strides, so that nothing is
// transposed, and attention reads and writes each head in its place among the others. The half that the causal mask
// hides is skipped, stripe by stripe. Twins: ops.ts.
import type { Heads, Ops } from "./ops.ts";
import { portableOps } from "./ops.ts";
import { compileGemm, type Matrix, scratchBytes } from "./wasm-gemm.ts";
import type { WasmHeap } from "./wasm-heap.ts";

/** Queries that are computed together, up to the last key that the last of them sees. */
const stripe = 32;

export function wasmProducts(heap: WasmHeap): Pick<Ops, "matMul" | "linear" | "attention" | "attentionBackward"> {
  const gemm = compileGemm(heap.memory, heap.reserve(scratchBytes));

  /** Calls `each` with the addresses (in floats) of head h of row b: in (N, C), in (N, 3C), in (B*H, T, T). */
  function eachHead({ B, T, H, D }: Heads, each: (narrow: number, wide: number, square: number) => void): void {
    for (let b = 0; b < B; b++)
      for (let h = 0; h < H; h++) each(b * T * H * D + h * D, b * T * 3 * H * D + h * D, (b * H + h) * T * T);
  }

  /** Calls `each` with the stripes of T queries: the first and how many. */
  function stripes(T: number, each: (from: number, count: number) => void): void {
    for (let from = 0; from < T; from += stripe) each(from, Math.min(stripe, T - from));
  }

  return {
    matMul(a, b, transposeA, transposeB) {
      const [aRows, aColumns] = a.shape.slice(-2) as [number, number];
      const [bRows, bColumns] = b.shape.slice(-2) as [number, number];
      const [M, K] = transposeA ? [aColumns, aRows] : [aRows, aColumns];
      const N = transposeB ? bRows : bColumns;
      const batch = a.rank === 2 ? 1 : a.shape[0]!;
      const y = heap.empty(a.rank === 2 ? [M, N] : [batch, M, N]);
      const at = (address: number, width: number, transposed: boolean): Matrix =>
        transposed ? { address, row: 1, column: width } : { address, row: width, column: 1 };
      for (let i = 0; i < batch; i++)
        gemm(
          M,
          N,
          K,
          at(heap.address(a) + 4 * i * M * K, aColumns, transposeA),
          at(heap.address(b) + 4 * i * K * N, bColumns, transposeB),
          at(heap.address(y) + 4 * i * M * N, N, false),
          0,
        );
      return y;
    },

    linear(x, weight, bias) {
      const [M, K] = x.shape as [number, number];
      const N = weight.shape[1]!;
      const y = heap.empty([M, N]);
      gemm(
        M,
        N,
        K,
        { address: heap.address(x), row: K, column: 1 },
        { address: heap.address(weight), row: N, column: 1 },
        { address: heap.address(y), row: N, column: 1 },
        bias ? heap.address(bias) : 0,
      );
      return y;
    },

    attention(qkv, heads, mask) {
      const { B, T, H, D } = heads;
      const C = H * D;
      const probabilities = heap.empty([B * H, T, T]);
      const [from, p] = [heap.address(qkv), heap.address(probabilities)];
      eachHead(heads, (_, wide, square) => {
        const k = { address: from + 4 * (wide + C), row: 1, column: 3 * C };
        stripes(T, (t, count) => {
          const q = { address: from + 4 * (wide + t * 3 * C), row: 3 * C, column: 1 };
          gemm(count, t + count, D, q, k, { address: p + 4 * (square + t * T), row: T, column: 1 }, 0);
        });
      });
      causalSoftmax(heap.floats(probabilities), heads);
      const dropped = mask ? portableOps.mul(probabilities, mask) : probabilities;
      const y = heap.empty([B * T, C]);
      const [d, to] = [heap.address(dropped), heap.address(y)];
      eachHead(heads, (narrow, wide, square) => {
        const v = { address: from + 4 * (wide + 2 * C), row: 3 * C, column: 1 };
        stripes(T, (t, count) => {
          const weights = { address: d + 4 * (square + t * T), row: T, column: 1 };
          gemm(count, D, t + count, weights, v, { address: to + 4 * (narrow + t * C), row: C, column: 1 }, 0);
        });
      });
      return { y, saved: { qkv, probabilities, dropped } };
    },

    attentionBackward(dy, saved, heads) {
      const { qkv, probabilities, dropped } = saved as Record<"qkv" | "probabilities" | "dropped", typeof dy>;
      const { B, T, H, D } = heads;
      const C = H * D;
      const dScores = heap.empty([B * H, T, T]);
      const dQkv = heap.empty([B * T, 3 * C]);
      const [from, out, d, s, to] = [qkv, dy, dropped, dScores, dQkv].map((x) => heap.address(x)) as [
        number,
        number,
        number,
        number,
        number,
      ];
      /** Rows of a (N, C) or (N, 3C) matrix from query t of a head on, or its transpose. */
      const rows = (address: number, head: number, t: number, width: number): Matrix => ({
        address: address + 4 * (head + t * width),
        row: width,
        column: 1,
      });
      eachHead(heads, (narrow, wide, square) => {
        const vTransposed = { address: from + 4 * (wide + 2 * C), row: 1, column: 3 * C };
        stripes(T, (t, count) => {
          const dScore = { address: s + 4 * (square + t * T), row: T, column: 1 };
          gemm(count, t + count, D, rows(out, narrow, t, C), vTransposed, dScore, 0);
        });
      });
      causalSoftmaxBackward(heap.floats(dScores), heap.floats(probabilities), heap.floats(dropped), heads);
      eachHead(heads, (narrow, wide, square) => {
        const [q, k, v] = [wide, wide + C, wide + 2 * C] as const;
        stripes(T, (t, count) => {
          const scores = { address: s + 4 * (square + t * T), row: T, column: 1 };
          gemm(count, D, t + count, scores, rows(from, k, 0, 3 * C), rows(to, q, t, 3 * C), 0);
          // Keys and values t.. are seen by queries t.. only.
          const seenBy = (address: number): Matrix => ({
            address: address + 4 * (square + t * T + t),
            row: 1,
            column: T,
          });
          gemm(count, D, T - t, seenBy(s), rows(from, q, t, 3 * C), rows(to, k, t, 3 * C), 0);
          gemm(count, D, T - t, seenBy(d), rows(out, narrow, t, C), rows(to, v, t, 3 * C), 0);
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
