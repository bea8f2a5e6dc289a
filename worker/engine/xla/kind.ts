// Whether the xla engine can run here, and why not: the addon, a plugin for the device that was asked for, a GPU.
import type { Options } from "../../../shared/config.ts";
import { EngineError, messageOf } from "../../../shared/errors.ts";
import { findGpus, visibleGpus } from "../../gpus.ts";
import { addonFile } from "../../install/xla-addon.ts";
import type { EngineKind, EngineOptions } from "../contract.ts";
import { openXla, pluginFor } from "./engine.ts";

type Asked = Pick<EngineOptions, "device"> & Partial<Pick<EngineOptions, "precision">>;

async function refusal(options: Asked): Promise<string | undefined> {
  const cure = `run "weft install xla${options.device === "cpu" ? " --cpu" : ""}"`;
  try {
    const plugin = pluginFor(options);
    if (!plugin) return `xla: no plugin of XLA for device ${options.device} is installed; ${cure}`;
    if (!addonFile()) return `xla: its addon is not built; ${cure}`;
    if (!plugin.gpu)
      return options.precision === "tf32"
        ? "xla: tf32 is for NVIDIA GPUs; on a CPU pass --precision float32 or bf16"
        : undefined;
    const { gpus, why } = visibleGpus(await findGpus(), process.env.CUDA_VISIBLE_DEVICES);
    return gpus.length > 0 ? undefined : `xla: ${why}`;
  } catch (error) {
    return `xla: ${messageOf(error)}`;
  }
}

/** Whether `auto`, or whoever was asked for, is this engine on a GPU: it drives all that it sees. */
export async function drivesGpus(options: Pick<Options, "engine" | "backend" | "isa">): Promise<boolean> {
  const { engine, backend, isa } = options;
  if (engine !== "xla" && (engine !== "auto" || backend !== "auto" || isa !== "auto")) return false;
  return (await refusal({ device: "gpu" })) === undefined;
}

export const xla: Omit<EngineKind, "probe"> & { probe(options: Asked): ReturnType<EngineKind["probe"]> } = {
  name: "xla",
  async probe(options) {
    const why = await refusal(options);
    return why === undefined
      ? { usable: true, why: `xla: ${pluginFor(options)!.identity} (${pluginFor(options)!.file})` }
      : { usable: false, why };
  },
  async create(options) {
    const why = await refusal(options);
    if (why !== undefined) throw new EngineError(`engine ${why}`);
    return await openXla(options, pluginFor(options)!);
  },
};
