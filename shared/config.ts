// Every option of a run, once: name, default, unit, check and help. The flags of the commands, the keys of a config
// file, `--help`, the README's table and the options saved with each checkpoint all derive from this table.
import { availableParallelism } from "node:os";
import { closest, distance } from "fastest-levenshtein";
import { z } from "zod";
import { ConfigError } from "./errors.ts";
import { families, familyNames } from "./family/families.ts";
import { type ModelConfig, modelSchema } from "./model.ts";
import { isStoreAddress } from "./store/address.ts";
import { titleSchema } from "./wire/names.ts";

export type OptionGroup = "model" | "data" | "training" | "run" | "engine" | "network" | "serving" | "local" | "worker";

export interface OptionSpec<T extends string | number | boolean = string | number | boolean> {
  readonly group: OptionGroup;
  /** Placeholder of the value in `--help`; none for a switch. */
  readonly value?: string;
  readonly unit?: string;
  readonly default: T;
  /** What `--help` shows for a default that is worked out at the start. */
  readonly defaultText?: string;
  readonly schema: z.ZodType<T>;
  readonly help: string;
  /** Of a switch that is on unless told otherwise: what its --no- form does. */
  readonly helpWhenOff?: string;
}

const text = (group: OptionGroup, value: string, initial: string, help: string, defaultText?: string) =>
  ({
    group,
    value,
    default: initial,
    schema: z.string(),
    help,
    ...(defaultText && { defaultText }),
  }) satisfies OptionSpec<string>;

const choice = <const T extends string>(group: OptionGroup, values: readonly [T, ...T[]], initial: T, help: string) =>
  ({ group, value: values.join("|"), default: initial, schema: z.enum(values), help }) as OptionSpec<T>;

const number = (
  group: OptionGroup,
  initial: number,
  check: { min?: number; above?: number; max?: number; below?: number; integer?: boolean },
  help: string,
  extra: { unit?: string; defaultText?: string } = {},
) => {
  let schema = check.integer ? z.int() : z.number();
  if (check.min !== undefined) schema = schema.min(check.min);
  if (check.above !== undefined) schema = schema.gt(check.above);
  if (check.max !== undefined) schema = schema.max(check.max);
  if (check.below !== undefined) schema = schema.lt(check.below);
  return { group, value: "N", default: initial, schema, help, ...extra } satisfies OptionSpec<number>;
};

const toggle = (group: OptionGroup, help: string) =>
  ({ group, default: false, schema: z.boolean(), help }) as OptionSpec<boolean>;

const toggleOn = (group: OptionGroup, help: string, helpWhenOff: string) =>
  ({ group, default: true, schema: z.boolean(), help, helpWhenOff }) as OptionSpec<boolean>;

const integer = { integer: true } as const;

const isWebSocketAddress = (url: string) => URL.canParse(url) && /^wss?:$/.test(new URL(url).protocol);

const abouts = familyNames.map((name) => families[name].about);
const familyHelp = `${abouts.slice(0, -1).join(", ")}, or ${abouts.at(-1)}`;

