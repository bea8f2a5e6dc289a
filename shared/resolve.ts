// From where options come to what they are: the table's defaults, a preset, the run that goes on, a config file, flags.
// The later wins, and each option remembers who gave it: what was asked for is never changed or dropped in silence.
import {
  didYouMean,
  expectation,
  flagOf,
  type OptionGroup,
  type OptionName,
  type OptionSpec,
  type Options,
  optionTable,
} from "./config.ts";
import { ConfigError } from "./errors.ts";
import { presets } from "./presets.ts";

/** Who gave an option its value, the weakest first. */
export const origins = ["default", "preset", "run", "file", "flag"] as const;
export type Origin = (typeof origins)[number];

export interface Sources {
  /** Defaults of a command that are not the table's. */
  readonly defaults?: Partial<Options> | undefined;
  readonly preset?: string | undefined;
  /** Taken where nothing at all says what the model is. */
  readonly impliedPreset?: string | undefined;
  /** What a run that goes on was made with. */
  readonly run?: { readonly directory: string; readonly values: Readonly<Record<string, unknown>> } | undefined;
  readonly file?: { readonly path: string; readonly values: Readonly<Record<string, unknown>> } | undefined;
  readonly flags?: Readonly<Partial<Record<OptionName, unknown>>> | undefined;
}

export interface Resolved {
  readonly options: Options;
  readonly origins: Readonly<Record<OptionName, Origin>>;
  readonly preset: string | undefined;
  /** What is allowed but hardly meant, as sentences. */
  readonly notes: readonly string[];
}

const entries = Object.entries(optionTable) as [OptionName, OptionSpec][];

/** What a run is made of, and takes along when it goes on. */
const kept: readonly OptionGroup[] = [
  "model",
  "data",
  "training",
  "run",
  "engine",
  "network",
  "trust",
  "serving",
  "local",
];
const notKept: readonly string[] = ["out", "resume", "resumeOrStart", "dryRun", "allow"];

/** The options that are saved with a run. */
export function keptOptions(options: Options): Record<string, string | number | boolean> {
  const names = entries.filter(([name, { group }]) => kept.includes(group) && !notKept.includes(name));
  return Object.fromEntries(names.map(([name]) => [name, options[name] as string | number | boolean]));
}

/** Those of them that are not at their defaults. */
export function changedOptions(options: Options): Record<string, string | number | boolean> {
  const all = Object.entries(keptOptions(options));
  return Object.fromEntries(all.filter(([name, value]) => value !== optionTable[name as OptionName].default));
}

/**
 * @throws ConfigError that names the place, the key, what came and what was expected, or the options that contradict
 * each other
 */
export function resolveOptions(sources: Sources): Resolved {
  const merged = mergeOptions(sources);
  return { ...merged, notes: checkTogether(merged) };
}

/** The options of some sources, each checked, but not yet one against the other. */
export function mergeOptions(sources: Sources): Omit<Resolved, "notes"> {
  const { file, flags = {}, run } = sources;
  const { preset: filePreset, ...fileValues } = file?.values ?? {};
  const preset = sources.preset ?? (filePreset as string | undefined) ?? impliedPreset(sources, fileValues);
  if (preset !== undefined && !Object.hasOwn(presets, preset))
    throw new ConfigError(
      `config: unknown preset "${preset}"${didYouMean(preset, Object.keys(presets)) || `; there are ${Object.keys(presets).join(", ")}`}`,
    );
  const names = Object.keys(optionTable);
  for (const key of Object.keys(fileValues))
    if (!Object.hasOwn(optionTable, key))
      throw new ConfigError(`config: unknown key "${key}" in ${file?.path}${didYouMean(key, names)}`);

  const resolved: Record<string, unknown> = {};
  const came: Record<string, Origin> = {};
  const take = (origin: Origin, values: Readonly<Record<string, unknown>>, placeOf: (name: string) => string) => {
    for (const [name, value] of Object.entries(values)) {
      if (value === undefined) continue;
      const parsed = (optionTable[name as OptionName] as OptionSpec).schema.safeParse(value);
      if (!parsed.success)
        throw new ConfigError(
          `config: ${placeOf(name)} ${expectation(parsed.error)}, got ${typeof value === "number" ? value : JSON.stringify(value)}`.replace(
            "  ",
            " ",
          ),
        );
      resolved[name] = parsed.data;
      came[name] = origin;
    }
  };
  for (const [name, spec] of entries) resolved[name] = spec.default;
  for (const name of names) came[name] = "default";
  // A command's own defaults are ours, and may be what nobody could ask for, such as no coordinator.
  Object.assign(resolved, sources.defaults);
  take("preset", preset === undefined ? {} : presets[preset]!.options, (name) => `"${name}" of preset ${preset}`);
  // Options that only another version has are none of ours.
  const known = Object.entries(run?.values ?? {}).filter(([name]) => Object.hasOwn(optionTable, name));
  const saved = known.filter(([name]) => !notKept.includes(name));
  take("run", Object.fromEntries(saved), (name) => `"${name}" of ${run?.directory}`);
  take("file", fileValues, (name) => `"${name}" in ${file?.path}`);
  take("flag", flags, flagOf);
  const options = resolved as Options;
  options.out ||= `runs/${preset ?? options.family}`;
  return { options, origins: came as Record<OptionName, Origin>, preset };
}

