// The heap of tfjs's WebAssembly backend, where its tensors lie: kernels written as JavaScript loops work on views of
// it. A view dies when the heap grows, so make every output before taking the first view.
import * as tf from "@tensorflow/tfjs-core";
import { EngineError } from "../../../shared/errors.ts";
import type { Tensor } from "./ops.ts";

/** WebAssembly has 32-bit addresses; the last page is never handed out. */
export const heapEnd = 2 ** 32 - 65_536;

/** The part of tfjs's BackendWasm that is used here. */
interface BackendWasm {
  readonly wasm: {
    readonly HEAPU8: Uint8Array;
    readonly HEAP32: Int32Array;
    _malloc(bytes: number): number;
    cwrap(name: string, returns: null, args: readonly "number"[]): (...args: number[]) => void;
    readonly tfjs: {
      registerTensor(id: number, size: number, address: number): void;
      disposeData(id: number): void;
    };
  };
  readonly dataIdMap: { get(dataId: object): { readonly id: number; readonly memoryOffset: number } };
  makeOutput(shape: number[], dtype: "float32"): tf.TensorInfo;
  dataIdNextNumber: number;
}

export class WasmHeap {
  readonly #backend: BackendWasm;
  readonly #shapes: number;

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
    this.#shapes = wasm._malloc(24) >>> 0;
  }

  get bytes(): number {
    return this.#backend.wasm.HEAPU8.length;
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

  /** The number under which the compiled kernels know a tensor. */
  id(tensor: Tensor): number {
    return this.#backend.dataIdMap.get(tensor.dataId).id;
  }

  /** A compiled kernel by its exported name, taking numbers. */
  kernel(name: string, args: number): (...args: number[]) => void {
    return this.#backend.wasm.cwrap(name, null, new Array<"number">(args).fill("number"));
  }

  /** A fresh number for `alias`. */
  newId(): number {
    return this.#backend.dataIdNextNumber++;
  }

  /** Let the compiled kernels see `floats` numbers at `address` as tensor `id`. Undone by `forget`. */
  alias(id: number, floats: number, address: number): void {
    this.#backend.wasm.tfjs.registerTensor(id, floats, address);
  }

  /** End an alias and free what kernels cached under its number; the memory itself stays. */
  forget(id: number): void {
    this.#backend.wasm.tfjs.disposeData(id);
  }

  /** Addresses of the two shapes (1, M, K) and (1, K, N), valid until the next call. */
  shapes(M: number, K: number, N: number): [number, number] {
    this.#backend.wasm.HEAP32.set([1, M, K, 1, K, N], this.#shapes >>> 2);
    return [this.#shapes, this.#shapes + 12];
  }
}