/** The table. A flag is the key in kebab case: `--learning-rate`; a switch also has its `--no-` form. */
export const optionTable = {
  family: choice("model", familyNames, "gpt2", familyHelp),
  blockSize: number("model", 1024, { min: 1, ...integer }, "longest sequence the model sees", { unit: "tokens" }),
  nLayer: number("model", 12, { min: 0, ...integer }, "transformer blocks"),
  nHead: number("model", 12, { min: 0, ...integer }, "attention heads; divides nEmbd"),
  nEmbd: number("model", 768, { min: 0, ...integer }, "width"),
  bias: toggleOn("model", "biases in linear layers and norms", "no biases in linear layers and norms"),
  dropout: number("model", 0, { min: 0, below: 1 }, "probability that an activation is dropped in training"),
  activation: choice("model", ["gelu_tanh", "gelu"], "gelu_tanh", "GPT-2's approximation, or exact GELU"),
  tiedHead: toggleOn(
    "model",
    "the output head shares the token embedding",
    "the output head has weights of its own, not the token embedding's",
  ),

  data: text(
    "data",
    "SOURCE",
    "shakespeare",
    "text, JSON lines, Parquet, .bin or .npy file, folder, glob, s3:// of .bin, -, or `shakespeare`",
  ),
  textColumn: text("data", "NAME", "text", "column of JSON lines and Parquet files that holds the text"),
  unknown: choice(
    "data",
    ["error", "skip"],
    "error",
    "what a list of characters or words lacks: refuse it, or leave it out",
  ),
  extendVocabulary: toggle("data", "with --init-from: new characters of the text get new rows, drawn as at the start"),
  tokenizer: text("data", "NAME|DIR", "char", "char, gpt2, word:FILE, or a folder with a tokenizer"),

  valFraction: number("training", 0.1, { min: 0, below: 1 }, "last part of the tokens, kept for validation; 0: none"),
  steps: number("training", 2000, { min: 1, ...integer }, "updates of the weights"),
  batchSize: number("training", 12, { min: 1, ...integer }, "sequences in one step, over all workers", {
    unit: "sequences",
  }),
  shards: number("training", 4, { min: 1, max: 65_536, ...integer }, "equal parts of a batch, a power of two"),
  seed: number("training", 1337, { min: 0, max: Number.MAX_SAFE_INTEGER, ...integer }, "of weights, batches, dropout"),
  learningRate: number("training", 6e-4, { above: 0 }, "peak learning rate"),
  minLearningRate: number("training", 6e-5, { min: 0 }, "learning rate at the end of the decay"),
  warmupSteps: number("training", 100, { min: 0, ...integer }, "linear rise to the peak", { unit: "steps" }),
  schedule: choice("training", ["cosine", "linear", "constant"], "cosine", "learning rate after the warm-up"),
  decaySteps: number("training", 0, { min: 0, ...integer }, "step at which the decay ends", {
    unit: "steps",
    defaultText: "steps",
  }),
  beta1: number("training", 0.9, { min: 0, below: 1 }, "AdamW: decay of the first moment"),
  beta2: number("training", 0.95, { min: 0, below: 1 }, "AdamW: decay of the second moment"),
  eps: number("training", 1e-8, { above: 0 }, "AdamW: added to the denominator"),
  weightDecay: number("training", 0.1, { min: 0 }, "AdamW: decay of matrices"),
  gradientClip: number("training", 1, { min: 0 }, "largest global gradient norm; 0 never clips"),
  evalInterval: number("training", 250, { min: 0, ...integer }, "validation every so many steps; 0: at the end only", {
    unit: "steps",
  }),
  evalWindows: number("training", 0, { min: 0, ...integer }, "windows of a validation on the way; 0: all", {
    unit: "windows",
  }),

  out: text("run", "DIR", "", "folder of the run: checkpoints, ledger, options", "runs/<preset or model>"),
  resume: toggle("run", "go on from the newest whole checkpoint in --out"),
  initFrom: text("run", "DIR", "", "start from these weights: a checkpoint or Hugging Face folder", "none"),
  windowsFile: text(
    "run",
    "FILE",
    "",
    "window starts to train on instead of drawn ones: uint32 little-endian, steps x batchSize",
    "none",
  ),
  checkpointInterval: number("run", 500, { min: 0, ...integer }, "checkpoint every so many steps; 0: at the end only", {
    unit: "steps",
  }),
  checkpointTo: {
    ...text("run", "URL", "", "object store for checkpoints as well: s3://bucket/prefix; --resume finds them", "none"),
    schema: z.string().refine((url) => url === "" || isStoreAddress(url), "must be an address such as s3://bucket/run"),
  },
  keepCheckpoints: number("run", 3, { min: 1, ...integer }, "newest checkpoints to keep, beside best and final"),

  engine: choice(
    "engine",
    ["auto", "native", "xla", "tfjs"],
    "auto",
    "who computes; auto takes the fastest that works here",
  ),
  device: choice("engine", ["auto", "cpu", "gpu"], "auto", "gpu refuses to start where none is usable"),
  backend: choice(
    "engine",
    ["auto", "tensorflow-gpu", "tensorflow", "webgpu", "wasm"],
    "auto",
    "of the tfjs engine; auto takes the first usable of this list, webgpu aside",
  ),
  isa: choice(
    "engine",
    ["auto", "avx512", "avx512bf16", "avx2", "neon", "plain"],
    "auto",
    "instruction set of the native engine",
  ),
  precision: choice("training", ["float32", "bf16"], "float32", "inputs of matrix products; sums stay float32"),
  threads: number("engine", 0, { min: 0, max: 1024, ...integer }, "threads of one worker", {
    defaultText: "this machine's cores over its workers",
  }),
  memoryLimit: number("engine", 0, { min: 0 }, "refuse to start when more is needed", {
    unit: "GiB",
    defaultText: "what is free",
  }),
  anyArithmetic: toggle("training", "take workers of any engine together; the bits then depend on who came"),
  checkpointActivations: toggle("engine", "recompute activations block by block to save memory"),

  host: text("network", "ADDRESS", "127.0.0.1", "address to listen on; beyond loopback a token is required"),
  port: number("network", 7070, { min: 0, max: 65_535, ...integer }, "port of WebSocket and HTTP; 0: any free one"),
  tokenFile: text("network", "FILE", "", "file with the token that workers and viewers must show", "WEFT_TOKEN"),
  tls: choice("network", ["off", "self-signed"], "off", "encrypt the port, with a certificate kept beside the run"),
  tlsCert: text("network", "FILE", "", "encrypt the port with this certificate (PEM, with its chain)", "none"),
  tlsKey: text("network", "FILE", "", "private key of --tls-cert (PEM)", "none"),
  timeout: number("network", 30, { min: 1, max: 3600 }, "longest silence of a peer; other waits derive from it", {
    unit: "seconds",
  }),
  stay: toggleOn(
    "serving",
    "go on serving status and checkpoints after the last step, until interrupted",
    "end after the last step, instead of serving the page and checkpoints until interrupted",
  ),
  sharedMemory: toggleOn(
    "network",
    "workers on this machine share weights and gradients instead of sending them",
    "workers on this machine too are sent weights and send gradients, instead of sharing memory",
  ),
  maxWorkers: number("network", 256, { min: 1, max: 65_536, ...integer }, "most connections at once"),

  workers: number("local", 2, { min: 1, max: 256, ...integer }, "worker processes on this machine"),
  sampleTokens: number("local", 500, { min: 0, ...integer }, "length of the sample at the end", { unit: "tokens" }),
  prompt: text("local", "TEXT", "\n", "what the sample begins with", "a line break"),

  coordinator: {
    ...text("worker", "URL", "ws://127.0.0.1:7070", "coordinator to work for, ws:// or wss://"),
    schema: z.string().refine(isWebSocketAddress, "must be an address such as ws://127.0.0.1:7070"),
  },
  name: {
    ...text("worker", "NAME", "", "name of this worker in status and ledger", "host name and process id"),
    schema: z.union([z.literal(""), titleSchema]),
  },
  patience: number("worker", 60, { min: 0 }, "give up when the coordinator cannot be reached for so long", {
    unit: "seconds",
  }),
} as const satisfies Record<string, OptionSpec>;

