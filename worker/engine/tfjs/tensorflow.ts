// TensorFlow itself under tfjs, on CUDA or the CPU: @tensorflow/tfjs-node's kernels over the addon that `weft install
// tensorflow` built, or over what npm installed. TensorFlow falls back to the CPU with a log line; here a GPU that was
// asked for and is not used ends the start with the reason.
import { availableParallelism, cpus } from "node:os";
import { EngineError } from "../../../shared/errors.ts";
import { chooseGpus, findGpus } from "../../gpus.ts";
import { findAddon } from "../../install/build.ts";
import { whyNoGpu } from "../../install/gpu.ts";
import type { EngineOptions } from "../contract.ts";
import type { Backend, BackendKind } from "./backend.ts";

const install = (gpu: boolean) => `run "weft install tensorflow${gpu ? " --cuda" : ""}"`;

/** What TensorFlow makes of float32 products on a GPU: its libraries ask this variable when they are loaded. */
const float32Products = () => (process.env.NVIDIA_TF32_OVERRIDE === "0" ? "float32" : "tf32");

export const tensorflowGpu: BackendKind = {
  name: "tensorflow-gpu",
  gpu: true,

  async probe({ precision }) {
    const addon = findAddon(true);
    if (!addon)
      return { usable: false, why: `tfjs tensorflow-gpu: TensorFlow with CUDA is not installed; ${install(true)}` };
    const reason = await whyNoGpu(addon);
    if (!reason && precision !== "bf16" && precision !== float32Products())
      return {
        usable: false,
        isMissed: true,
        why: `tfjs tensorflow-gpu: its float32 products are ${float32Products()} here; pass --precision ${float32Products()}, or set NVIDIA_TF32_OVERRIDE=${precision === "tf32" ? 1 : 0}`,
      };
    return { usable: !reason, why: `tfjs tensorflow-gpu: ${reason ?? `TensorFlow sees a GPU (${addon.file})`}` };
  },

  async open(options) {
    const { version, usesGpu } = await load(options, true);
    if (!usesGpu) throw new EngineError("tfjs tensorflow-gpu: TensorFlow uses no GPU in this process");
    const { name, memoryMiB } = chooseGpus("all", await findGpus(), process.env.CUDA_VISIBLE_DEVICES)[0]!;
    return {
      ...(await backend(options.precision)),
      arithmetic: `tensorflow ${version} ${options.precision} on ${name}`,
      device: `${name} (TensorFlow ${version}, CUDA)`,
      memoryLimitBytes: memoryMiB * 2 ** 20,
    };
  },
};

export const tensorflow: BackendKind = {
  name: "tensorflow",
  gpu: false,

  async probe({ precision }) {
    const addon = findAddon(false);
    if (!addon) return { usable: false, why: `tfjs tensorflow: TensorFlow is not installed; ${install(false)}` };
    if (precision === "tf32")
      return { usable: false, why: "tfjs tensorflow: tf32 is for NVIDIA GPUs; pass --precision float32 or bf16" };
    return { usable: true, why: `tfjs tensorflow: TensorFlow on the CPU (${addon.file})` };
  },

  async open(options) {
    const { version, threads } = await load(options, false);
    // oneDNN picks its kernels by the processor, and cuts some long sums by the number of threads: both decide bits.
    const processor = cpus()[0]?.model.trim() ?? process.arch;
    return {
      ...(await backend(options.precision)),
      arithmetic: `tensorflow ${version} ${options.precision} on ${processor}, ${threads} threads`,
      device: `TensorFlow ${version} on the CPU, ${threads} ${threads === 1 ? "thread" : "threads"}`,
      memoryLimitBytes: process.availableMemory(),
    };
  },
};

async function load({ threads }: EngineOptions, gpu: boolean) {
  const addon = findAddon(gpu);
  if (!addon) throw new EngineError(`tfjs: TensorFlow is not installed; ${install(gpu)}`);
  const { loadTensorflow } = await import("./tensorflow-load.ts");
  return loadTensorflow(addon, { gpu, threads: threads || availableParallelism() });
}

async function backend(
  precision: EngineOptions["precision"],
): Promise<Pick<Backend, "ops" | "productBytes" | "upload" | "take">> {
  const [tf, { tensorflowOps }] = await Promise.all([import("@tensorflow/tfjs-core"), import("./tensorflow-ops.ts")]);
  return {
    ops: tensorflowOps(precision),
    // Operands and result as bf16; TensorFlow transposes as it multiplies.
    productBytes: (weightFloats) => (precision === "bf16" ? 6 * weightFloats : 0),
    // The addon lends the array itself to TensorFlow, where it is aligned.
    upload: (values, shape) => tf.tensor(values.slice(), [...shape], "float32"),
    take(tensor, out) {
      out.set(tensor.dataSync());
      tensor.dispose();
      return undefined;
    },
  };
}
