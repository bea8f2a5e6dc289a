// `weft install tensorflow`: the CUDA road of the tfjs engine, which nobody gets unasked (0.8 GB, 6 GB with CUDA).
import { Command } from "commander";
import { cacheDir } from "../shared/cache.ts";
import { addonOf, TENSORFLOW_VERSION } from "../worker/install/build.ts";
import { whyNoGpu } from "../worker/install/gpu.ts";
import { installTensorflow } from "../worker/install/install.ts";
import { tell } from "./terminal.ts";

export function installCommand(): Command {
  const command = new Command("install").description("build what only some machines need");
  command
    .command("tensorflow")
    .description("build @tensorflow/tfjs-node against a current TensorFlow, for the tfjs engine")
    .option("--cuda", "with NVIDIA's CUDA libraries (6 GB), for GPUs", false)
    .option("--version <x.y.z>", "TensorFlow to take from PyPI", TENSORFLOW_VERSION)
    .option("--dir <folder>", "cache folder (WEFT_CACHE_DIR)", cacheDir())
    .action(async (options: { cuda: boolean; version: string; dir: string }) => {
      const build = await installTensorflow({
        version: options.version,
        cuda: options.cuda,
        cache: options.dir,
        note: tell,
        showProgress: process.stdout.isTTY,
      });
      if (!build.cuda) return;
      const reason = await whyNoGpu(addonOf(build));
      tell(reason ? `no GPU yet on this machine: ${reason}` : "TensorFlow uses the GPU of this machine");
    });
  return command;
}
