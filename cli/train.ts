// `weft train`: a coordinator in this process, workers beside it, and a sample of what was learned.
import { Command } from "commander";
import { accessWith } from "../coordinator/access.ts";
import { type RunSetup, summaryOf, TrainingRun } from "../coordinator/loop.ts";
import { serve } from "../coordinator/server.ts";
import { setUpRun } from "../coordinator/setup.ts";
import { flagOf, type OptionName, type Options, optionTable, threadsEach } from "../shared/config.ts";
import { continueText } from "../shared/text.ts";
import { engineOptionsOf } from "../worker/engine-options.ts";
import { openEngine } from "../worker/engines.ts";
import { Team } from "../worker/team.ts";
import { createLog } from "./log.ts";
import { addOptions, optionsOf } from "./options.ts";
import { onStopSignal } from "./signals.ts";

export function trainCommand(): Command {
  const command = new Command("train").description("train on this machine, then show a sample");
  addOptions(command, ["model", "data", "training", "run", "engine", "network", "local"]);
  return command.action(async () => {
    const options = await optionsOf(command);
    const { log, close } = createLog("weft", options.steps);
    const setup = await setUpRun(options, log, true);
    const { dataset, model, layout } = setup;
    const tokens = dataset.train.length + dataset.val.length;
    log.info(`data: ${dataset.name}, ${tokens.toLocaleString("en")} tokens`);
    log.info(`model: ${summaryOf(model)}; ${layout.size.toLocaleString("en")} parameters`);
    const run = new TrainingRun(setup);
    const server = await serve(run, { ...options, access: accessWith(undefined), log });
    log.info(`dashboard: http://${server.address}/`);
    const team = new Team(workersOf(options, `ws://${server.address}`), log);
    void team.failed.then((error) => run.dispatch.fail(error));
    onStopSignal((signal) => run.stop(signal));
    try {
      const result = await run.train();
      close();
      await team.stop();
      const validation = result.valLossNats === null ? "" : `, validation loss ${result.valLossNats.toFixed(4)}`;
      console.log(`${result.finished ? "finished" : "stopped after"} ${result.step} steps${validation}`);
      if (result.finished && options.sampleTokens > 0) await showSample(options, setup);
      console.log(`checkpoint: ${result.checkpoint}`);
    } finally {
      close();
      await team.stop();
      await server.close();
      await dataset.close();
    }
  });
}

/** One process a worker, each with its share of the cores, with the engine options that we were given. */
function workersOf(options: Options, url: string) {
  const engineFlags = (Object.keys(optionTable) as OptionName[])
    .filter((name) => optionTable[name].group === "engine" && options[name] !== optionTable[name].default)
    .flatMap((name) => (options[name] === true ? [flagOf(name)] : [flagOf(name), String(options[name])]));
  const threads = options.threads || threadsEach(options.workers);
  return Array.from({ length: options.workers }, (_, i) => ({
    name: `worker-${i + 1}`,
    command: [
      process.execPath,
      process.argv[1]!,
      "worker",
      ...engineFlags,
      ...["--coordinator", url, "--name", `worker-${i + 1}`, "--threads", String(threads)],
    ] as [string, ...string[]],
  }));
}

/** Text from the final weights, as it comes. */
async function showSample(options: Options, { model, weights, dataset }: RunSetup): Promise<void> {
  const { engine } = await openEngine(options.engine, engineOptionsOf({ ...options, threads: threadsEach(1) }, model, 1));
  try {
    await engine.setWeights(weights);
    console.log("");
    const style = { tokens: options.sampleTokens, temperature: 0.8, topK: 200, topP: 1, repetitionPenalty: 1 };
    const all = { ...style, samples: 1, seed: options.seed, stop: [] };
    process.stdout.write(options.prompt);
    for await (const { text } of continueText(engine, dataset.tokenizer, options.prompt, all)) process.stdout.write(text);
    console.log("\n");
  } finally {
    await engine.dispose();
  }
}