export type OptionName = keyof typeof optionTable;
export type Options = { -readonly [K in OptionName]: z.infer<(typeof optionTable)[K]["schema"]> };

const defaults = Object.fromEntries(Object.entries(optionTable).map(([name, spec]) => [name, spec.default])) as Options;

/** Ready settings: nanoGPT's two for Shakespeare, GPT-2's four sizes (Radford et al. 2019, table 2), GPT-1, a bigram. */
export const presets: Readonly<Record<string, { about: string; options: Partial<Options> }>> = {
  "shakespeare-cpu": {
    about: "nanoGPT's CPU setting: 0.8M parameters, minutes on a laptop",
    options: {
      blockSize: 64,
      nLayer: 4,
      nHead: 4,
      nEmbd: 128,
      bias: false,
      dropout: 0,
      activation: "gelu",
      batchSize: 12,
      shards: 4,
      steps: 2000,
      evalInterval: 500,
      checkpointInterval: 500,
      learningRate: 1e-3,
      minLearningRate: 1e-4,
      warmupSteps: 100,
      beta2: 0.99,
    },
  },
  "shakespeare-char": {
    about: "nanoGPT's GPU setting: 10.7M parameters",
    options: {
      blockSize: 256,
      nLayer: 6,
      nHead: 6,
      nEmbd: 384,
      bias: false,
      dropout: 0.2,
      activation: "gelu",
      batchSize: 64,
      shards: 8,
      steps: 5000,
      evalInterval: 250,
      checkpointInterval: 250,
      learningRate: 1e-3,
      minLearningRate: 1e-4,
      warmupSteps: 100,
      beta2: 0.99,
    },
  },
  ...Object.fromEntries(
    (
      [
        ["gpt2-124m", 12, 12, 768],
        ["gpt2-355m", 24, 16, 1024],
        ["gpt2-774m", 36, 20, 1280],
        ["gpt2-1558m", 48, 25, 1600],
      ] as const
    ).map(([name, nLayer, nHead, nEmbd]) => [
      name,
      {
        about: `GPT-2, ${nLayer} layers, ${nEmbd} wide`,
        options: {
          tokenizer: "gpt2",
          blockSize: 1024,
          nLayer,
          nHead,
          nEmbd,
          batchSize: 480,
          shards: 32,
          steps: 600_000,
          warmupSteps: 2000,
          evalInterval: 1000,
          evalWindows: 512,
          checkpointInterval: 1000,
        } satisfies Partial<Options>,
      },
    ]),
  ),
  "gpt1-117m": {
    about: "GPT-1 (Radford et al. 2018): post-norm, exact GELU",
    options: {
      family: "gpt1",
      blockSize: 512,
      nLayer: 12,
      nHead: 12,
      nEmbd: 768,
      dropout: 0.1,
      activation: "gelu",
      tokenizer: "gpt2",
      batchSize: 64,
      shards: 16,
      steps: 100_000,
      beta2: 0.999,
      weightDecay: 0.01,
      learningRate: 2.5e-4,
      minLearningRate: 0,
      warmupSteps: 2000,
      evalInterval: 1000,
      evalWindows: 512,
    },
  },
  bigram: {
    about: "a table of token pairs",
    options: {
      family: "bigram",
      blockSize: 8,
      nLayer: 0,
      nHead: 0,
      nEmbd: 0,
      batchSize: 32,
      shards: 4,
      steps: 3000,
      schedule: "constant",
      learningRate: 1e-2,
      warmupSteps: 0,
      beta2: 0.999,
      weightDecay: 0.01,
      gradientClip: 0,
    },
  },
};

