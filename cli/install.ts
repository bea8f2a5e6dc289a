// `weft install`: what nobody gets unasked: XLA for the xla engine (6 GB with CUDA), TensorFlow under the tfjs engine (0.8 GB,
// 6 GB with CUDA).
import { Command, Option } from "commander";
import { cacheDir } from "../shared/cache.ts";
import { ConfigError } from "../shared/errors.ts";
import { addonOf, TENSORFLOW_VERSION } from "../worker/install/build.ts";
import { whyNoGpu } from "../worker/install/gpu.ts";
import { installTensorflow } from "../worker/install/install.ts";
import { installXla, kindOfMachine } from "../worker/install/xla-install.ts";
import { tell } from "./terminal.ts";

export function installCommand(): Command {
  const dirFlag = ["--dir <DIR>", "cache folder (WEFT_CACHE_DIR)", cacheDir()] as const;
  const command = new Command("install").description("build what only some machines need");
  command
    .command("tensorflow")
    .description("build @tensorflow/tfjs-node against a current TensorFlow, for the tfjs engine")
    .option("--cuda", "with NVIDIA's CUDA libraries (6 GB), for GPUs", false)
    .option("--version <x.y.z>", "TensorFlow to take from PyPI", TENSORFLOW_VERSION)
    .option(...dirFlag)
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
  command
    .command("xla")
    .description("fetch a plugin of XLA and build the xla engine's addon: the fast engine on NVIDIA GPUs")
    .option("--cpu", "the CPU's plugin (63 MB), to try and to test")
    .addOption(new Option("--cuda <version>", "for GPUs, with NVIDIA's libraries (6 GB)").choices(["12", "13"]))
    .option("--from <folder>", "take the plugin of this Python environment; nothing is fetched")
    .option(...dirFlag)
    .action(async ({ cpu, cuda, from, dir }: { cpu?: true; cuda?: "12" | "13"; from?: string; dir: string }) => {
      if (cpu && cuda) throw new ConfigError("install xla: --cpu and --cuda are two kinds; run it once for each");
      await installXla({
        kind: cpu ? "cpu" : cuda ? `cuda${cuda}` : await kindOfMachine(),
        ...(from !== undefined && { from }),
        cache: dir,
        note: tell,
        showProgress: process.stdout.isTTY,
      });
    });
  return command;
}
