// From options to a run that can begin: data, model, weights, ledger; or the same from the newest whole checkpoint.
import { randomBytes, randomUUID } from "node:crypto";
import { basename, resolve } from "node:path";
import { isDeepStrictEqual } from "node:util";
import type { Logger } from "pino";
import { bestCodec, bestOps } from "../shared/arithmetic/native.ts";
import type { Checkpoint } from "../shared/checkpoint/checkpoint.ts";
import { cropPositions } from "../shared/checkpoint/crop.ts";
import { newestCheckpoint, readMarkers } from "../shared/checkpoint/rundir.ts";
import { systemClock } from "../shared/clock.ts";
import { modelOf, type Options, optionTable } from "../shared/config.ts";
import { ConfigError } from "../shared/errors.ts";
import { initialWeights } from "../shared/family/init.ts";
import { type Layout, layoutOf } from "../shared/family/layout.ts";
import type { ModelConfig } from "../shared/model.ts";
import { mergeOptions, type Sources } from "../shared/resolve.ts";
import { fileSampler, randomSampler } from "../shared/sampler.ts";
import { openModel } from "../shared/store/model.ts";
import { leastIds, openTokenizerOf, tokenizerNamed } from "../shared/tokenizers/open.ts";
import { NoTokenizerError, type Tokenizer } from "../shared/tokenizers/tokenizer.ts";
import { titleSchema } from "../shared/wire/names.ts";
import { Archive } from "./archive.ts";
import { Quarantine, quarantineWriter, readQuarantine } from "./crew/quarantine.ts";
import { type Dataset, openDataset } from "./data/dataset.ts";
import { History } from "./history.ts";
import { Ledger, ledgerStart } from "./ledger.ts";
import { lockRun, type RunLock } from "./lock.ts";
import type { EarlierState, RunSetup } from "./loop.ts";
import { Metrics } from "./metrics.ts";
import { Mirror } from "./mirror.ts";
import { readPast } from "./past.ts";
import { type OpenedRun, openRun, optionsBefore } from "./resume.ts";
import { fitVocabulary } from "./vocabulary.ts";

export interface SetupSettings {
  /** Where `shakespeare` cannot be had and was not asked for, train on another book instead of refusing. */
  readonly substitute: boolean;
  /**
   * Refuses what this machine cannot hold, before any data is read.
   * @param model its vocabulary is 1 where that is not known yet
   */
  readonly fits?: (options: Options, model: ModelConfig) => Promise<unknown>;
  /** Ends the wait for an address that may be another run's. */
  readonly signal?: AbortSignal;
}

/** @throws ConfigError on anything that the user can mend */
export async function setUpRun(sources: Sources, log: Logger, settings: SetupSettings): Promise<RunSetup> {
  const lock = await lockRun(mergeOptions(sources).options.out);
  try {
    return await setUpLocked(sources, log, settings, lock);
  } catch (error) {
    await lock.release();
    throw error;
  }
}

/** What a run will be, found out without a trace on the disk. */
export interface RunPlan {
  readonly opened: OpenedRun;
  /** Those of `opened`, with the model's of --init-from. */
  readonly options: Options;
  readonly dataset: Dataset;
  readonly model: ModelConfig;
  readonly layout: Layout;
  /** Weights to begin with; none where they are drawn. */
  readonly weights: Float32Array | undefined;
}

/** @throws ConfigError on anything that the user can mend */
export async function planRun(sources: Sources, log: Logger, { substitute, fits }: SetupSettings): Promise<RunPlan> {
  const opened = await openRun(sources);
  const { resumed, origins, notes } = opened;
  for (const note of notes) log.warn(note);
  if (resumed) log.info({ step: resumed.state.step }, `resuming from ${resumed.directory}`);
  const initial = resumed ? undefined : await initialModel(opened, log);
  const loaded = resumed ?? initial;
  const options = initial ? withModelOf(initial.model, opened) : opened.options;
  await fits?.(options, loaded?.model ?? modelOf(options, leastIds(options.tokenizer)));
  const { tokenizer, start } = await fitVocabulary(options, loaded, await tokenizerOf(options, loaded));
  const dataset = await openDataset({
    source: options.data,
    textColumn: options.textColumn,
    blockSize: options.blockSize,
    ...(options.valFraction !== optionTable.valFraction.default && { valFraction: options.valFraction }),
    substitute: substitute && origins.data !== "flag" && origins.data !== "file",
    notify: (line) => log.info(line),
    ...(tokenizer && { tokenizer }),
  });
  if (origins.prompt === "flag" || origins.prompt === "file") dataset.tokenizer.encode(options.prompt);
  // Models pad their vocabulary; that it is only padding is known where the tokenizer is known to be theirs.
  const padded = tokenizer || resumed ? start?.model.vocabSize : undefined;
  const model = modelOf(options, Math.max(padded ?? 0, dataset.tokenizer.vocabSize));
  const layout = layoutOf(model);
  if (resumed) checkSameData(resumed, options, dataset.fingerprint);
  if (start) checkSameModel(start.model, model, resumed ? "--resume" : "--init-from");
  return { opened, options, dataset, model, layout, weights: start?.weights };
}

