// `weft eval`: how well a model predicts a text, over all consecutive windows, on this machine.
import { Command } from "commander";
import { openDataset, type Split } from "../coordinator/data/dataset.ts";
import { firstNonFinite } from "../shared/arithmetic/finite.ts";
import { threadsEach } from "../shared/config.ts";
import { ConfigError } from "../shared/errors.ts";
import { resolveOptions } from "../shared/resolve.ts";
import { openModel } from "../shared/store/model.ts";
import { openTokenizerOf } from "../shared/tokenizers/open.ts";
import { openEngine } from "../worker/engine/choose.ts";
import { engineOptionsOf } from "../worker/engine/options.ts";
import { addOptions, sourcesOf } from "./options.ts";
import { say, tell } from "./terminal.ts";

/** Windows of one call of the engine. */
const rows = 8;

export function evalCommand(): Command {
  const command = new Command("eval").description("loss of a model over all consecutive windows of a text");
  addOptions(command, ["engine"], { checkpoint: {}, data: {}, textColumn: {}, split: {}, valFraction: {} });
  return command.action(async () => {
    const { options, origins } = resolveOptions(await sourcesOf(command));
    const { checkpoint, data, textColumn, split, valFraction } = options;
    if (checkpoint === "")
      throw new ConfigError("eval: name a checkpoint, a run or a Hugging Face folder with --checkpoint");
    const loaded = await openModel(checkpoint, say);
    const { model, weights, what } = loaded;
    const tokenizer = await openTokenizerOf(loaded);
    const all = split === "all";
    const wanted: readonly Split[] = all ? ["train", "val"] : [split as Split];
    const dataset = await openDataset({
      ...{ source: data, textColumn, blockSize: 1, tokenizer, notify: say, whole: all },
      ...(all ? { anySplit: true } : { splits: wanted }),
      ...(origins.valFraction !== "default" && { valFraction }),
    });
    const { engine, why } = await openEngine(
      options.engine,
      engineOptionsOf({ ...options, threads: options.threads || threadsEach(1) }, model, rows, say),
    );
    say(`${what}; ${why}`);
    try {
      await engine.setWeights(weights);
      let [sum, count, tokensSeen, characters] = [0, 0, 0, 0];
      for (const part of wanted) {
        // A text shorter than a window is a window of its own.
        const T = Math.min(model.blockSize, dataset[part].length - 1);
        if (T < 1) continue;
        const starts = all && part === "train" ? dataset.uncut(T) : dataset.consecutive(part, T);
        for (let first = 0; first < starts.length; first += rows) {
          const chosen = starts.subarray(first, first + rows);
          const { tokens, targets } = await dataset.windows(part, chosen, T);
          const losses = await engine.losses(tokens, targets, chosen.length);
          const bad = firstNonFinite(losses);
          if (bad >= 0)
            throw new ConfigError(
              `eval: ${checkpoint}: the loss of window ${count + bad} is ${losses[bad]}: its weights are too large for float32`,
            );
          for (const loss of losses) sum += T * loss;
          count += chosen.length;
          tokensSeen += targets.length;
          characters += [...tokenizer.decode(targets)].length;
        }
      }
      const nats = sum / tokensSeen;
      const bitsPerCharacter = (nats / Math.LN2) * (tokensSeen / characters);
      const length = Math.min(model.blockSize, tokensSeen);
      tell(
        `${split}: ${nats.toFixed(4)} nats a token, ${bitsPerCharacter.toFixed(4)} bits a character, ` +
          `perplexity ${Math.exp(nats).toFixed(2)}, over ${count.toLocaleString("en")} window${count === 1 ? "" : "s"} of ${length} tokens`,
      );
    } finally {
      await engine.dispose();
      await dataset.close();
    }
  });
}