/** The preset of someone who has said nothing about the model. */
function impliedPreset({ impliedPreset: implied, flags = {} }: Sources, file: Readonly<Record<string, unknown>>) {
  const given = { ...file, ...flags } as Readonly<Record<string, unknown>>;
  const saysModel = entries.some(
    ([name, { group }]) => (group === "model" || name === "initFrom") && given[name] !== undefined,
  );
  return saysModel ? undefined : implied;
}

/** Did somebody say so this time? */
export const asked = (origin: Origin): boolean => origin === "file" || origin === "flag";

/** The rules that need two options at once. @returns what is allowed but hardly meant */
function checkTogether({ options, origins: came }: Omit<Resolved, "notes">): string[] {
  const say = (name: OptionName): string =>
    `${flagOf(name)} ${options[name]}${came[name] === "flag" ? "" : ` (${came[name] === "default" ? "the default" : `from the ${came[name]}`})`}`;
  const refuse = (why: string): never => {
    throw new ConfigError(`config: ${why}`);
  };
  // A file may hold all options there are.
  const isMeant = (name: OptionName): boolean =>
    came[name] === "flag" || (came[name] === "file" && options[name] !== optionTable[name].default);
  const { shards, batchSize, steps, warmupSteps, decaySteps, schedule, learningRate, minLearningRate } = options;
  if ((shards & (shards - 1)) !== 0) refuse(`--shards must be a power of two, got ${shards}`);
  if (batchSize % shards !== 0)
    refuse(
      `--batch-size ${batchSize} does not divide into ${shards} shards; take a multiple of ${shards}, or --shards ${batchSize & -batchSize}`,
    );

  const { localSteps, replicas } = options;
  if (localSteps > 1 && (replicas & (replicas - 1)) !== 0) refuse(`--replicas must be a power of two, got ${replicas}`);
  if (localSteps > 1 && replicas > shards)
    refuse(
      `${say("replicas")} are more than ${say("shards")}: a replica computes whole shards of every step; take --replicas ${shards}, or --shards ${replicas}`,
    );
  const notes: string[] = [];
  if (schedule === "constant")
    for (const name of ["decaySteps", "minLearningRate"] as const)
      if (came[name] === "flag" && came.schedule === "flag")
        refuse(`${flagOf(name)} belongs to a schedule that decays; leave it out, or --schedule constant`);
      else if (isMeant(name)) notes.push(`${say(name)} changes nothing with ${say("schedule")}`);
  if (schedule !== "constant" && minLearningRate > learningRate)
    refuse(
      `${say("minLearningRate")} is above ${say("learningRate")}: the learning rate would rise; lower --min-learning-rate too`,
    );
  if (schedule !== "constant" && decaySteps > 0 && decaySteps <= warmupSteps)
    refuse(`${say("decaySteps")} is not after the warm-up, ${say("warmupSteps")}`);
  for (const name of ["replicas", "innerState", "outerLearningRate", "outerMomentum"] as const)
    if (localSteps === 1 && isMeant(name)) notes.push(`${say(name)} changes nothing without --local-steps above 1`);
  if (warmupSteps >= steps) {
    const why = `${say("warmupSteps")} ${warmupSteps > steps ? "are more than" : "are all of"} ${say("steps")}: the learning rate never reaches ${learningRate}`;
    if (asked(came.warmupSteps) && warmupSteps > steps) refuse(`${why}; lower --warmup-steps`);
    notes.push(why);
  }
  if (options.family === "bigram")
    for (const name of ["nLayer", "nHead", "nEmbd"] as const)
      if (asked(came[name]) && options[name] > 0)
        refuse(`${say(name)}: a bigram is a table of token pairs and has none; leave it out`);
  return notes;
}