/** `--learning-rate` for learningRate. */
export function flagOf(name: string): string {
  return `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

/** The nearest of the known words, as the end of a message; nothing when none is near. */
export function didYouMean(word: string, known: readonly string[]): string {
  if (known.length === 0) return "";
  const near = closest(word, [...known]);
  return distance(word, near) <= Math.max(2, word.length / 3) ? `; did you mean "${near}"?` : "";
}

/** A value from a flag's text: numbers and switches are read, text stays. @throws ConfigError with what came */
export function parseFlag(name: OptionName, raw: string): string | number | boolean {
  const spec: OptionSpec = optionTable[name];
  if (typeof spec.default !== "number") return raw;
  const value = raw.trim() === "" ? Number.NaN : Number(raw);
  if (Number.isNaN(value)) throw new ConfigError(`config: ${flagOf(name)} must be a number, got "${raw}"`);
  return value;
}

/**
 * Defaults, then the preset, then the config file, then the flags; the later wins.
 * @throws ConfigError that names the place, the key, what came and what was expected
 */
export function resolveOptions(sources: {
  preset?: string | undefined;
  file?: { path: string; values: Record<string, unknown> } | undefined;
  flags?: Partial<Record<OptionName, unknown>>;
}): Options {
  const { file, flags = {} } = sources;
  const { preset: filePreset, ...fileValues } = file?.values ?? {};
  const preset = sources.preset ?? (filePreset as string | undefined);
  if (preset !== undefined && !Object.hasOwn(presets, preset))
    throw new ConfigError(
      `config: unknown preset "${preset}"${didYouMean(preset, Object.keys(presets)) || `; there are ${Object.keys(presets).join(", ")}`}`,
    );
  const names = Object.keys(optionTable);
  for (const key of Object.keys(fileValues))
    if (!Object.hasOwn(optionTable, key))
      throw new ConfigError(`config: unknown key "${key}" in ${file?.path}${didYouMean(key, names)}`);

  const resolved: Record<string, unknown> = { ...defaults, ...(preset ? presets[preset]!.options : {}) };
  for (const [origin, values] of [
    [file?.path, fileValues],
    [undefined, flags],
  ] as const)
    for (const [name, value] of Object.entries(values)) {
      if (value === undefined) continue;
      const spec: OptionSpec = optionTable[name as OptionName];
      const parsed = spec.schema.safeParse(value);
      if (!parsed.success)
        throw new ConfigError(
          `config: ${origin ? `"${name}" in ${origin}` : flagOf(name)}: ${expectation(parsed.error)}, got ${JSON.stringify(value)}`,
        );
      resolved[name] = parsed.data;
    }
  const options = resolved as Options;
  options.decaySteps ||= options.steps;
  options.out ||= `runs/${preset ?? options.family}`;
  checkTogether(options);
  return options;
}

/** The options that are not at their defaults. */
export function changedOptions(options: Options): Partial<Options> {
  return Object.fromEntries(Object.entries(options).filter(([name, value]) => value !== defaults[name as OptionName]));
}

/** The rules that need two options at once. */
function checkTogether(options: Options): void {
  const { shards, batchSize } = options;
  if ((shards & (shards - 1)) !== 0) throw new ConfigError(`config: --shards must be a power of two, got ${shards}`);
  if (batchSize % shards !== 0)
    throw new ConfigError(
      `config: --batch-size ${batchSize} does not divide into ${shards} shards; take a multiple of ${shards}, or --shards ${largestPowerOfTwoIn(batchSize)}`,
    );
}

function largestPowerOfTwoIn(n: number): number {
  return n & -n;
}

function expectation(error: z.ZodError): string {
  return error.issues.map((issue) => issue.message.replace(/^Invalid (input|option): /, "")).join("; ");
}

/** The model that the options and a vocabulary describe. @throws ConfigError */
export function modelOf(options: Options, vocabSize: number): ModelConfig {
  const { family, blockSize, nLayer, nHead, nEmbd, bias, dropout, activation, tiedHead } = options;
  const parsed = modelSchema.safeParse({
    family,
    vocabSize,
    blockSize,
    nLayer,
    nHead,
    nEmbd,
    bias,
    dropout,
    activation,
    tiedHead,
    layerNormEps: 1e-5,
  });
  if (!parsed.success) throw new ConfigError(`config: ${expectation(parsed.error)}`);
  return parsed.data;
}

/** Threads of each of `processes` workers that share this machine. */
export function threadsEach(processes: number): number {
  return Math.max(1, Math.floor(availableParallelism() / processes));
}
