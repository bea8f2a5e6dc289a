// `weft sample`: text from a checkpoint, an imported model or a running coordinator, streamed to the terminal as it
// comes. The text alone goes to standard output; what was loaded and who computes, to standard error.
import { rm } from "node:fs/promises";
import { text as readAll } from "node:stream/consumers";
import { Command } from "commander";
import { tokenToShow } from "../coordinator/serve/access.ts";
import type { LoadedModel } from "../shared/checkpoint/rundir.ts";
import { flagOf, type Options, optionTable } from "../shared/config.ts";
import { beamSearch } from "../shared/decoding/beam.ts";
import { continueText, stopsAt, textBefore } from "../shared/decoding/text.ts";
import { temporaryFolder } from "../shared/disk.ts";
import { ConfigError } from "../shared/errors.ts";
import { readText } from "../shared/json.ts";
import { openModel } from "../shared/store/model.ts";
import { openTokenizerOf } from "../shared/tokenizers/open.ts";
import type { Tokenizer } from "../shared/tokenizers/tokenizer.ts";
import { openEngine } from "../worker/engine/choose.ts";
import { engineOptionsOf } from "../worker/engine/options.ts";
import { addOptions, optionsOf } from "./options.ts";
import { pullCheckpoint } from "./pull-checkpoint.ts";
import { ModelText, say } from "./terminal.ts";

interface NumberCheck {
  readonly min?: number;
  readonly above?: number;
  readonly max?: number;
  readonly integer?: boolean;
}

const whole = { integer: true } as const;

/** Flags with a number: default, check and help. */
const numberFlags = {
  tokens: { initial: 500, min: 1, ...whole, help: "longest continuation, in tokens" },
  temperature: { initial: 0.8, min: 0, help: "logits are divided by it; 0 takes the likeliest token" },
  topK: { initial: 200, min: 0, ...whole, help: "draw from the N likeliest tokens; 0: from all" },
  topP: { initial: 1, above: 0, max: 1, help: "draw from the fewest likeliest tokens that reach this probability" },
  repetitionPenalty: { initial: 1, above: 0, help: "above 1 makes tokens that the text has already less likely" },
  beams: { initial: 1, min: 1, max: 1024, ...whole, help: "search for the likeliest text with N beams; 1 draws" },
  lengthPenalty: { initial: 1, help: "with --beams: a text's score is its log-probability / length^N" },
  samples: { initial: 1, min: 1, max: 1024, ...whole, help: "texts side by side; with --beams the N best" },
  seed: { initial: optionTable.seed.default, min: 0, ...whole, help: "same seed, same text" },
} as const satisfies Record<string, NumberCheck & { initial: number; help: string }>;

interface SampleFlags extends Record<keyof typeof numberFlags, number> {
  checkpoint?: string;
  model?: string;
  from?: string;
  step: string;
  tokenFile?: string;
  prompt: string;
  promptFile?: string;
  stop?: string[];
  raw: boolean;
}

/** Flags that say how to draw: a beam search draws nothing. */
const drawing = ["temperature", "topK", "topP", "seed"] as const;

export function sampleCommand(): Command {
  const command = new Command("sample")
    .description("write text with a model: from a checkpoint, a Hugging Face or GPT-2 release folder, or a running run")
    .option(
      "--checkpoint <PATH>",
      "a checkpoint, or a run's folder: its best checkpoint, else the final or newest; s3:// too",
    )
    .option("--model <DIR>", "a Hugging Face GPT-2 or OpenAI-GPT folder, or OpenAI's GPT-2 release")
    .option("--from <URL>", "fetch the checkpoint from this coordinator, such as http://127.0.0.1:7070")
    .option("--step <WHICH>", "with --from: latest, best, final or the number of a step", "latest")
    .option("--token-file <FILE>", "with --from: file with the run's token (default: the variable WEFT_TOKEN)")
    .option("--prompt <TEXT>", "what the text begins with; - reads standard input", optionTable.prompt.default)
    .option("--prompt-file <FILE>", "file with what the text begins with")
    .option("--stop <TEXT>", "end before this text; may be given several times", collect)
    .option("--raw", "every character as the model wrote it, also those that a terminal obeys", false);
  for (const [name, { initial, help, ...check }] of Object.entries(numberFlags))
    command.option(`${flagOf(name)} <N>`, help, (raw) => numberOf(flagOf(name), check, raw), initial);
  command.option(`--precision <${optionTable.precision.value}>`, optionTable.precision.help, "float32");
  addOptions(command, ["engine"]);
  return command.action(async () => {
    const flags = command.opts<SampleFlags>();
    checkBeams(flags, (name) => command.getOptionValueSource(name) === "cli");
    await sampleFrom(flags, await optionsOf(command));
  });
}