async function setUpLocked(sources: Sources, log: Logger, settings: SetupSettings, lock: RunLock): Promise<RunSetup> {
  const mirror = await mirrorOf(sources, log, settings.signal);
  const { opened, options, dataset, model, layout, weights } = await planRun(sources, log, settings);
  if (mirror) mirror.keep = options.keepCheckpoints;
  const { resumed, changes } = opened;
  const positions = dataset.train.length - options.blockSize;
  const mixed = resumed?.state.arithmetic === "any";
  const first = weights ?? initialWeights(layout, options.seed);
  const goesOn = options.resume || options.resumeOrStart;
  const begins = resumed
    ? { step: resumed.state.step, weights: resumed.state.weightsDigest }
    : goesOn && { step: 0, weights: bestOps().digest(first) };
  const change = { after: resumed?.state.step ?? 0, changes };
  const onTrouble = (why: string) => log.warn(why);
  const kept = await readQuarantine(options.out, options.allow);
  const keep = quarantineWriter(options.out, onTrouble, () => mirror?.changed());
  if (options.allow.length > 0) keep(kept);
  const best = resumed && (await readMarkers(options.out, onTrouble)).best?.valLossNats;
  return {
    id: randomUUID(),
    name: runName(options.out),
    // What any workers made together has no arithmetic to hold others to.
    options: mixed ? { ...options, anyArithmetic: true } : options,
    model,
    layout,
    weights: first,
    optimizer: resumed?.optimizer,
    step: resumed?.state.step ?? 0,
    tokensSeen: resumed?.state.tokensSeen ?? 0,
    arithmetic: options.anyArithmetic || mixed ? undefined : resumed?.state.arithmetic,
    valLossNats: resumed?.state.valLossNats,
    evaluatedBy: resumed?.state.evaluatedBy,
    dataset,
    sampler: options.windowsFile
      ? await fileSampler(options.windowsFile, options.batchSize, options.steps, positions)
      : randomSampler(options.seed, options.batchSize, positions),
    history: await historyOf(options.out, resumed?.state.step, log),
    ledger: await Ledger.open(options.out, resumed?.state.ledger ?? ledgerStart, {
      ...(begins && { begins }),
      ...{ change, onTrouble, lock },
    }),
    quarantine: new Quarantine(kept, keep),
    secret: randomBytes(6).readUIntBE(0, 6),
    stateBefore: (step) => stateBefore(step, opened, layout, log),
    openArchive: (journal) => new Archive(options.out, options.keepCheckpoints, journal, systemClock, best, mirror),
    openMetrics: (status) => new Metrics(status),
    mirror,
    clock: systemClock,
    ops: bestOps(),
    codecs: bestCodec,
    log,
  };
}

/** Of the newest checkpoint before this step, or the beginning. @throws ConfigError where the run has neither any more */
async function stateBefore(before: number, opened: OpenedRun, layout: Layout, log: Logger): Promise<EarlierState> {
  const { options } = opened;
  const onSkip = (why: string) => log.warn(why);
  const found = await newestCheckpoint(options.out, { optimizer: true, before, onSkip });
  if (found) {
    const { weights, optimizer, state } = found;
    return { weights, optimizer, step: state.step, tokensSeen: state.tokensSeen, valLossNats: state.valLossNats };
  }
  const begun = { optimizer: undefined, step: 0, tokensSeen: 0, valLossNats: undefined };
  if (!options.initFrom) return { ...begun, weights: initialWeights(layout, options.seed) };
  const initial = await initialModel(opened, log);
  const { start } = await fitVocabulary(options, initial, await tokenizerOf(options, initial));
  return { ...begun, weights: start!.weights };
}

