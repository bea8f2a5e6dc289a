// tfjs's WebAssembly backend: everywhere Node runs, one thread, float32.
import { createRequire } from "node:module";
import { dirname, sep } from "node:path";
import { EngineError } from "../../../../shared/errors.ts";
import type { BackendKind } from "../backend.ts";
import { heapEnd } from "../plan.ts";
import type { WasmHeap } from "./heap.ts";

/** An eighth is left for fragmentation and for what the estimate leaves out (test/worker/engine/plan.test.ts). */
const addressableBytes = 0.875 * heapEnd;

export const wasm: BackendKind = {
  name: "wasm",
  gpu: false,
  addressableBytes,

  async probe({ precision }) {
    return precision === "float32"
      ? { usable: true, why: "tfjs wasm: WebAssembly SIMD, one thread, float32" }
      : { usable: false, why: `tfjs wasm: computes in float32 only; pass --precision float32 instead of ${precision}` };
  },

  async open() {
    const [tf, { setWasmPaths }, { wasmOps }] = await Promise.all([
      import("@tensorflow/tfjs-core"),
      import("@tensorflow/tfjs-backend-wasm"),
      import("./ops.ts"),
    ]);
    setWasmPaths(dirname(createRequire(import.meta.url).resolve("@tensorflow/tfjs-backend-wasm")) + sep);
    if (!(await tf.setBackend("wasm"))) throw new EngineError("tfjs wasm: the WebAssembly module did not start");
    const heap = await heapOf(tf.backend());
    return {
      arithmetic: "wasm float32",
      device: "WebAssembly SIMD, 1 thread",
      ops: wasmOps(heap),
      addressableBytes,
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
async function heapOf(backend: object): Promise<WasmHeap> {
  const known = heaps.get(backend);
  if (known) return known;
  const { WasmHeap } = await import("./heap.ts");
  const heap = new WasmHeap(backend);
  heaps.set(backend, heap);
  return heap;
}
