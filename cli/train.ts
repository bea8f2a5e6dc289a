// `weft train`: a coordinator in this process, workers beside it, and a sample of what was learned.
import { performance } from "node:perf_hooks";
import { Command } from "commander";
import { promptOf } from "../coordinator/data/prompt.ts";
import { type RunSetup, TrainingRun } from "../coordinator/loop.ts";
import { accessWith, isLoopback, resolveToken, viewTokenOf } from "../coordinator/serve/access.ts";
import { serve } from "../coordinator/serve/server.ts";
import { certificateOf } from "../coordinator/serve/tls.ts";
import { setUpRun } from "../coordinator/setup.ts";
import { flagsFor, type OptionName, type Options, optionTable, threadsEach } from "../shared/config.ts";
import { continueText } from "../shared/decoding/text.ts";
import type { ModelConfig } from "../shared/model.ts";
import { defaultPreset } from "../shared/presets.ts";
import { asked, mergeOptions } from "../shared/resolve.ts";
import { openEngine } from "../worker/engine/choose.ts";
import { engineOptionsOf } from "../worker/engine/options.ts";
import { drivesGpus } from "../worker/engine/xla/kind.ts";
import { chooseGpus, findGpus, visibleGpus } from "../worker/gpus.ts";
import { launch, planSlots, type Slot } from "../worker/launcher.ts";
import { thisMachine } from "../worker/machine.ts";
import { addressOf, introduce, pageAddresses, workerLine } from "./coordinator.ts";
import { dryRun } from "./dry-run.ts";
import { announceSpeed, checkMemory } from "./estimate.ts";
import { createLog, relay } from "./log.ts";
import { addOptions, sourcesOf } from "./options.ts";
import { onStopSignal } from "./signals.ts";
import { calledAs, summary } from "./summary.ts";
import { ModelText, say, tell } from "./terminal.ts";

export function trainCommand(): Command {
  const command = new Command("train").description("train on this machine, then show a sample");
  addOptions(command, ["model", "data", "training", "run", "engine", "network", "trust", "local"]);
  return command.action(async () => {
    const sources = { ...(await sourcesOf(command)), impliedPreset: defaultPreset };
    const { log, say, close } = createLog("weft");
    const workersOf = async (options: Options) => (await slotsOf(options)).length;
    const fits = async (options: Options, model: ModelConfig) =>
      await checkMemory(options, model, await workersOf(options));
    const settings = { substitute: true, fits };
    const { options: given, origins } = mergeOptions(sources);
    if (given.dryRun) return await dryRun(sources, log, settings, workersOf);
    const setup = await setUpRun(sources, log, settings);
    const { dataset, options } = setup;
    introduce(setup, log, await fits(options, setup.model));
    const run = new TrainingRun(setup);
    const token = await resolveToken(options.host, options.tokenFile, process.env);
    const slots = await slotsOf(options, token ? { WEFT_TOKEN: token.text } : {});
    const unused = asked(origins.workers) && whyUnused(slots, options);
    if (unused) log.warn(unused);
    const access = accessWith(token?.text, viewTokenOf(process.env, token));
    const server = await serve(run, run, { ...options, access, certificate: await certificateOf(options), log });
    log.info(`dashboard: ${pageAddresses(options.host, server, token)}`);
    if (!isLoopback(options.host)) say(`more workers: ${workerLine(options.host, server, token)}`);
    const startedAt = performance.now();
    const [stopWorkers, killWorkers] = [new AbortController(), new AbortController()];
    const workers = launch({
      slots,
      command: workerCommandLine(options, addressOf(server, server.address)),
      stop: stopWorkers.signal,
      kill: killWorkers.signal,
      log: (line) => relay(log, line),
    }).catch((error: Error) => run.dispatch.fail(error));
    onStopSignal((signal) => run.stop(signal));
    const forget = announceSpeed(run, log);
    try {
      const result = await run.train();
      close();
      stopWorkers.abort();
      setTimeout(() => killWorkers.abort(), longestGoodbyeMs).unref();
      await workers;
      const seconds = (performance.now() - startedAt) / 1000;
      const steps = result.step - setup.step;
      const tokens = steps * setup.options.batchSize * setup.options.blockSize;
      const columns = process.stdout.isTTY ? process.stdout.columns : undefined;
      tell(summary({ ...result, seconds, steps, tokens }, run.history.curves(), columns).join("\n"));
      if (result.finished && options.sampleTokens > 0) await showSample(options, setup);
      const weft = calledAs(process.argv, process.env);
      if (result.checkpoint === null) tell("no checkpoint: no step was done");
      else {
        tell(`checkpoint: ${result.checkpoint}`);
        tell(`sample:     ${weft} sample --checkpoint ${options.out}`);
        if (!result.finished) tell(`to go on:   ${weft} train --resume --out ${options.out}`);
      }
    } finally {
      forget();
      close();
      stopWorkers.abort();
      await workers;
      await server.close();
      await dataset.close();
    }
  });
}

