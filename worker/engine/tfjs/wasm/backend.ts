// tfjs's WebAssembly backend: everywhere Node runs, one thread, float32.
import { createRequire } from "node:module";
import { dirname, sep } from "node:path";
import * as tf from "@tensorflow/tfjs-core";
import { EngineError } from "../../../../shared/errors.ts";
import type { BackendKind } from "../backend.ts";
import { heapEnd, WasmHeap } from "./heap.ts";
import { wasmOps } from "./ops.ts";

export const wasm: BackendKind = {
  name: "wasm",
  gpu: false,

  async probe({ precision }) {
    return precision === "float32"
      ? { usable: true, why: "tfjs wasm: WebAssembly SIMD, one thread, float32" }
      : { usable: false, why: `tfjs wasm: computes in float32 only; pass --precision float32 instead of ${precision}` };
  },

  async open() {
    const { setWasmPaths } = await import("@tensorflow/tfjs-backend-wasm");
    setWasmPaths(dirname(createRequire(import.meta.url).resolve("@tensorflow/tfjs-backend-wasm")) + sep);
    if (!(await tf.setBackend("wasm"))) throw new EngineError("tfjs wasm: the WebAssembly module did not start");
    const heap = heapOf(tf.backend());
    return {
      arithmetic: "wasm float32",
      device: "WebAssembly SIMD, 1 thread",
      ops: wasmOps(heap),
      // An eighth for fragmentation and for what the estimate leaves out (test/worker/engine/plan.test.ts).
      addressableBytes: 0.875 * heapEnd,
      memoryLimitBytes: process.availableMemory(),
      productBytes: () => 0,
      upload: (values, shape) => tf.tensor(values, [...shape], "float32"),
      take(tensor, out) {
        out.set(heap.floats(tensor));
        tensor.dispose();
        return undefined;
      },
    };
  },
};

const heaps = new WeakMap<object, WasmHeap>();

/** tfjs has one wasm heap a thread, whatever the number of engines. */
function heapOf(backend: object): WasmHeap {
  const known = heaps.get(backend);
  if (known) return known;
  const heap = new WasmHeap(backend);
  heaps.set(backend, heap);
  return heap;
}
