// Every option, once: name, default, unit, check and help. The flags of the commands, the keys of a config file,
// `--help`, docs/options.md and the options saved with each checkpoint derive from this table.
import { availableParallelism } from "node:os";
import { closest, distance } from "fastest-levenshtein";
import { z } from "zod";
import { wireFormats } from "./arithmetic/codec.ts";
import { ConfigError } from "./errors.ts";
import { families, familyNames } from "./family/families.ts";
import { type ModelConfig, modelSchema, precisions } from "./model.ts";
import { isStoreAddress } from "./store/address.ts";
import { titleSchema } from "./wire/names.ts";

export type OptionGroup =
  | "model"
  | "data"
  | "training"
  | "run"
  | "engine"
  | "network"
  | "trust"
  | "serving"
  | "local"
  | "worker"
  | "source"
  | "sampling";

export type OptionValue = string | number | boolean | readonly string[];

export interface OptionSpec<T extends OptionValue = OptionValue> {
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
  /** Why this cannot change when a run goes on; what has no reason may. */
  readonly fixed?: string;
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

interface NumberCheck {
  readonly min?: number;
  readonly above?: number;
  readonly max?: number;
  readonly below?: number;
  readonly integer?: boolean;
}

const number = (
  group: OptionGroup,
  initial: number,
  check: NumberCheck,
  help: string,
  extra: { unit?: string; defaultText?: string } = {},
) => {
  const { min = -Infinity, above = -Infinity, max = Infinity, below = Infinity, integer = false } = check;
  const fits = (x: unknown): boolean =>
    typeof x === "number" &&
    Number.isFinite(x) &&
    x >= min &&
    (x > above || above === -Infinity) &&
    x <= max &&
    (x < below || below === Infinity) &&
    (!integer || Number.isSafeInteger(x));
  const bounds = { "at least": check.min, above: check.above, "at most": check.max, below: check.below };
  const said = Object.entries(bounds).flatMap(([word, bound]) => (bound === undefined ? [] : [`${word} ${bound}`]));
  const schema = z.custom<number>(fits, `must be a ${integer ? "whole " : ""}number ${said.join(" and ")}`.trimEnd());
  return { group, value: "N", default: initial, schema, help, ...extra } satisfies OptionSpec<number>;
};

const toggle = (group: OptionGroup, help: string) =>
  ({ group, default: false, schema: z.boolean(), help }) as OptionSpec<boolean>;

const toggleOn = (group: OptionGroup, help: string, helpWhenOff: string) =>
  ({ group, default: true, schema: z.boolean(), help, helpWhenOff }) as OptionSpec<boolean>;

/** A flag that may be given several times. */
const list = (group: OptionGroup, value: string, help: string) =>
  ({
    group,
    value,
    default: [],
    defaultText: "none",
    schema: z.array(z.string().min(1, "is empty")).readonly(),
    help,
  }) satisfies OptionSpec<readonly string[]>;

/** An option that a run keeps for good. */
const fixed = <T extends OptionSpec>(why: string, spec: T): T => ({ ...spec, fixed: why });

const shape = "the weights have this shape";
const maths = "the weights were learned with it";
const moments = "the optimizer's moments were averaged with it";

const integer = { integer: true } as const;

/** Where a coordinator is, ws:// or http://: its port speaks both. */
const address = z.string().refine((url) => URL.canParse(url) && /^(ws|http)s?:$/.test(new URL(url).protocol), {
  error: "must be an address such as ws://127.0.0.1:7070 or http://127.0.0.1:7070",
});

const abouts = familyNames.map((name) => families[name].about);
const familyHelp = `${abouts.slice(0, -1).join(", ")}, or ${abouts.at(-1)}`;

/** The table. A flag is the key in kebab case: `--learning-rate`; a switch also has its `--no-` form. */
export const optionTable = {
  family: fixed(shape, choice("model", familyNames, "gpt2", familyHelp)),
  blockSize: fixed(
    shape,
    number("model", 1024, { min: 1, ...integer }, "longest sequence the model sees", { unit: "tokens" }),
  ),
  nLayer: fixed(shape, number("model", 12, { min: 0, ...integer }, "transformer blocks")),
  nHead: fixed(shape, number("model", 12, { min: 0, ...integer }, "attention heads; divides nEmbd")),
  nEmbd: fixed(shape, number("model", 768, { min: 0, ...integer }, "width")),
  bias: fixed(shape, toggleOn("model", "biases in linear layers and norms", "no biases in linear layers and norms")),
  dropout: number("model", 0, { min: 0, below: 1 }, "probability that an activation is dropped in training"),
  activation: fixed(maths, choice("model", ["gelu_tanh", "gelu"], "gelu_tanh", "GPT-2's approximation, or exact GELU")),
  tiedHead: fixed(
    shape,
    toggleOn(
      "model",
      "the output head shares the token embedding",
      "the output head has weights of its own, not the token embedding's",
    ),
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
  tokenizer: fixed(
    "its ids are rows of the embedding",
    text("data", "NAME|DIR", "char", "char, gpt2, word:FILE, or a folder with a tokenizer"),
  ),

  valFraction: fixed(
    "the windows of every step are those of the rest",
    number("training", 0.1, { min: 0, below: 1 }, "last part of the tokens, kept for validation; 0: none"),
  ),
  steps: number("training", 2000, { min: 1, ...integer }, "updates of the weights"),
  batchSize: number("training", 12, { min: 1, ...integer }, "sequences in one step, over all workers", {
    unit: "sequences",
  }),
  shards: number("training", 4, { min: 1, max: 65_536, ...integer }, "equal parts of a batch, a power of two"),
  seed: fixed(
    "weights, batches and dropout follow from it",
    number("training", 1337, { min: 0, max: Number.MAX_SAFE_INTEGER, ...integer }, "of weights, batches, dropout"),
  ),
  learningRate: number("training", 6e-4, { above: 0 }, "peak learning rate"),
  minLearningRate: number("training", 6e-5, { min: 0 }, "learning rate at the end of the decay"),
  warmupSteps: number("training", 100, { min: 0, ...integer }, "linear rise to the peak", { unit: "steps" }),
  schedule: choice("training", ["cosine", "linear", "constant"], "cosine", "learning rate after the warm-up"),
  decaySteps: number("training", 0, { min: 0, ...integer }, "step at which the decay ends", {
    unit: "steps",
    defaultText: "steps",
  }),
  beta1: fixed(moments, number("training", 0.9, { min: 0, below: 1 }, "AdamW: decay of the first moment")),
  beta2: fixed(moments, number("training", 0.95, { min: 0, below: 1 }, "AdamW: decay of the second moment")),
  eps: number("training", 1e-8, { above: 0 }, "AdamW: added to the denominator"),
  weightDecay: number("training", 0.1, { min: 0 }, "AdamW: decay of matrices"),
  gradientClip: number("training", 1, { min: 0 }, "largest global gradient norm; 0 never clips"),
  localSteps: number(
    "training",
    1,
    { min: 1, max: 10_000, ...integer },
    "steps that each replica takes by itself between two exchanges (DiLoCo); the run goes on by so many at once",
    { unit: "steps" },
  ),
  replicas: number(
    "training",
    4,
    { min: 1, max: 65_536, ...integer },
    "with --local-steps: models trained apart, a power of two",
  ),
  innerState: fixed(
    "a checkpoint holds it or does not",
    choice(
      "training",
      ["averaged", "fresh"],
      "averaged",
      "with --local-steps: AdamW's moments at an exchange: averaged over the replicas, or begun anew",
    ),
  ),
  outerLearningRate: number("training", 0.7, { above: 0 }, "with --local-steps: of the exchange's Nesterov step"),
  outerMomentum: fixed(
    "the exchanges before were summed with it",
    number("training", 0.8, { min: 0, below: 1 }, "with --local-steps: of the exchange's Nesterov step"),
  ),
  evalInterval: number(
    "training",
    250,
    { min: 0, ...integer },
    "validation every so many steps, at the exchange after them; 0: at the end only",
    {
      unit: "steps",
    },
  ),
  evalWindows: number("training", 0, { min: 0, ...integer }, "windows of a validation on the way; 0: all", {
    unit: "windows",
  }),

  out: text("run", "DIR", "", "folder of the run: checkpoints, ledger, options", "runs/<preset or model>"),
  resume: toggle("run", "go on with the run in --out, from its newest whole checkpoint and with its options"),
  resumeOrStart: toggle("run", "go on with the run in --out where there is one, else start it: for services"),
  dryRun: toggle("run", "say what the run would be, what memory and time it takes, and write nothing"),
  initFrom: text("run", "DIR", "", "start from these weights: a checkpoint or Hugging Face folder", "none"),
  windowsFile: fixed(
    "the windows of every step stand in it",
    text(
      "run",
      "FILE",
      "",
      "window starts to train on instead of drawn ones: uint32 little-endian, steps x batchSize",
      "none",
    ),
  ),
  checkpointInterval: number(
    "run",
    500,
    { min: 0, ...integer },
    "checkpoint every so many steps, at the exchange after them; 0: at the end only",
    {
      unit: "steps",
    },
  ),
  checkpointTo: {
    ...text("run", "URL", "", "object store for checkpoints as well: s3://bucket/prefix; --resume finds them", "none"),
    schema: z.string().refine((url) => url === "" || isStoreAddress(url), "must be an address such as s3://bucket/run"),
  },
  evalSampleTokens: number(
    "run",
    100,
    { min: 0, max: 4096, ...integer },
    "length of the sample after each validation; 0: none",
    { unit: "tokens" },
  ),
  prompt: text("run", "TEXT", "\n", "what samples begin with", "a line break"),
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
  precision: fixed(
    "it decides the last bits of every step",
    choice("training", precisions, "float32", "inputs of matrix products, sums stay float32; tf32 on NVIDIA GPUs only"),
  ),
  wire: fixed(
    "it decides the last bits of every step",
    choice(
      "training",
      wireFormats,
      "float32",
      "how gradients and updates travel; each sum of the tree is rounded to it",
    ),
  ),
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
  tokenFile: text("network", "FILE", "", "file with the run's token, which workers and viewers show", "WEFT_TOKEN"),
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
  verify: number(
    "trust",
    0,
    { min: 0, max: 1 },
    "share of the leases that a second worker confirms before they count, and each worker's first ones",
  ),
  onLiar: choice(
    "trust",
    ["rollback", "quarantine", "stop"],
    "rollback",
    "who gives wrong answers goes; what it gave unconfirmed is undone, or stays, or the run stops",
  ),
  allow: list("trust", "NAME", "let a worker, or an address, out of quarantine; may be given several times"),

  workers: number("local", 2, { min: 1, max: 256, ...integer }, "worker processes on this machine"),
  sampleTokens: number("local", 500, { min: 0, ...integer }, "length of the sample at the end", { unit: "tokens" }),

  coordinator: {
    ...list("worker", "URL", "coordinator or relay to work for, ws:// or http://; more: who is tried next"),
    default: ["ws://127.0.0.1:7070"] as readonly string[],
    defaultText: "ws://127.0.0.1:7070",
    schema: z.array(address).min(1).readonly(),
  },
  name: {
    ...text("worker", "NAME", "", "name of this worker in status and ledger", "host name and process id"),
    schema: z.union([z.literal(""), titleSchema]),
  },
  patience: number("worker", 60, { min: 0 }, "give up when the coordinator cannot be reached for so long", {
    unit: "seconds",
  }),
  dataAtWorker: text(
    "worker",
    "SOURCE",
    "",
    "draw windows from the run's data here instead of being sent them: as --data; refused where they are others",
    "windows are sent",
  ),
  gpus: text(
    "worker",
    "LIST",
    "",
    "all, none, or numbers such as 0,2: one process for all (xla), or for each (tfjs, --processes)",
    "none",
  ),
  processes: number("worker", 1, { min: 1, max: 1024, ...integer }, "processes on the CPU, which share its cores"),

  checkpoint: text(
    "source",
    "PATH",
    "",
    "a checkpoint, or a run's folder: its best, else final or newest one; s3:// too",
    "none",
  ),
  model: text("source", "DIR", "", "a Hugging Face GPT-2 or OpenAI-GPT folder, or OpenAI's GPT-2 release", "none"),
  from: {
    ...text("source", "URL", "", "coordinator, http:// or ws://, or an object store, s3://bucket/prefix", "none"),
    schema: z.string().refine((url) => url === "" || isStoreAddress(url) || address.safeParse(url).success, {
      error: "must be an address such as http://127.0.0.1:7070 or s3://bucket/run",
    }),
  },
  step: {
    ...text("source", "WHICH", "latest", "with --from: latest, best, final or the number of a step"),
    schema: z.string().regex(/^(latest|best|final|\d{1,15})$/, "must be latest, best, final or the number of a step"),
  },
  modelOnly: toggle("source", "leave out the optimizer's state, which only training needs"),
  split: choice("source", ["val", "train", "all"], "val", "val (the last part), train, or all"),
  vocabSize: number(
    "source",
    1024,
    { min: 257, max: 1_000_000, ...integer },
    "of a trained tokenizer: 256 bytes, the merges, and <|endoftext|>",
    { unit: "tokens" },
  ),
  json: toggle("source", "as JSON, for programs"),
  format: choice("source", ["csv", "jsonl", "tensorboard"], "csv", "form of the exported curves"),

  promptFile: text("sampling", "FILE", "", "file with what the text begins with", "none"),
  tokens: number("sampling", 500, { min: 1, ...integer }, "longest continuation, in tokens"),
  temperature: number("sampling", 0.8, { min: 0 }, "logits are divided by it; 0 takes the likeliest token"),
  topK: number("sampling", 200, { min: 0, ...integer }, "draw from the N likeliest tokens; 0: from all"),
  topP: number("sampling", 1, { above: 0, max: 1 }, "draw from the fewest likeliest tokens of this probability"),
  repetitionPenalty: number("sampling", 1, { above: 0 }, "above 1 makes tokens that the text has already less likely"),
  beams: number("sampling", 1, { min: 1, max: 1024, ...integer }, "search for the likeliest text; 1 draws"),
  lengthPenalty: number("sampling", 1, {}, "with --beams: a text's score is its log-probability / length^N"),
  samples: number("sampling", 1, { min: 1, max: 1024, ...integer }, "texts side by side; with --beams the N best"),
  raw: toggle("sampling", "every character as the model wrote it, also those that a terminal obeys"),
  stop: list("sampling", "TEXT", "end before this text; may be given several times"),
} as const satisfies Record<string, OptionSpec>;

export type OptionName = keyof typeof optionTable;
export type Options = { -readonly [K in OptionName]: z.infer<(typeof optionTable)[K]["schema"]> };

/** `--learning-rate` for learningRate. */
export function flagOf(name: string): string {
  return `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

/** What says that a switch is off: `--no-stay`. */
export function offFlagOf(name: string): string {
  return flagOf(name).replace("--", "--no-");
}

/** Options as the words of a command line that sets them; what is undefined is left to its default. */
export function flagsFor(options: { readonly [K in OptionName]?: Options[K] | undefined }): string[] {
  return Object.entries(options).flatMap(([name, value]) => {
    if (value === undefined) return [];
    if (typeof value === "boolean") return [value ? flagOf(name) : offFlagOf(name)];
    return [value].flat().flatMap((one) => [flagOf(name), String(one)]);
  });
}

/** The nearest of the known words, as the end of a message; nothing when none is near. */
export function didYouMean(word: string, known: readonly string[]): string {
  if (known.length === 0) return "";
  const near = closest(word, [...known]);
  return distance(word, near) <= Math.max(2, word.length / 3) ? `; did you mean "${near}"?` : "";
}

/** A value from a flag's text: numbers are read, text stays; what is no number stays text, which the check refuses. */
export function parseFlag(name: OptionName, raw: string, before?: unknown): OptionValue {
  const { default: initial }: OptionSpec = optionTable[name];
  if (Array.isArray(initial)) return [...((before as readonly string[]) ?? []), raw];
  if (typeof initial !== "number") return raw;
  const value = raw.trim() === "" ? Number.NaN : Number(raw);
  return Number.isNaN(value) ? raw : value;
}

/** What a value must be, from the error of its check. */
export function expectation(error: z.ZodError): string {
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
