// Going on with a run: its own options are the ones it goes on with, unless others are asked for. What may change does
// from here on, with the optimizer's state kept, and is named in the ledger; what cannot is refused with the reason.
import { readdir } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { type Checkpoint, checkpointName, runStateOf } from "../shared/checkpoint/checkpoint.ts";
import { proveFile, readManifest } from "../shared/checkpoint/manifest.ts";
import { checkpointSteps, newestCheckpoint } from "../shared/checkpoint/rundir.ts";
import { flagOf, flagsFor, type OptionName, type OptionSpec, type Options, optionTable } from "../shared/config.ts";
import { ConfigError } from "../shared/errors.ts";
import { isAbsent } from "../shared/json.ts";
import { mergeOptions, type Resolved, resolveOptions, type Sources } from "../shared/resolve.ts";
import type { Changes } from "./ledger.ts";
import { ledgerName } from "./proof/chain.ts";

export interface OpenedRun extends Resolved {
  /** What the run goes on from; none where it begins. */
  readonly resumed?: Checkpoint | undefined;
  /** Options that are other than before from here on: what they were and what they are. */
  readonly changes: Changes;
}

/**
 * The options of the run that these sources mean, and the checkpoint it goes on from.
 * @throws ConfigError where the folder holds another run, or none to go on with, or an option cannot change
 */
export async function openRun(sources: Sources): Promise<OpenedRun> {
  const { resume, resumeOrStart, out } = mergeOptions(sources).options;
  const fresh = (notes: readonly string[] = []): OpenedRun => {
    const begun = resolveOptions(sources);
    return { ...begun, notes: [...notes, ...begun.notes], changes: {} };
  };
  if (!resume && !resumeOrStart) {
    await refuseOldRun(out);
    return fresh();
  }
  const notes: string[] = [];
  const found = await newestCheckpoint(out, { optimizer: true, onSkip: (why) => notes.push(why) });
  if (found) return goOn(sources, found, out, notes);
  if (!resumeOrStart && !(await namesIn(out)).includes(ledgerName)) throw await nothingToResume(out);
  return fresh([`nothing to resume in ${out}: starting anew`]);
}

/**
 * The options as far as they are known before any weights are read: those of a run that goes on are its own, as the newest
 * checkpoint here has them, its store among them.
 */
export async function optionsBefore(sources: Sources): Promise<Options> {
  const { options } = mergeOptions(sources);
  const { resume, resumeOrStart, out } = options;
  for (const step of resume || resumeOrStart ? await checkpointSteps(out) : []) {
    const directory = join(out, checkpointName(step));
    const values = await savedOptions(directory).catch((error) => {
      if (!(error instanceof ConfigError)) throw error;
    });
    // Its folder is where it was found, whatever another --out would be derived from.
    if (values) return { ...mergeOptions({ ...sources, run: { directory, values } }).options, out };
  }
  return options;
}

/** @throws ConfigError where a checkpoint's state is not what its manifest proves */
async function savedOptions(directory: string) {
  const name = "state.json";
  const { files } = await readManifest(directory);
  if (!files[name]) throw new ConfigError(`checkpoint ${directory}: its manifest does not list ${name}`);
  await proveFile(directory, name, files[name]);
  return (await runStateOf(directory)).options;
}

/** A new run must not write into an old one's folder. */
async function refuseOldRun(out: string): Promise<void> {
  const steps = await checkpointSteps(out);
  if (steps.length > 0)
    throw new ConfigError(
      `${out} already holds a run, up to step ${steps[0]}; go on with --resume (--resume --steps N lengthens it), or choose another folder with --out`,
    );
}

function goOn(sources: Sources, resumed: Checkpoint, out: string, notes: string[]): OpenedRun {
  const { state, directory } = resumed;
  const before = { ...state.options };
  // Earlier versions saved the end of the decay in place of "where the steps end".
  if (before.decaySteps === before.steps) before.decaySteps = 0;
  const { flags, ...others } = sources;
  const now = resolveOptions({ ...others, flags: { ...flags, out }, run: { directory, values: before } });
  const { options, origins } = now;

  const changes: Record<string, { from: unknown; to: unknown }> = {};
  const refused: string[] = [];
  for (const [name, { group, fixed }] of Object.entries(optionTable) as [OptionName, OptionSpec][]) {
    const [from, to] = [before[name], options[name]];
    if (from === undefined || from === to) continue;
    if (fixed) refused.push(`${flagOf(name)} is ${from} and cannot become ${to}: ${fixed}`);
    else if (group === "model" || group === "training" || name === "checkpointInterval") changes[name] = { from, to };
  }
  if (options.steps < state.step)
    refused.push(`--steps ${options.steps} lies behind it: ${state.step} steps are done already`);
  if (options.windowsFile && changes.batchSize)
    refused.push(`--batch-size is ${changes.batchSize.from} and cannot become ${changes.batchSize.to}: --windows-file`);
  if (refused.length > 0)
    throw new ConfigError(
      `${directory} cannot go on like this. ${refused.join(". ")}. Leave these out, or start a new run from it with --init-from ${directory} --out DIR`,
    );

  const preset = mergeOptions({ preset: now.preset });
  const overruled = Object.entries(preset.origins)
    .filter(([name, origin]) => origin === "preset" && origins[name as OptionName] === "run")
    .filter(([name]) => preset.options[name as OptionName] !== options[name as OptionName])
    .map(([name]) => flagsFor({ [name]: options[name as OptionName] }).join(" "));
  if (sources.preset !== undefined && overruled.length > 0)
    notes.push(`the run's own options stay where preset ${sources.preset} has others: ${overruled.join(", ")}`);
  for (const [name, { from, to }] of Object.entries(changes))
    notes.push(`from step ${state.step + 1} on: ${flagOf(name)} ${to}, it was ${from}`);
  return { ...now, notes: [...notes, ...now.notes], resumed, changes };
}

/** But not what is hidden, such as our own lock. */
async function namesIn(directory: string): Promise<string[]> {
  const names = await readdir(directory).catch((error) => {
    if (isAbsent(error) || error.code === "ENOTDIR") return [];
    throw error;
  });
  return names.filter((name) => !name.startsWith("."));
}

/** What is there instead of a run, and the runs beside it. */
async function nothingToResume(out: string): Promise<ConfigError> {
  const names = await namesIn(out);
  const listed = names.slice(0, 5).join(", ") + (names.length > 5 ? `, and ${names.length - 5} more` : "");
  const there = names.length > 0 ? `it holds ${listed}, but no checkpoint` : "it is absent or empty";
  const beside: string[] = [];
  for (const [parent, name] of await candidates(out)) {
    const steps = await checkpointSteps(join(parent, name)).catch(() => []);
    if (steps.length > 0) beside.push(`${join(parent, name)} (step ${steps[0]})`);
  }
  const runs = beside.length > 0 ? `; runs: ${beside.slice(0, 8).join(", ")}` : "";
  return new ConfigError(
    `nothing to resume in ${out}: ${there}${runs}. Name the run's folder with --out, or leave out --resume to start one`,
  );
}

/** Folders beside `out`, and inside it. */
async function candidates(out: string): Promise<[string, string][]> {
  const parent = dirname(out);
  const beside = (await namesIn(parent)).filter((name) => name !== basename(resolve(out)));
  return [
    ...(await namesIn(out)).map((name): [string, string] => [out, name]),
    ...beside.map((name): [string, string] => [parent, name]),
  ].slice(0, 1000);
}
