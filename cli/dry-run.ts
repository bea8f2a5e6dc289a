// `--dry-run`: what a run would be, said in full and left undone.
import type { Logger } from "pino";
import { planRun, type SetupSettings } from "../coordinator/setup.ts";
import { flagOf, type OptionName, type Options } from "../shared/config.ts";
import { summaryOf } from "../shared/model.ts";
import { keptOptions, type Sources } from "../shared/resolve.ts";
import { checkMemory, measureTime } from "./estimate.ts";
import { tell } from "./terminal.ts";

/** @param workersOf on this machine; none where others will compute */
export async function dryRun(
  sources: Sources,
  log: Logger,
  settings: SetupSettings,
  workersOf: (options: Options) => Promise<number>,
): Promise<void> {
  const { opened, options, dataset, model, layout } = await planRun(sources, log, settings);
  await dataset.close();
  const { resumed, origins, preset } = opened;
  const workers = await workersOf(options);
  const count = (n: number): string => n.toLocaleString("en");
  const step = resumed?.state.step ?? 0;
  tell(
    `run:    ${options.out}, ${resumed ? `going on from step ${count(step)}` : "a new one"}, to step ${count(options.steps)}`,
  );
  tell(
    `data:   ${dataset.name}: ${count(dataset.train.length)} tokens to train on, ${count(dataset.val.length)} to validate on; ` +
      `${dataset.tokenizer.name}, ${count(dataset.tokenizer.vocabSize)} tokens in the vocabulary`,
  );
  tell(`model:  ${summaryOf(model)}; ${count(layout.size)} parameters`);
  tell(`memory: ${await checkMemory(options, model, workers)}`);
  if (workers > 0) tell(`time:   ${await measureTime(options, model, options.steps - step)}`);
  tell("options:");
  for (const [name, value] of Object.entries(keptOptions(options))) {
    const origin = origins[name as OptionName];
    tell(
      `  ${flagOf(name).padEnd(25)} ${JSON.stringify(value).padEnd(24)} ${origin === "preset" ? `preset ${preset}` : origin}`,
    );
  }
  tell("nothing was written; without --dry-run the run begins");
}
