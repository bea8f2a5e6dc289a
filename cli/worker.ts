// `weft worker`: compute for a coordinator, in this process or in one for each GPU.
import { hostname } from "node:os";
import { Command } from "commander";
import { resolveToken } from "../coordinator/serve/access.ts";
import { type OptionGroup, type Options, optionTable, threadsEach } from "../shared/config.ts";
import { ConfigError } from "../shared/errors.ts";
import { asked, type Resolved, resolveOptions } from "../shared/resolve.ts";
import { drivesGpus } from "../worker/engine/xla/kind.ts";
import { chooseGpus, findGpus } from "../worker/gpus.ts";
import { endBecauseOf, endWithLauncher, launch, planSlots, whyNotOnDevice } from "../worker/launcher.ts";
import { thisMachine } from "../worker/machine.ts";
import { coordinatorFrom, gpuOf, type Place, placeOf } from "../worker/place.ts";
import { work } from "../worker/worker.ts";
import { createLog, relay } from "./log.ts";
import { addOptions, askedFor, sourcesOf } from "./options.ts";
import { onStopSignal } from "./signals.ts";
import { workerData } from "./worker-data.ts";

const groups: readonly OptionGroup[] = ["worker", "engine"];
/** Of other groups. */
const own = ["tokenFile", "textColumn", "tokenizer"] as const;

export function workerCommand(): Command {
  const command = new Command("worker").description("compute for a coordinator; comes back by itself when it is lost");
  addOptions(command, groups, Object.fromEntries(own.map((name) => [name, {}])));
  return command.action(async () => {
    const resolved = resolveOptions(await sourcesOf(command));
    const { options, origins } = resolved;
    const place = placeOf(process.env);
    const placed = origins.coordinator === "default" ? optionsAt(place, options) : options;
    if (options.gpus === "" && !asked(origins.processes)) return await workHere(place, placed);
    const why = whyNotOnDevice(options);
    if (why) throw new ConfigError(`worker: ${why}`);
    await workInProcesses(place, resolved);
  });
}

async function workHere(place: Place | undefined, options: Options): Promise<void> {
  const leave = new AbortController();
  onStopSignal(() => leave.abort());
  endWithLauncher();
  const { log } = createLog("worker");
  if (place) {
    const found = place.localSize > 1 && options.device !== "cpu" ? (await findGpus()).gpus.length : 0;
    const gpu = gpuOf(place, process.env.CUDA_VISIBLE_DEVICES, found);
    if (gpu !== undefined) Object.assign(process.env, { CUDA_VISIBLE_DEVICES: gpu, CUDA_DEVICE_ORDER: "PCI_BUS_ID" });
    log.info(`${place.about}: for ${options.coordinator.join(", ")}${gpu === undefined ? "" : `, on GPU ${gpu}`}`);
  }
  try {
    await work({
      options,
      threads: options.threads || threadsEach(place?.localSize ?? 1),
      name: options.name || `${hostname()}-${place?.rank ?? process.pid}`,
      token: (await resolveToken("localhost", options.tokenFile, process.env))?.text,
      log,
      data: await workerData(options, log),
      leave: leave.signal,
    });
  } catch (error) {
    endBecauseOf(error);
    throw error;
  }
}

/** What was asked for again for each process, with what it has of its own; a config file does not travel: it asks for processes. */
async function workInProcesses(place: Place | undefined, resolved: Resolved): Promise<void> {
  const { options } = resolved;
  const gpus = options.gpus || "none";
  const chosen = chooseGpus(
    gpus,
    gpus === "none" ? { gpus: [], why: "" } : await findGpus(),
    process.env.CUDA_VISIBLE_DEVICES,
  );
  const shared = askedFor(resolved, groups, ["gpus", "processes", "name", "threads", "device"], own);
  const name = options.name || (place ? `${hostname()}-${place.rank}` : hostname());
  const { log } = createLog("worker");
  const [stop, kill] = [new AbortController(), new AbortController()];
  onStopSignal(() => stop.abort());
  await launch({
    // More than one process was asked for: one GPU each, whatever the engine.
    slots: planSlots(
      chosen,
      options.processes,
      await thisMachine(),
      options.processes === 1 && (await drivesGpus(options)),
    ),
    command: ({ label, threads, device }) => [
      process.execPath,
      process.argv[1]!,
      ...["worker", ...shared],
      ...["--name", `${name}-${label}`, "--threads", String(options.threads || threads), "--device", device],
    ],
    stop: stop.signal,
    kill: kill.signal,
    log: (line) => relay(log, line),
  });
}

/** Where --coordinator was not given, it is the one that srun, mpirun or WEFT_COORDINATOR tells of. */
function optionsAt(place: Place | undefined, options: Options): Options {
  const found = coordinatorFrom(process.env, place);
  if (!found) return options;
  const coordinator = [found.url];
  if (!optionTable.coordinator.schema.safeParse(coordinator).success)
    throw new ConfigError(`worker: ${found.from} must be an address such as ws://127.0.0.1:7070, got "${found.url}"`);
  return { ...options, coordinator };
}
