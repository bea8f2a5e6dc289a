// WebGPU under tfjs, through Dawn (npm "webgpu"): GPUs without CUDA, and NVIDIA's through Vulkan; float32. Only by name:
// CUDA and the native engine are faster where they run. Dawn reports a failed allocation or kernel aside and goes on
// with zeros, so whatever it reports ends the step.
import type { KernelBackend } from "@tensorflow/tfjs-core";
import { EngineError, messageOf } from "../../../shared/errors.ts";
import type { BackendKind } from "./backend.ts";

/** What is used of the WebGPU interface (W3C); npm's types of it come with the optional package. */
interface Adapter {
  readonly info: {
    readonly vendor: string;
    readonly description: string;
    readonly device: string;
    /** It computes on the CPU. */
    readonly isFallbackAdapter: boolean;
  };
}
interface Device extends EventTarget {
  readonly lost: Promise<{ readonly message: string }>;
}
interface Gpu {
  requestAdapter(options: { powerPreference: "high-performance" }): Promise<Adapter | null>;
}
interface Dawn {
  create(options: string[]): Gpu;
  readonly globals: Record<string, unknown>;
}

const install = 'run "npm install --no-save webgpu@0.6.2 @tensorflow/tfjs-backend-webgpu@4.22.0"';

/** Adapter and Dawn of this thread: looking for one twice is slow, and tfjs keeps its backend in a global anyway. */
let found: Promise<{ adapter: Adapter } | { why: string }> | undefined;
let started: Promise<{ failure(): string | undefined }> | undefined;

export const webgpu: BackendKind = {
  name: "webgpu",
  gpu: true,
  byNameOnly: true,

  async probe({ precision }) {
    if (precision !== "float32") {
      return {
        usable: false,
        why: `tfjs webgpu: computes in float32 only; pass --precision float32 instead of ${precision}`,
      };
    }
    found ??= find();
    const result = await found;
    return "why" in result
      ? { usable: false, why: `tfjs webgpu: ${result.why}` }
      : { usable: true, why: `tfjs webgpu: ${nameOf(result.adapter)}` };
  },

  async open() {
    found ??= find();
    const result = await found;
    if ("why" in result) throw new EngineError(`tfjs webgpu: ${result.why}`);
    started ??= start();
    const { failure } = await started;
    const [tf, { webgpuOps }] = await Promise.all([import("@tensorflow/tfjs-core"), import("./webgpu-ops.ts")]);
    const name = nameOf(result.adapter);
    return {
      arithmetic: `webgpu float32 on ${name}`,
      device: `${name} (WebGPU)`,
      ops: webgpuOps(),
      // WebGPU does not tell how much there is; an allocation that fails ends the step.
      memoryLimitBytes: Number.POSITIVE_INFINITY,
      productBytes: () => 0,
      // tfjs reads the array when a kernel first needs it.
      upload: (values, shape) => tf.tensor(values.slice(), [...shape], "float32"),
      async take(tensor, out) {
        tf.keep(tensor);
        const values = await tensor.data().catch((error: unknown) => {
          throw new EngineError(`tfjs webgpu: ${failure() ?? messageOf(error)}`, { cause: error });
        });
        const reason = failure();
        if (reason) throw new EngineError(`tfjs webgpu: ${reason}`);
        out.set(values);
        tensor.dispose();
      },
    };
  },
};

/** Whether WebGPU is usable here, but through a driver in software: right, and far too slow to train. */
export async function inSoftware(): Promise<boolean> {
  found ??= find();
  const result = await found;
  return "adapter" in result && result.adapter.info.isFallbackAdapter;
}

async function find(): Promise<{ adapter: Adapter } | { why: string }> {
  const packageName = "webgpu"; // optional: nothing of it is known to the compiler
  const dawn = (await import(packageName).catch((error: unknown) => ({ error }))) as Dawn | { error: Error };
  if ("error" in dawn) return { why: `not installed; ${install} (${messageOf(dawn.error)})` };
  const gpu = dawn.create([]);
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) {
    return {
      why: "there is no GPU that WebGPU can use; on Linux it needs libvulkan.so.1 and a Vulkan driver (vulkaninfo)",
    };
  }
  // tfjs looks for both where a browser has them.
  Object.assign(globalThis, dawn.globals);
  Object.defineProperty(globalThis, "navigator", { value: { gpu }, configurable: true });
  return { adapter };
}

async function start(): Promise<{ failure(): string | undefined }> {
  const packageName = "@tensorflow/tfjs-backend-webgpu";
  await import(packageName).catch((error: unknown) => {
    throw new EngineError(`tfjs webgpu: ${packageName} is not installed; ${install}`, { cause: error });
  });
  const tf = await import("@tensorflow/tfjs-core");
  tf.env().set("WEBGPU_CPU_FORWARD", false); // else small tensors are computed in JavaScript
  if (!(await tf.setBackend("webgpu"))) throw new EngineError("tfjs webgpu: the device did not start");
  const { device } = tf.backend() as KernelBackend & { device: Device };
  let failure: string | undefined;
  device.addEventListener("uncapturederror", (event) => {
    failure ??= (event as Event & { error: { message: string } }).error.message;
  });
  void device.lost.then(({ message }) => {
    failure ??= `the device is lost: ${message}`;
  });
  return { failure: () => failure };
}

function nameOf({ info }: Adapter): string {
  return [info.device || info.vendor, info.description].filter(Boolean).join(", ");
}
