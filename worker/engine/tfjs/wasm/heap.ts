// The heap of tfjs's WebAssembly backend, where its tensors lie: kernels written as JavaScript loops work on views of
// it. A view dies when the heap grows, so make every output before taking the first view.
import * as tf from "@tensorflow/tfjs-core";
import { EngineError } from "../../../../shared/errors.ts";
import type { Tensor } from "../ops.ts";
import { heapEnd } from "../plan.ts";

/** The part of tfjs's BackendWasm that is used here. */
interface BackendWasm {
  readonly wasm: {
    readonly HEAPU8: Uint8Array;
    /** The module's exports, under whatever names its build gave them. */
    readonly asm: Readonly<Record<string, unknown>>;
    _malloc(bytes: number): number;
  };
  readonly dataIdMap: { get(dataId: object): { readonly memoryOffset: number } };
  makeOutput(shape: number[], dtype: "float32"): tf.TensorInfo;
}

export class WasmHeap {
  readonly #backend: BackendWasm;

  /** @param backend what tf.backend() returned while "wasm" was active */
  constructor(backend: unknown) {
    this.#backend = backend as BackendWasm;
    const { wasm } = this.#backend;
    const malloc = wasm._malloc.bind(wasm);
    // A full heap answers 0, and tfjs would go on and write there.
    wasm._malloc = (bytes) => {
      const address = bytes < heapEnd ? malloc(bytes) : 0;
      if (address === 0 && bytes > 0)
        throw new EngineError(
          `tfjs wasm: ${bytes.toLocaleString("en")} bytes more do not fit the heap of ` +
            `${wasm.HEAPU8.length.toLocaleString("en")} (it ends at 4 GB); use fewer rows or --checkpoint-activations`,
        );
      return address;
    };
  }

  get bytes(): number {
    return this.#backend.wasm.HEAPU8.length;
  }

  /** The WebAssembly.Memory itself. */
  get memory(): object {
    const memory = Object.values(this.#backend.wasm.asm).find(
      (value) => String(value) === "[object WebAssembly.Memory]",
    );
    if (!memory) throw new Error("tfjs's WebAssembly module exports no memory");
    return memory;
  }

  /** Memory that is never given back. @returns its address */
  reserve(bytes: number): number {
    return this.#backend.wasm._malloc(bytes) >>> 0;
  }

  /** A tensor with whatever the memory held before. */
  empty(shape: readonly number[]): Tensor {
    return tf.engine().makeTensorFromTensorInfo(this.#backend.makeOutput([...shape], "float32")) as Tensor;
  }

  /** The numbers of a float32 tensor, in place, until the heap grows. */
  floats(tensor: Tensor): Float32Array {
    return new Float32Array(this.#backend.wasm.HEAPU8.buffer, this.address(tensor), tensor.size);
  }

  /** Byte position of a tensor's numbers: it does not move while the tensor lives. */
  address(tensor: Tensor): number {
    return this.#backend.dataIdMap.get(tensor.dataId).memoryOffset;
  }
}
