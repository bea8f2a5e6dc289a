// `weft worker`: compute for a coordinator, in this process or in one for each GPU.
import { hostname } from "node:os";
import { Command } from "commander";
import { resolveToken } from "../coordinator/serve/access.ts";
import { threadsEach } from "../shared/config.ts";
import { ConfigError } from "../shared/errors.ts";
import { chooseGpus, findGpus } from "../worker/gpus.ts";
import { endWithLauncher, launch, planSlots } from "../worker/launcher.ts";
import { thisMachine } from "../worker/machine.ts";
import { work } from "../worker/worker.ts";
import { createLog, relay } from "./log.ts";
import { addOptions, optionsOf } from "./options.ts";
import { onStopSignal } from "./signals.ts";

export function workerCommand(): Command {
  const command = new Command("worker").description("compute for a coordinator; comes back by itself when it is lost");
  addOptions(command, ["worker", "engine"]);
  command.option("--token-file <FILE>", "file with the run's token (default: the variable WEFT_TOKEN)");
  command.option("--gpus <LIST>", "one process for each: all, none, or numbers such as 0,2; for the tfjs engine");
  command.option("--processes <N>", "processes on the CPU, which share its cores", Number);
  return command.action(async () => {
    const { gpus, processes } = command.opts<{ gpus?: string; processes?: number }>();
    if (gpus === undefined && processes === undefined) await workHere(command);
    else await workInProcesses(command, gpus ?? "none", processes ?? 1);
  });
}

async function workHere(command: Command): Promise<void> {
  const options = await optionsOf(command);
  const leave = new AbortController();
  onStopSignal(() => leave.abort());
  endWithLauncher();
  const { log } = createLog("worker");
  await work({
    options,
    threads: options.threads || threadsEach(1),
    name: options.name || `${hostname()}-${process.pid}`,
    token: (await resolveToken("localhost", options.tokenFile, process.env))?.text,
    log,
    leave: leave.signal,
  });
}

/** The same command line again for each process, with what it has of its own. */
async function workInProcesses(command: Command, gpus: string, processes: number): Promise<void> {
  if (!Number.isInteger(processes) || processes < 1)
    throw new ConfigError(`worker: --processes must be a whole number of at least 1, got ${processes}`);
  const options = await optionsOf(command);
  const chosen = chooseGpus(
    gpus,
    gpus === "none" ? { gpus: [], why: "" } : await findGpus(),
    process.env.CUDA_VISIBLE_DEVICES,
  );
  const shared = argumentsWithout(process.argv.slice(2), ["--gpus", "--processes", "--name", "--threads", "--device"]);
  const name = options.name || hostname();
  const { log } = createLog("worker");
  const [stop, kill] = [new AbortController(), new AbortController()];
  onStopSignal(() => stop.abort());
  await launch({
    slots: planSlots(chosen, processes, await thisMachine()),
    command: ({ label, threads, device }) => [
      process.execPath,
      process.argv[1]!,
      ...shared,
      ...["--name", `${name}-${label}`, "--threads", String(options.threads || threads), "--device", device],
    ],
    stop: stop.signal,
    kill: kill.signal,
    log: (line) => relay(log, line),
  });
}

/** Command-line words without some flags and their values. */
function argumentsWithout(words: readonly string[], flags: readonly string[]): string[] {
  return words.filter(
    (word, i) => !flags.some((flag) => word === flag || word.startsWith(`${flag}=`) || words[i - 1] === flag),
  );
}