/** @throws ConfigError with what came and what was expected */
function numberOf(flag: string, { min, above, max, integer }: NumberCheck, raw: string): number {
  const value = raw.trim() === "" ? Number.NaN : Number(raw);
  const fits =
    Number.isFinite(value) &&
    value >= (min ?? value) &&
    value > (above ?? -Infinity) &&
    value <= (max ?? value) &&
    (!integer || Number.isSafeInteger(value));
  if (fits) return value;
  const bounds = Object.entries({ above, "at least": min, "at most": max }).filter(([, bound]) => bound !== undefined);
  const expected = bounds.map(([word, bound]) => ` ${word} ${bound}`).join(" and");
  throw new ConfigError(`sample: ${flag} must be a ${integer ? "whole " : ""}number${expected}, got "${raw}"`);
}

function collect(value: string, before: string[] = []): string[] {
  if (value === "") throw new ConfigError("sample: --stop is empty; every text would end at once");
  return [...before, value];
}

function checkBeams({ beams, samples }: SampleFlags, given: (name: string) => boolean): void {
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

async function sampleFrom(flags: SampleFlags, options: Options): Promise<void> {
  const prompt = await readPrompt(flags);
  const { model, tokenizer } = await load(flags);
  // Refuse a prompt that is empty or has foreign characters before an engine is started.
  const ids = tokenizer.encode(prompt);
  if (ids.length === 0) throw new ConfigError("sample: the prompt is empty; a model continues a text");
  const { samples, beams, stop = [] } = flags;
  const { engine, why } = await openEngine(
    options.engine,
    engineOptionsOf(options, model.model, Math.max(samples, beams)),
  );
  try {
    say(`${model.what}; ${engine.name}, ${engine.device} (${why})`);
    await engine.setWeights(model.weights);
    if (beams === 1) await print(prompt, continueText(engine, tokenizer, prompt, { ...flags, stop }), flags);
    else {
      const has = (id: number): boolean => tokenizer.has(id);
      const found = await beamSearch(engine, ids, { ...flags, finished: stopsAt(tokenizer, stop), has });
      const texts = found.slice(0, samples).map(({ tokens }) => prompt + textBefore(tokenizer, tokens, stop));
      const shown = new ModelText(flags.raw);
      shown.write(texts.join(separator));
      shown.end();
    }
  } finally {
    await engine.dispose();
  }
}

async function readPrompt({ prompt, promptFile }: SampleFlags): Promise<string> {
  if (promptFile !== undefined) return await readText(promptFile, `sample: --prompt-file ${promptFile}`);
  return prompt === "-" ? await readAll(process.stdin) : prompt;
}

/** The model and the tokenizer beside it. @throws ConfigError where they do not fit */
async function load(flags: SampleFlags): Promise<{ model: LoadedModel; tokenizer: Tokenizer }> {
  const { checkpoint, model, from } = flags;
  const sources = [checkpoint, model, from].filter((source) => source !== undefined);
  if (sources.length !== 1)
    throw new ConfigError(`sample: name one of --checkpoint, --model and --from; got ${sources.length || "none"}`);
  if (from === undefined) return await open(sources[0]!);
  const directory = await temporaryFolder("weft-sample-");
  try {
    const token = await tokenToShow(flags.tokenFile ?? "", process.env);
    const pulled = await pullCheckpoint({
      from,
      step: flags.step,
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
  { samples, raw }: SampleFlags,
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
