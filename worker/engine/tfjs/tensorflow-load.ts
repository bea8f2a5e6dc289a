// Brings @tensorflow/tfjs-node's addon and kernels into this process, once: TensorFlow reads its environment when it
// is loaded, and keeps its threads and its device until the process ends.
import { createRequire } from "node:module";
import { join } from "node:path";
import * as tf from "@tensorflow/tfjs-core";
import { EngineError, messageOf } from "../../../shared/errors.ts";
import type { Addon } from "../../install/build.ts";

/** What is used of the addon. Its C++ functions take and give tensors by id. */
export interface Binding {
  readonly TF_Version: string;
  readonly TF_FLOAT: number;
  readonly TF_INT32: number;
  readonly TF_ATTR_BOOL: number;
  readonly TF_ATTR_TYPE: number;
  isUsingGpuDevice(): boolean;
  executeOp(name: string, attributes: Attribute[], inputs: number[], outputs: number): TensorRecord[];
  deleteTensor(id: number): void;
}

export interface Attribute {
  readonly name: string;
  readonly type: number;
  readonly value: boolean | number;
}

export interface TensorRecord {
  readonly id: number;
  readonly shape: number[];
  readonly dtype: number;
}

/** What is used of tfjs-node's NodeJSKernelBackend. */
export interface NodeBackend extends tf.KernelBackend {
  readonly binding: Binding;
  getInputTensorIds(tensors: readonly tf.Tensor[]): number[];
  createOutputTensor(record: TensorRecord): tf.Tensor;
  executeMultipleOutputs(name: string, attributes: Attribute[], inputs: tf.Tensor[], outputs: number): tf.Tensor[];
  executeSingleOutput(name: string, attributes: Attribute[], inputs: tf.Tensor[]): tf.Tensor;
}

interface Wanted {
  readonly gpu: boolean;
  readonly threads: number;
}

export interface Loaded extends Wanted {
  readonly version: string;
  readonly usesGpu: boolean;
}

let loaded: (Loaded & { file: string }) | undefined;

/**
 * Make "tensorflow" the backend of this process's tfjs-core.
 * @throws EngineError when TensorFlow runs here already with other threads or another device, or does not load
 */
export function loadTensorflow(addon: Addon, wanted: Wanted): Loaded {
  if (!loaded) {
    loaded = { ...wanted, ...start(addon, wanted), file: addon.file };
  } else if (loaded.file !== addon.file || loaded.gpu !== wanted.gpu || loaded.threads !== wanted.threads) {
    throw new EngineError(
      `tfjs: TensorFlow runs in this process already (${loaded.gpu ? "GPU" : "CPU"}, ${loaded.threads} threads, ` +
        `${loaded.file}) and cannot start again with ${wanted.gpu ? "GPU" : "CPU"}, ${wanted.threads} threads; ` +
        "use a process for each",
    );
  }
  return loaded;
}

function start(addon: Addon, wanted: Wanted): Pick<Loaded, "version" | "usesGpu"> {
  setEnvironment(wanted);
  const require = createRequire(import.meta.url);
  restoreUtil(require("node:util") as Record<string, unknown>);
  // The builds of `weft install` have this in the place of tfjs-core; a copy of npm's must be ours.
  (globalThis as Record<symbol, unknown>)[Symbol.for("weft.tfjs-core")] = tf;
  try {
    const binding = withEngineErrors(require(addon.file) as Binding);
    const { NodeJSKernelBackend } = require(join(addon.package, "dist/nodejs_kernel_backend.js")) as {
      NodeJSKernelBackend: new (binding: Binding, name: string) => NodeBackend;
    };
    require(join(addon.package, "dist/register_all_kernels.js"));
    if (tf.getKernelsForBackend("tensorflow").length === 0) {
      throw new Error(`${addon.package} brings a tfjs-core of its own; run "npm dedupe"`);
    }
    tf.registerBackend("tensorflow", () => new NodeJSKernelBackend(binding, "@tensorflow/tfjs-node"));
    if (!tf.setBackend("tensorflow")) throw new Error("tfjs-core refused the backend");
    return { version: binding.TF_Version, usesGpu: binding.isUsingGpuDevice() };
  } catch (error) {
    throw new EngineError(`tfjs: TensorFlow did not start from ${addon.file}`, { cause: error });
  }
}

/** The addon, with what TensorFlow says of a failed operation, such as a full GPU, as an EngineError. */
function withEngineErrors(binding: Binding): Binding {
  const executeOp: Binding["executeOp"] = (name, attributes, inputs, outputs) => {
    try {
      return binding.executeOp(name, attributes, inputs, outputs);
    } catch (error) {
      throw new EngineError(`tfjs: TensorFlow's ${name} failed: ${messageOf(error).replace(/\s+/g, " ")}`, {
        cause: error,
      });
    }
  };
  return Object.create(binding, { executeOp: { value: executeOp } }) as Binding;
}

/** What TensorFlow reads once. Whatever the user has set stands, but for the device and the threads. */
function setEnvironment({ gpu, threads }: Wanted): void {
  const { env } = process;
  env.TF_NUM_INTRAOP_THREADS = String(threads);
  env.TF_NUM_INTEROP_THREADS = "1"; // eager operations run one after another
  env.TF_DETERMINISTIC_OPS = "1"; // no atomic additions on a GPU: the same bits every time
  env.TF_FORCE_GPU_ALLOW_GROWTH ??= "true"; // else it takes nearly all memory at once
  env.TF_CPP_MIN_LOG_LEVEL ??= "1";
  if (!gpu) env.CUDA_VISIBLE_DEVICES = "-1";
  else env.CUDA_VISIBLE_DEVICES ??= "0"; // of several the addon would take the last
}

/** Node 23 removed two functions that tfjs-node calls. */
function restoreUtil(util: Record<string, unknown>): void {
  util.isNullOrUndefined ??= (value: unknown) => value === null || value === undefined;
  util.isArray ??= Array.isArray;
}
