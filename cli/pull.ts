// `weft pull`: fetch a checkpoint of a run, from its coordinator or an object store.
import { Command } from "commander";
import { tokenToShow } from "../coordinator/serve/access.ts";
import { megabytes, progressOf } from "./progress.ts";
import { pullCheckpoint } from "./pull-checkpoint.ts";
import { tell } from "./terminal.ts";

interface PullFlags {
  from: string;
  step: string;
  out: string;
  tokenFile?: string;
  modelOnly: boolean;
}

export function pullCommand(): Command {
  return new Command("pull")
    .description("fetch a checkpoint of a run; the same command goes on after an interruption")
    .requiredOption("--from <URL>", "address of the coordinator, such as http://127.0.0.1:7070, or s3://bucket/prefix")
    .option("--step <WHICH>", "latest, best, final or the number of a step", "latest")
    .option("--out <DIR>", "folder to put it in, as step-NNNNNN", "checkpoints")
    .option("--model-only", "leave out the optimizer's state, which only training needs", false)
    .option("--token-file <FILE>", "file with the run's token (default: the variable WEFT_TOKEN)")
    .action(async ({ from, step, out, tokenFile, modelOnly }: PullFlags) => {
      const token = await tokenToShow(tokenFile ?? "", process.env);
      const bar = progressOf(process.stderr, "pulling");
      try {
        const pulled = await pullCheckpoint({
          from,
          step,
          out,
          token,
          parts: modelOnly ? "model" : "all",
          onProgress: bar.show,
          onRetry: (why) => bar.say(`${why}; trying again`),
        });
        bar.stop();
        const { checkpoint, directory, bytesReceived } = pulled;
        const loss = checkpoint.valLossNats === null ? "" : `, validation loss ${checkpoint.valLossNats.toFixed(4)}`;
        const how = bytesReceived === 0 ? "already here, checked again" : `${megabytes(bytesReceived)} MB, checked`;
        tell(`step ${checkpoint.step}${loss}: ${directory} (${how})`);
      } finally {
        bar.stop();
      }
    });
}
