// `weft eval`: how well a model predicts a text, over all consecutive windows, on this machine.
import { Command } from "commander";
import { openDataset } from "../coordinator/data/dataset.ts";
import { firstNonFinite } from "../shared/arithmetic/finite.ts";
import { loadModel } from "../shared/checkpoint/rundir.ts";
import { optionTable, threadsEach } from "../shared/config.ts";
import { ConfigError } from "../shared/errors.ts";
import { openTokenizerOf } from "../shared/tokenizers/open.ts";
import { openEngine } from "../worker/engine/choose.ts";
import { engineOptionsOf } from "../worker/engine/options.ts";
import { addOptions, optionsOf } from "./options.ts";
import { say, tell } from "./terminal.ts";

/** Windows of one call of the engine. */
const rows = 8;

export function evalCommand(): Command {
  const command = new Command("eval").description("loss of a model over all consecutive windows of a text");
  command.requiredOption("--checkpoint <PATH>", "checkpoint, run, or Hugging Face folder");
  command.option("--data <SOURCE>", optionTable.data.help, optionTable.data.default);
  command.option("--split <SPLIT>", "val (the last tenth), train, or all", "val");
  addOptions(command, ["engine"]);
  return command.action(async () => {
    const { checkpoint, data, split } = command.opts<{ checkpoint: string; data: string; split: string }>();
    if (!["val", "train", "all"].includes(split))
      throw new ConfigError(`eval: --split must be val, train or all, got "${split}"`);
    const options = await optionsOf(command);
    const loaded = await loadModel(checkpoint, say);
    const { model, weights, what } = loaded;
    const tokenizer = await openTokenizerOf(loaded);
    const dataset = await openDataset({ source: data, blockSize: model.blockSize, tokenizer, notify: say });
    const { engine, why } = await openEngine(
      options.engine,
      engineOptionsOf({ ...options, threads: options.threads || threadsEach(1) }, model, rows),
    );
    say(`${what}; ${why}`);
    try {
      await engine.setWeights(weights);
      const splits = split === "all" ? (["train", "val"] as const) : ([split] as ("train" | "val")[]);
      let [sum, count, characters] = [0, 0, 0];
      for (const part of splits) {
        const starts = dataset.consecutive(part);
        for (let first = 0; first < starts.length; first += rows) {
          const chosen = starts.subarray(first, first + rows);
          const { tokens, targets } = await dataset.windows(part, chosen);
          const losses = await engine.losses(tokens, targets, chosen.length);
          const bad = firstNonFinite(losses);
          if (bad >= 0)
            throw new ConfigError(
              `eval: ${checkpoint}: the loss of window ${count + bad} is ${losses[bad]}: its weights are too large for float32`,
            );
          for (const loss of losses) sum += loss;
          count += chosen.length;
          characters += [...tokenizer.decode(targets)].length;
        }
      }
      const nats = sum / count;
      const bitsPerCharacter = (nats / Math.LN2) * ((count * model.blockSize) / characters);
      tell(
        `${split}: ${nats.toFixed(4)} nats a token, ${bitsPerCharacter.toFixed(4)} bits a character, ` +
          `perplexity ${Math.exp(nats).toFixed(2)}, over ${count.toLocaleString("en")} windows of ${model.blockSize} tokens`,
      );
    } finally {
      await engine.dispose();
      await dataset.close();
    }
  });
}
