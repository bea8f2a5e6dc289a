// Matrix products on wasm. tfjs reaches its fast kernel (XNNPACK, 20-30 GFLOP/s) only with batch 1 and no transposes;
// anything else runs at 1. So: explicit transposes, and one call a batch item on aliases into the batch's memory.
//
// XNNPACK keeps a packed copy of the second operand under its tensor's number, blind to later changes of the memory or
// the shape. An alias used for one call and forgotten leaves no such copy behind.
import * as tf from "@tensorflow/tfjs-core";
import type { Ops, Tensor } from "./ops.ts";
import type { WasmHeap } from "./wasm-heap.ts";

/** Below this many rows packing costs more than the product: then the packed copy is kept until the weight changes. */
const fewRows = 16;
const noActivation = 0;

export function wasmMatMul(heap: WasmHeap): Pick<Ops, "matMul" | "linear"> {
  const batchMatMul = heap.kernel("BatchMatMul", 9);
  const fusedMatMul = heap.kernel("_FusedMatMul", 13);
  const left = heap.newId();
  const right = heap.newId();
  const result = heap.newId();

  const swapped = (x: Tensor): Tensor => tf.transpose(x, x.rank === 2 ? [1, 0] : [0, 2, 1]);

  return {
    matMul(a0, b0, transposeA, transposeB) {
      const a = transposeA ? swapped(a0) : a0;
      const b = transposeB ? swapped(b0) : b0;
      const [M, K] = a.shape.slice(-2) as [number, number];
      const N = b.shape.at(-1)!;
      const batch = a.rank === 2 ? 1 : a.shape[0]!;
      const y = heap.empty(a.rank === 2 ? [M, N] : [batch, M, N]);
      const [aShape, bShape] = heap.shapes(M, K, N);
      for (let i = 0; i < batch; i++) {
        heap.alias(left, M * K, heap.address(a) + 4 * i * M * K);
        heap.alias(right, K * N, heap.address(b) + 4 * i * K * N);
        heap.alias(result, M * N, heap.address(y) + 4 * i * M * N);
        batchMatMul(left, aShape, 3, right, bShape, 3, 0, 0, result);
        heap.forget(left);
        heap.forget(right);
        heap.forget(result);
      }
      if (transposeA) a.dispose();
      if (transposeB) b.dispose();
      return y;
    },

    linear(x, weight, bias) {
      const [M, K] = x.shape as [number, number];
      const N = weight.shape[1]!;
      const y = heap.empty([M, N]);
      const [xShape, weightShape] = heap.shapes(M, K, N);
      const keepPacked = M < fewRows;
      const w = keepPacked ? heap.id(weight) : right;
      if (!keepPacked) heap.alias(right, K * N, heap.address(weight));
      // The bias is safe here: only with transposes or a batch does this kernel add it once per block of 48.
      if (bias)
        fusedMatMul(heap.id(x), xShape, 3, w, weightShape, 3, 0, 0, noActivation, heap.id(bias), 0, 0, heap.id(y));
      else batchMatMul(heap.id(x), xShape, 3, w, weightShape, 3, 0, 0, heap.id(y));
      if (!keepPacked) heap.forget(right);
      return y;
    },
  };
}