/** The curves that a resumed run goes on with. */
async function historyOf(out: string, step: number | undefined, log: Logger): Promise<History> {
  const past = step === undefined ? undefined : await readPast(out, (why) => log.warn(why));
  return past ? History.from(past, step!) : new History();
}

/** What keeps the checkpoints in the store of --checkpoint-to; a run that is resumed from there is on the disk now. */
async function mirrorOf(sources: Sources, log: Logger, signal?: AbortSignal): Promise<Mirror | undefined> {
  const { checkpointTo, out, resume, resumeOrStart } = await optionsBefore(sources);
  if (checkpointTo === "") return undefined;
  if (checkpointTo !== mergeOptions(sources).options.checkpointTo)
    log.info(`checkpoints go to ${checkpointTo} again, as this run's did; --checkpoint-to "" leaves the store out`);
  return await Mirror.open({ address: checkpointTo, runDir: out, log, signal }, resume || resumeOrStart);
}

/** The weights of --init-from; a --block-size below theirs keeps the first positions. */
async function initialModel({ options: { initFrom, blockSize }, origins }: OpenedRun, log: Logger) {
  if (!initFrom) return undefined;
  const whole = await openModel(initFrom, (why) => log.warn(why));
  log.info(`starting from ${whole.what}`);
  return { ...whole, ...(origins.blockSize === "default" ? {} : cropPositions(whole, blockSize)) };
}

/**
 * With --init-from, what nobody asked for is the model's; dropout, which has no weights, stays the run's own.
 * @throws ConfigError that names every option that was asked for and is not the model's
 */
function withModelOf(model: ModelConfig, { options, origins, preset }: OpenedRun): Options {
  const { family, blockSize, nLayer, nHead, nEmbd, bias, activation, tiedHead } = model;
  const own = { family, blockSize, nLayer, nHead, nEmbd, bias, activation, tiedHead };
  const others = (Object.keys(own) as (keyof typeof own)[])
    .filter((name) => origins[name] !== "default" && options[name] !== own[name])
    .map(
      (name) =>
        `${name} ${own[name]}, this run ${options[name]}${origins[name] === "preset" ? ` (preset ${preset})` : ""}`,
    );
  if (others.length > 0) throw new ConfigError(`config: --init-from: its model has ${others.join("; ")}`);
  return { ...options, ...own };
}

/**
 * What encodes the text. With --init-from it is the tokenizer that lies beside the weights, if one does: only its ids
 * mean what their embedding has learned.
 * @returns undefined for the characters of the text
 */
async function tokenizerOf(
  options: Options,
  start: { directory: string; model: ModelConfig } | undefined,
): Promise<Tokenizer | undefined> {
  const named = await tokenizerNamed(options.tokenizer);
  if (!options.initFrom || !start) return named;
  const own = await openTokenizerOf(start).catch((error) => {
    if (error instanceof NoTokenizerError) return undefined;
    throw error;
  });
  if (own && named && !isDeepStrictEqual(own.toFiles(), named.toFiles()))
    throw new ConfigError(
      `config: --tokenizer ${options.tokenizer} is not the one that lies beside the weights of --init-from ` +
        `${options.initFrom} (${own.name}, ${own.vocabSize} tokens); pass --tokenizer ${start.directory}`,
    );
  return own ?? named;
}

function checkSameData({ state, directory }: Checkpoint, options: Options, fingerprint: string): void {
  if (state.dataset.fingerprint !== fingerprint)
    throw new ConfigError(
      `${directory} was trained on other data than "${options.data}" (${state.dataset.name}); resume with the same`,
    );
}

function checkSameModel(came: ModelConfig, expected: ModelConfig, flag: string): void {
  for (const key of Object.keys(expected) as (keyof ModelConfig)[])
    if (key !== "dropout" && came[key] !== expected[key])
      throw new ConfigError(`config: ${flag}: its model has ${key} ${came[key]}, this run ${expected[key]}`);
}

/** What workers, pages and metrics call the run: its folder. @throws ConfigError */
function runName(out: string): string {
  const name = titleSchema.safeParse(basename(resolve(out)));
  if (name.success) return name.data;
  throw new ConfigError(
    `config: --out ${JSON.stringify(out)}: the run is called by its folder's name, of 1 to 128 characters that can be seen; take another`,
  );
}
