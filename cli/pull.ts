// `weft pull`: fetch a checkpoint of a run, from its coordinator or an object store.
import { Command } from "commander";
import { tokenToShow } from "../coordinator/serve/access.ts";
import { ConfigError } from "../shared/errors.ts";
import { addOptions, type Own, optionsOf } from "./options.ts";
import { megabytes, progressOf } from "./progress.ts";
import { pullCheckpoint } from "./pull-checkpoint.ts";
import { tell } from "./terminal.ts";

const own = {
  out: { default: "checkpoints", help: "folder to put it in, as step-NNNNNN" },
  from: {},
  step: {},
  modelOnly: {},
  tokenFile: {},
} satisfies Own;

export function pullCommand(): Command {
  const command = new Command("pull").description(
    "fetch a checkpoint of a run; the same command goes on after an interruption",
  );
  addOptions(command, [], own);
  return command.action(async () => {
    const { from, step, out, tokenFile, modelOnly } = await optionsOf(command, own);
    if (from === "") throw new ConfigError("pull: name the run with --from, such as http://127.0.0.1:7070");
    const token = await tokenToShow(tokenFile, process.env);
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
