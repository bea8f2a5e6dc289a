// What the tfjs engine asks of a backend. The model is written once, in engine/model/; a backend is its way to start,
// to move numbers in and out, and those operations that it does better than the portable ones.
import type { EngineOptions, Probed } from "../contract.ts";
import type { Tensor, TfjsOps } from "./ops.ts";

export type BackendName = Exclude<NonNullable<EngineOptions["backend"]>, "auto">;

/** A backend that runs. One a thread: tfjs keeps it in a global. */
export interface Backend {
  /** What decides the last bits, for Engine.arithmetic: "wasm float32". */
  readonly arithmetic: string;
  /** For people: "WebAssembly SIMD, 1 thread". */
  readonly device: string;
  readonly ops: TfjsOps;
  /** Bytes that are free now; the engine refuses to start when its plan is above, unless told another limit. */
  readonly memoryLimitBytes: number;
  /** As of its kind. */
  readonly addressableBytes?: number;
  /** Bytes of temporaries that one product with a weight of this many floats costs, beyond operands and result. */
  productBytes(weightFloats: number): number;
  /** A tensor with a copy of these values: tfjs may keep the array that it is given. */
  upload(values: Float32Array, shape: readonly number[]): Tensor;
  /**
   * Copy a tensor's values into `out` and dispose it, now or, where the device is asynchronous, by the promise. Called
   * inside a scope: a tensor that is read after it must be kept.
   */
  take(tensor: Tensor, out: Float32Array): Promise<void> | undefined;
}

/** A backend that may or may not run here. Nothing heavy is loaded before `open`. */
export interface BackendKind {
  readonly name: BackendName;
  readonly gpu: boolean;
  /** An automatic choice passes it over. */
  readonly byNameOnly?: boolean;
  /** Bytes that can be addressed at all, whatever limit was asked for. */
  readonly addressableBytes?: number;
  probe(options: EngineOptions): Promise<Probed>;
  open(options: EngineOptions): Promise<Backend>;
}
