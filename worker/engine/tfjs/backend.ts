// Which tfjs backend computes, and what the engine asks of it. The model is written once, in ops.ts; a backend is its
// way to start, to move numbers in and out, and those operations that it does better than the portable ones.
import { EngineError } from "../../../shared/errors.ts";
import type { EngineOptions } from "../../engine.ts";
import type { Ops, Tensor } from "./ops.ts";
import { tensorflow, tensorflowGpu } from "./tensorflow.ts";
import { wasm } from "./wasm.ts";
import { webgpu } from "./webgpu.ts";

export type BackendName = Exclude<NonNullable<EngineOptions["backend"]>, "auto">;

/** A backend that runs. One a thread: tfjs keeps it in a global. */
export interface Backend {
  /** What decides the last bits, for Engine.arithmetic: "wasm float32". */
  readonly arithmetic: string;
  /** For people: "WebAssembly SIMD, 1 thread". */
  readonly device: string;
  readonly ops: Ops;
  /** Bytes that are free now; the engine refuses to start when its plan is above, unless told another limit. */
  readonly memoryLimitBytes: number;
  /** Bytes that can be addressed at all, whatever limit was asked for. */
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

/** A backend that may or may not run here. */
export interface BackendKind {
  readonly name: BackendName;
  readonly gpu: boolean;
  /** An automatic choice passes it over. */
  readonly byNameOnly?: boolean;
  /** `why` is a full sentence either way, with the cure when it cannot. */
  probe(options: EngineOptions): Promise<{ usable: boolean; why: string }>;
  open(options: EngineOptions): Promise<Backend>;
}

/** The fastest first. */
const kinds: readonly BackendKind[] = [tensorflowGpu, webgpu, tensorflow, wasm];

/** The first usable backend that the options allow. `why` names what was passed over and the reason. */
export async function chooseBackend(options: EngineOptions): Promise<{ kind?: BackendKind; why: string }> {
  const asked = options.backend ?? "auto";
  const allowed = kinds.filter(
    (kind) =>
      (asked === "auto" ? !kind.byNameOnly : kind.name === asked) &&
      (options.device === "auto" || (options.device === "gpu") === kind.gpu),
  );
  const reasons: string[] = [];
  for (const kind of allowed) {
    const { usable, why } = await kind.probe(options);
    reasons.push(why);
    if (usable) return { kind, why: reasons.join("; ") };
  }
  const known = kinds.map((kind) => `${kind.name} (${kind.gpu ? "gpu" : "cpu"})`).join(", ");
  return { why: reasons.join("; ") || `no tfjs backend ${asked} for device ${options.device}; there are ${known}` };
}

/** @throws EngineError where none that the options allow is usable */
export async function openBackend(options: EngineOptions): Promise<Backend> {
  const { kind, why } = await chooseBackend(options);
  if (!kind) throw new EngineError(`engine tfjs: ${why}`);
  return await kind.open(options);
}
