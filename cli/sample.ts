// `weft sample`: text from a checkpoint, an imported model or a running coordinator, streamed to the terminal as it
// comes. The text alone goes to standard output; what was loaded and who computes, to standard error.
import { rm } from "node:fs/promises";
import { text as readAll } from "node:stream/consumers";
import { Command } from "commander";
import { tokenToShow } from "../coordinator/serve/access.ts";
import type { LoadedModel } from "../shared/checkpoint/rundir.ts";
import { flagOf, type OptionName, type Options } from "../shared/config.ts";
import { beamSearch } from "../shared/decoding/beam.ts";
import { continueText, stopsAt, textBefore } from "../shared/decoding/text.ts";
import { temporaryFolder } from "../shared/disk.ts";
import { ConfigError } from "../shared/errors.ts";
import { readText } from "../shared/json.ts";
import { resolveOptions } from "../shared/resolve.ts";
import { openModel } from "../shared/store/model.ts";
import { openTokenizerOf } from "../shared/tokenizers/open.ts";
import type { Tokenizer } from "../shared/tokenizers/tokenizer.ts";
import { openEngine } from "../worker/engine/choose.ts";
import { engineOptionsOf } from "../worker/engine/options.ts";
import { converse } from "./converse.ts";
import { addOptions, sourcesOf } from "./options.ts";
import { pullCheckpoint } from "./pull-checkpoint.ts";
import { ModelText, say } from "./terminal.ts";

/** Flags that say how to draw: a beam search draws nothing. */
const drawing = ["temperature", "topK", "topP", "seed"] as const;

export function sampleCommand(): Command {
  const command = new Command("sample").description(
    "write text with a model: from a checkpoint, a Hugging Face or GPT-2 release folder, or a running run",
  );
  addOptions(command, ["sampling", "engine"], {
    ...{ checkpoint: {}, model: {}, from: {}, step: {}, tokenFile: {}, seed: { help: "same seed, same text" } },
    prompt: { help: "what the text begins with; - reads standard input" },
    precision: {},
  });
  return command.action(async () => {
    const { options, origins } = resolveOptions(await sourcesOf(command));
    const given = (name: OptionName): boolean => origins[name] === "flag";
    checkBeams(options, given);
    checkSource(options, given);
    const asksForText = !given("prompt") && !given("promptFile") && origins.prompt !== "file";
    const isPlain = options.samples === 1 && options.beams === 1;
    await sampleFrom(options, asksForText && isPlain && process.stdin.isTTY && process.stdout.isTTY);
  });
}

function checkBeams({ beams, samples }: Options, given: (name: OptionName) => boolean): void {
  if (beams === 1) {
    if (given("lengthPenalty")) throw new ConfigError("sample: --length-penalty belongs to a beam search; add --beams");
    return;
  }
  const useless = drawing.filter(given).map(flagOf);
  if (useless.length > 0)
    throw new ConfigError(
      `sample: --beams searches for the likeliest text and draws nothing; leave out ${useless.join(", ")}`,
    );
  if (samples > beams)
    throw new ConfigError(`sample: ${beams} beams end in ${beams} texts at most, got --samples ${samples}`);
}

/** Flags that would be of no use are refused: who gave them meant something. */
function checkSource({ from }: Options, given: (name: OptionName) => boolean): void {
  for (const name of ["step", "tokenFile"] as const)
    if (given(name) && from === "") throw new ConfigError(`sample: ${flagOf(name)} belongs to --from; add it`);
}

/** @param byTurns with a person at the terminal, instead of one text */
async function sampleFrom(options: Options, byTurns: boolean): Promise<void> {
  const prompt = await readPrompt(options);
  const { model, tokenizer } = await load(options);
  // Refuse a prompt that is empty or has foreign characters before an engine is started.
  const ids = byTurns ? new Int32Array(0) : tokenizer.encode(prompt);
  if (ids.length === 0 && !byTurns) throw new ConfigError("sample: the prompt is empty; a model continues a text");
  const { samples, beams, stop } = options;
  const { engine, why } = await openEngine(
    options.engine,
    engineOptionsOf(options, model.model, Math.max(samples, beams), say),
  );
  try {
    say(`${model.what}; ${engine.name}, ${engine.device} (${why})`);
    await engine.setWeights(model.weights);
    if (byTurns) await converse(engine, tokenizer, options);
    else if (beams === 1) await print(prompt, continueText(engine, tokenizer, prompt, options), options);
    else {
      const has = (id: number): boolean => tokenizer.has(id);
      const found = await beamSearch(engine, ids, { ...options, finished: stopsAt(tokenizer, stop), has });
      const texts = found.slice(0, samples).map(({ tokens }) => prompt + textBefore(tokenizer, ids, tokens, stop));
      const shown = new ModelText(options.raw);
      shown.write(texts.join(separator));
      shown.end();
    }
  } finally {
    await engine.dispose();
  }
}

async function readPrompt({ prompt, promptFile }: Options): Promise<string> {
  if (promptFile !== "") return await readText(promptFile, `sample: --prompt-file ${promptFile}`);
  return prompt === "-" ? await readAll(process.stdin) : prompt;
}

/** The model and the tokenizer beside it. @throws ConfigError where they do not fit */
async function load(options: Options): Promise<{ model: LoadedModel; tokenizer: Tokenizer }> {
  const { checkpoint, model, from } = options;
  const sources = [checkpoint, model, from].filter((source) => source !== "");
  if (sources.length !== 1)
    throw new ConfigError(`sample: name one of --checkpoint, --model and --from; got ${sources.length || "none"}`);
  if (from === "") return await open(sources[0]!);
  const directory = await temporaryFolder("weft-sample-");
  try {
    const token = await tokenToShow(options.tokenFile, process.env);
    const pulled = await pullCheckpoint({
      from,
      step: options.step,
      token,
      out: directory,
      parts: "model",
      onRetry: say,
    });
    const opened = await open(pulled.directory);
    return { ...opened, model: { ...opened.model, what: `step ${pulled.checkpoint.step} of ${from}` } };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function open(path: string): Promise<{ model: LoadedModel; tokenizer: Tokenizer }> {
  const model = await openModel(path, say);
  return { model, tokenizer: await openTokenizerOf(model) };
}

const separator = "\n---------------\n";

/** The first text as it comes, the others after it. */
async function print(
  prompt: string,
  texts: AsyncIterable<{ sample: number; text: string }>,
  { samples, raw }: Options,
): Promise<void> {
  const later = Array.from({ length: samples }, () => prompt);
  const shown = new ModelText(raw);
  shown.write(prompt);
  for await (const { sample, text } of texts)
    if (sample === 0) shown.write(text);
    else later[sample] += text;
  for (const text of later.slice(1)) shown.write(separator + text);
  shown.end();
}