/** A worker that has not ended so long after it was asked to is ended. */
const longestGoodbyeMs = 20_000;

/** One process for all GPUs or for each where they compute, else --workers of them, each with its share of the cores. */
export async function slotsOf(options: Options, environment: Record<string, string> = {}): Promise<Slot[]> {
  const { device } = options;
  const isTogether = device !== "cpu" && (await drivesGpus(options));
  const found = device === "gpu" || isTogether ? await findGpus() : undefined;
  const visible = process.env.CUDA_VISIBLE_DEVICES;
  // `auto` takes GPUs where there are any; asked for, they must be there.
  const gpus = !found ? [] : device === "gpu" ? chooseGpus("all", found, visible) : visibleGpus(found, visible).gpus;
  const slots = planSlots(gpus, options.workers, await thisMachine(), isTogether);
  // TensorFlow, where no device was asked for, may find a GPU by itself.
  const own = (slot: Slot) => (device === "auto" && gpus.length === 0 ? {} : slot.environment);
  return slots.map((slot) => ({ ...slot, environment: { ...own(slot), ...environment } }));
}

/** Why --workers says nothing of these processes; undefined where it does. */
export function whyUnused(slots: readonly Slot[], { workers }: Pick<Options, "workers">): string | undefined {
  if (slots[0]!.device === "cpu") return undefined;
  const how = slots.length === 1 ? "one process drives" : "one process each for";
  return `--workers ${workers} is for the CPU: ${how} ${slots.map(({ about }) => about).join("; ")}`;
}

function workerCommandLine(options: Options, url: string) {
  const names = (Object.keys(optionTable) as OptionName[]).filter(
    (name) => optionTable[name].group === "engine" && name !== "threads" && options[name] !== optionTable[name].default,
  );
  const flags = flagsFor(Object.fromEntries(names.map((name) => [name, options[name]])));
  return ({ label, threads }: Slot): [string, ...string[]] => [
    process.execPath,
    process.argv[1]!,
    "worker",
    ...flags,
    ...["--coordinator", url, "--name", label, "--threads", String(options.threads || threads)],
  ];
}

/** Text from the final weights, as it comes. */
async function showSample(options: Options, { model, weights, dataset }: RunSetup): Promise<void> {
  const prompt = (await promptOf(options.prompt, dataset)).text;
  const { engine } = await openEngine(
    options.engine,
    engineOptionsOf({ ...options, threads: threadsEach(1) }, model, 1, say),
  );
  try {
    await engine.setWeights(weights);
    const style = { tokens: options.sampleTokens, temperature: 0.8, topK: 200, topP: 1, repetitionPenalty: 1 };
    const all = { ...style, samples: 1, seed: options.seed, stop: [] };
    const shown = new ModelText();
    shown.write(prompt);
    for await (const { text } of continueText(engine, dataset.tokenizer, prompt, all)) shown.write(text);
    shown.write("\n");
    shown.end();
  } finally {
    await engine.dispose();
  }
}
