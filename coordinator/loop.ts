// The training loop, from the first step to the last:
//
//   sampler -> leases -> gradients -> one sum -> clip + AdamW -> digest + ledger -> broadcast -> (eval, checkpoint)
//
// It decides nothing about who computes what (dispatch.ts, plan.ts) and knows no socket (connection.ts). What reaches
// the numbers is a function of options, data and seed alone: never of workers, their number, order or speed.
import { join } from "node:path";
import type { Logger } from "pino";
import { type Codec, codecOf, nodeRounding, type WireFormat } from "../shared/arithmetic/codec.ts";
import { TreeSum, VectorPool } from "../shared/arithmetic/tree.ts";
import type { VectorOps } from "../shared/arithmetic/vector.ts";
import { checkpointName, type OptimizerState, type RunState } from "../shared/checkpoint/checkpoint.ts";
import type { Clock } from "../shared/clock.ts";
import type { Options } from "../shared/config.ts";
import { textBefore } from "../shared/decoding/text.ts";
import { ConfigError } from "../shared/errors.ts";
import type { Layout } from "../shared/family/layout.ts";
import { type ModelConfig, summaryOf } from "../shared/model.ts";
import { changedOptions, keptOptions } from "../shared/resolve.ts";
import { readWindows, type Sampler } from "../shared/sampler.ts";
import { tokenArray } from "../shared/token-array.ts";
import { weftVersion } from "../shared/version.ts";
import type { Pipe } from "../shared/wire/pipe.ts";
import { protocolVersion, stepBefore } from "../shared/wire/protocol.ts";
import type { RunArchive } from "./archive.ts";
import { Dispatch, Distrust, Diverged, type Gathered, Spoiled, Stopped } from "./crew/dispatch.ts";
import { isBy, type Quarantine, type Quarantined } from "./crew/quarantine.ts";
import type { Dataset, Split } from "./data/dataset.ts";
import { promptOf } from "./data/prompt.ts";
import type { History } from "./history.ts";
import { Journal } from "./journal.ts";
import type { Ledger } from "./ledger.ts";
import type { RunMetrics } from "./metrics.ts";
import type { Mirror } from "./mirror.ts";
import { AdamW } from "./optimizer/adamw.ts";
import type { Optimizer } from "./optimizer/optimizer.ts";
import { Outer } from "./optimizer/outer.ts";
import { roundedUpdates } from "./optimizer/rounded.ts";
import { learningRateAt } from "./optimizer/schedule.ts";
import { EarlierRuns } from "./past.ts";
import { firstTainted } from "./proof/taint.ts";
import { EvaluationRound } from "./round/evaluation.ts";
import { GradientRound } from "./round/gradient.ts";
import { LocalRound } from "./round/local.ts";
import type { Round } from "./round/round.ts";
import { SampleRound } from "./round/sample.ts";
import type { RunStatus } from "./status.ts";
import { Stopwatch } from "./stopwatch.ts";

/** Everything a run begins with; setup.ts makes it from options, or from a checkpoint. */
export interface RunSetup {
  readonly id: string;
  readonly name: string;
  readonly options: Options;
  readonly model: ModelConfig;
  readonly layout: Layout;
  /** (P), the run's own from now on. */
  readonly weights: Float32Array;
  readonly optimizer?: OptimizerState | undefined;
  /** Updates already applied to the weights. */
  readonly step: number;
  /** Tokens trained on by then. */
  readonly tokensSeen: number;
  /** The arithmetic that made the weights, of a run that is resumed. */
  readonly arithmetic?: string | undefined;
  /** Validation loss of the checkpoint that is resumed, where it has one. */
  readonly valLossNats?: number | undefined;
  /** Of the checkpoint that is resumed: whose losses of evaluations nobody confirmed. */
  readonly evaluatedBy?: RunState["evaluatedBy"];
  /** The curves up to `step`. */
  readonly history: History;
  readonly dataset: Dataset;
  readonly sampler: Sampler;
  readonly ledger: Pick<Ledger, "append" | "undo" | "lines" | "sync" | "close" | "position">;
  /** Who is not let in. */
  readonly quarantine: Quarantine;
  /** What no worker can know. A safe integer. */
  readonly secret: number;
  /** The newest state that the run still has of a step before this one: a checkpoint's, or the beginning. */
  readonly stateBefore: (step: number) => Promise<EarlierState>;
  readonly openArchive: (journal: Journal) => RunArchive;
  readonly openMetrics: (status: () => RunStatus) => RunMetrics;
  /** For gradients on their way in and in the sum; left out: the usual. */
  readonly roomBytes?: number;
  /** Sends the checkpoints to an object store as well. */
  readonly mirror?: Mirror | undefined;
  readonly clock: Clock;
  readonly ops: VectorOps;
  readonly codecs: (format: WireFormat) => Codec;
  readonly log: Logger;
}

/** What a run goes back to. */
export type EarlierState = Pick<RunSetup, "weights" | "optimizer" | "step" | "tokensSeen" | "valLossNats">;

const validationOf = ({ step, valLossNats }: EarlierState) =>
  valLossNats === undefined ? undefined : { step, lossNats: valLossNats };

/** The run went back: what follows begins at its step. */
class WentBack extends Error {}

export interface RunResult {
  readonly step: number;
  /** False when the run was stopped before its last step. */
  readonly finished: boolean;
  readonly valLossNats: number | null;
  readonly weightsDigest: string;
  /** Path of the checkpoint of `step`; none before the first step. */
  readonly checkpoint: string | null;
}

export class TrainingRun {
  readonly metrics: RunMetrics;
  readonly history: History;
  readonly journal: Journal;
  readonly earlier: EarlierRuns;
  readonly dispatch: Dispatch;
  readonly #setup: RunSetup;
  /** Rounds of local steps. */
  readonly #isLocal: boolean;
  #optimizer: Optimizer;
  /** Vectors (P) that travel as one. */
  readonly #vectors: 1 | 3;
  readonly #pool: VectorPool;
  readonly #sum: TreeSum;
  readonly #archive: RunArchive;
  readonly #watch: Stopwatch;
  readonly #startedAt = new Date();
  #state: RunStatus["state"] = "training";
  #step: number;
  #digest: string;
  /** Tokens trained on by a step of this process, or before it. */
  #seen: { readonly step: number; readonly tokens: number };
  /** Workers that gave losses of an evaluation which nobody confirmed, with the first step of these. */
  readonly #evaluatedBy: Map<string, number>;
  /** Of the last step; none before the first of this process. */
  #last: { lossNats: number; gradientNorm: number; learningRate: number } | undefined;
  /** The newest. */
  #validation: { readonly step: number; readonly lossNats: number } | undefined;
  #checkpointAsked = false;
  /** Seconds of training before this process, and the moment from which it counts its own. */
  readonly #trainedSeconds: number;
  #trainingSince: number;
  /** Of the next step, being read while this one is computed. */
  #nextWindows: { readonly step: number; readonly ids: Promise<Uint16Array | Uint32Array> } | undefined;

  constructor(setup: RunSetup) {
    const { layout, options, ops, codecs, log, clock } = setup;
    const { seed, shards } = options;
    this.#setup = setup;
    this.history = setup.history;
    this.#trainedSeconds = setup.history.seconds;
    this.#trainingSince = clock.now();
    this.#watch = new Stopwatch(clock);
    this.journal = new Journal(log);
    this.earlier = new EarlierRuns(options.out);
    this.#isLocal = options.localSteps > 1;
    this.#optimizer = this.#newOptimizer(setup.optimizer);
    this.#vectors = this.#optimizer.sent ? 3 : 1;
    const codec = codecOf(options.wire, this.#vectors, layout.size, codecs);
    this.#pool = new VectorPool(this.#vectors * layout.size);
    const units = this.#isLocal ? options.replicas : shards;
    this.#sum = new TreeSum({ first: 0, count: units }, this.#pool, ops, (node, sum) =>
      nodeRounding(codec, { seed, step: this.#step, units })?.(node, sum),
    );
    this.#step = setup.step;
    this.#seen = { step: setup.step, tokens: setup.tokensSeen };
    this.#validation = validationOf(setup);
    this.#evaluatedBy = new Map(setup.evaluatedBy?.map(({ worker, step }) => [worker, step]));
    this.#digest = ops.digest(setup.weights);
    this.#archive = setup.openArchive(this.journal);
    this.dispatch = new Dispatch({
      options,
      clock,
      arithmetic: setup.arithmetic,
      pool: this.#pool,
      roomBytes: setup.roomBytes,
      codec,
      ops,
      secret: setup.secret,
      quarantine: setup.quarantine,
      journal: this.journal,
    });
    this.metrics = setup.openMetrics(() => this.status());
  }

  #newOptimizer(given: OptimizerState | undefined): Optimizer {
    const { layout, options, ops, codecs } = this.#setup;
    const kind = this.#isLocal ? Outer : AdamW;
    const inside = (state: OptimizerState | undefined) => new kind(layout, options, ops, state);
    return roundedUpdates(layout.size, { codec: codecs(options.wire), seed: options.seed, ops }, inside, given);
  }

  get shelf() {
    return this.#archive.shelf;
  }

  /** Train to the last step, or until stop(); once. @throws ConfigError when the run diverges */
  async train(): Promise<RunResult> {
    try {
      return await this.#train();
    } finally {
      await this.#setup.ledger.close();
    }
  }

  async #train(): Promise<RunResult> {
    const { options } = this.#setup;
    this.journal.keep("started", `training from step ${this.#step} to ${options.steps}`, { step: this.#step });
    await this.#archive.refresh();
    this.#broadcast();
    let goodbye = "the run is finished";
    try {
      await this.#trainSteps();
      this.#state = "finished";
      this.journal.keep("ended", `finished ${options.steps} steps`, { step: this.#step });
    } catch (error) {
      if (!(error instanceof Stopped || error instanceof Diverged || error instanceof Distrust)) throw error;
      this.#state = "stopping";
      goodbye = error instanceof Stopped && error.isForGood ? `the run was stopped: ${error.message}` : "";
      this.journal.tell("ended", `stopping after step ${this.#step}: ${error.message}`, { step: this.#step });
      const isNew = this.#step > Math.max(this.#setup.step, this.#archive.newest);
      // Stopped after all that counts, as in its last sample, it is the final one.
      const isFinal = this.#step === options.steps && (this.#lossHere !== null || !this.#validates);
      if (isNew) await this.#checkpoint(isFinal);
      await this.#archive.whenWritten();
      if (error instanceof Diverged) await this.#giveUp(error);
      if (error instanceof Distrust) {
        this.dispatch.crew.suspend("the coordinator stops");
        throw new ConfigError(`the run stopped after step ${this.#step}: ${error.message}`);
      }
    }
    await this.#archive.whenWritten();
    const finished = this.#state === "finished";
    // A fault that has passed by now must not cost what was trained since the checkpoint before.
    if (this.#archive.trouble !== undefined) {
      await this.#checkpoint(finished);
      await this.#archive.whenWritten();
    }
    // A process that a signal ends is started again, and its workers wait for that.
    if (goodbye !== "") await this.dispatch.crew.finish(goodbye);
    else this.dispatch.crew.suspend("the coordinator stops");
    await this.#setup.mirror?.settled();
    const { trouble } = this.#archive;
    if (trouble !== undefined)
      throw new ConfigError(
        `the last checkpoint is not written: ${trouble}; those before it are whole: go on from them with --resume`,
      );
    return {
      step: this.#step,
      finished,
      valLossNats: this.#validation?.lossNats ?? null,
      weightsDigest: this.#digest,
      checkpoint: this.#step > 0 ? join(options.out, checkpointName(this.#step)) : null,
    };
  }

  /** All that are left, whatever has to be taken back meanwhile. */
  async #trainSteps(): Promise<void> {
    const { options, quarantine } = this.#setup;
    // A coordinator that ended before it could has left it to this one.
    let liars = options.onLiar === "rollback" ? quarantine.list : [];
    for (;;)
      try {
        await this.#answerFor(liars);
        // A run that was stopped in its evaluation still owes it.
        const before = stepBefore(this.#step, options.localSteps);
        const owes = this.#validates && this.#lossHere === null && this.#isDue(options.evalInterval, before);
        if (this.#step > 0 && owes) await this.#validateAndSave(before);
        while (this.#step < options.steps) {
          const before = this.#step;
          await this.#trainRound();
          await this.#validateAndSave(before);
        }
        return;
      } catch (error) {
        if (!(error instanceof WentBack)) throw error;
        liars = [];
      }
  }

  /** Have a round computed, again where a liar's answers were in it. @throws WentBack */
  async #gather<R extends Round>(begin: () => R): Promise<{ round: R; gathered: Gathered }> {
    for (;;) {
      const round = begin();
      const gathered = await this.dispatch.gather(round).catch((error) => {
        if (error instanceof Spoiled) return this.journal.log.warn(error.message);
        throw error;
      });
      try {
        await this.#answerFor(this.dispatch.takeLiars());
      } catch (error) {
        round.abandon();
        throw error;
      }
      if (gathered) return { round, gathered };
    }
  }

  /** Workers were found to lie: what becomes of the answers of theirs that nobody had confirmed. @throws WentBack, Distrust */
  async #answerFor(liars: readonly Quarantined[]): Promise<void> {
    if (liars.length === 0) return;
    const { onLiar } = this.#setup.options;
    const { ledger } = this.#setup;
    const found = await firstTainted(ledger.lines(), (worker) => isBy(liars, worker));
    const evaluated = [...this.#evaluatedBy].flatMap(([worker, step]) => (isBy(liars, worker) ? [step] : []));
    const first = Math.min(found?.step ?? Number.POSITIVE_INFINITY, ...evaluated);
    const who = liars.map(({ names, why }) => `${names[0]} ${why}`).join("; ");
    const what = Number.isFinite(first)
      ? `unconfirmed answers of ${liars.map(({ names }) => names[0]).join(", ")} count from step ${first} on`
      : "nothing that it gave counts unconfirmed";
    if (onLiar === "stop")
      throw new Distrust(`${who}; ${what}; --resume goes on, with --on-liar rollback from before that step`);
    if (!Number.isFinite(first)) return;
    if (onLiar === "quarantine") return this.journal.warn("quarantined", `${what} and stay in the weights`);
    await this.#goBack(first, found?.changedAfter ?? 0, liars, what);
  }

  /** To the newest state that is free of them; the ledger says so, and the checkpoints after it go. @throws WentBack */
  async #goBack(first: number, changedAfter: number, liars: readonly Quarantined[], what: string): Promise<never> {
    const { stateBefore, weights, ops, ledger } = this.#setup;
    await this.#archive.whenWritten();
    const state = await stateBefore(first);
    if (state.step < changedAfter)
      throw new Distrust(
        `${what}; the newest state before that is of step ${state.step}, and the options changed after step ${changedAfter}: start again with --out, or go on with --on-liar quarantine`,
      );
    const from = this.#step;
    weights.set(state.weights);
    this.#optimizer = this.#newOptimizer(state.optimizer);
    this.#step = state.step;
    this.#seen = { step: state.step, tokens: state.tokensSeen };
    this.#validation = validationOf(state);
    this.#digest = ops.digest(weights);
    for (const [worker, step] of this.#evaluatedBy) if (step > state.step) this.#evaluatedBy.delete(worker);
    const workers = [...new Set(liars.flatMap(({ names }) => names))];
    const why = liars.map((liar) => liar.why).join("; ");
    // First: from here on a crash finds it said why the checkpoints went.
    await ledger.undo({ from, to: state.step, weights: this.#digest, workers, why });
    // What the disk refuses has been told by then, and follows with the next line.
    await ledger.sync().catch(() => {});
    await this.#archive.forgetAfter(state.step);
    this.history.backTo(state.step);
    this.journal.warn("quarantined", `back from step ${from} to step ${state.step}: ${what}`, { step: state.step });
    this.#broadcast();
    throw new WentBack();
  }

  /** @throws ConfigError that says where the last good step is */
  async #giveUp(error: Diverged): Promise<never> {
    const last =
      this.#step > 0
        ? `its last good step, ${this.#step}, is in ${join(this.#setup.options.out, checkpointName(this.#step))}; start again from it with --init-from and a lower --learning-rate`
        : "no step was good; start again with a lower --learning-rate";
    await this.dispatch.crew.finish("the run diverged");
    throw new ConfigError(`the run diverged: ${error.message}; ${last}`);
  }

  /**
   * Leave the step in hand, write a checkpoint and let train() return.
   * @param isForGood workers are sent home; else they wait for the run to be resumed
   */
  stop(reason: string, isForGood = false): void {
    this.dispatch.fail(new Stopped(reason, isForGood));
  }

  /** Write a checkpoint after the step in hand. */
  checkpointSoon(): void {
    this.#checkpointAsked = true;
    this.journal.tell("asked", "a checkpoint was asked for: it is written after this step", { step: this.#step });
  }

  /**
   * A worker has connected.
   * @param isLocal from this machine, or by way of it
   * @param address where else it comes from
   */
  admit(pipe: Pipe, isLocal: boolean, address?: string): void {
    const { name, model, layout, options, dataset } = this.#setup;
    const { batchSize, blockSize, windowsFile } = options;
    const positions = dataset.train.length - blockSize;
    const welcome = {
      type: "welcome" as const,
      version: protocolVersion,
      run: name,
      model,
      parameters: layout.size,
      vectors: this.#vectors,
      localSteps: options.localSteps,
      seed: options.seed,
      // What a file names cannot be drawn elsewhere.
      ...(!windowsFile && { data: { fingerprint: dataset.fingerprint, positions, batchSize } }),
      shards: options.shards,
      rowsPerShard: batchSize / options.shards,
      precision: options.precision,
      wire: options.wire,
      timeoutMs: options.timeout * 1000,
      // A second opinion is of all steps of a replica; what was handed over is two workers'.
      ...(this.#isLocal && options.verify === 0 && { handsOver: true as const }),
    };
    this.dispatch.admit(pipe, welcome, { mayShareMemory: isLocal && options.sharedMemory, address });
  }

  /** One update of the weights: a step, or a round of local steps. */
  async #trainRound(): Promise<void> {
    const { options, weights, ops, clock, ledger, log } = this.#setup;
    this.#watch.begin();
    if (this.#last === undefined) this.#trainingSince = clock.now();
    this.#state = "training";
    const begin = this.#isLocal ? () => this.#localRound() : await this.#gradientRounds();
    const { round, gathered } = await this.#gather<LocalRound | GradientRound>(begin);
    const { units, steps } = round;
    const { parts, unitsByWorker, secondsByWorker, computeSeconds, sumSeconds } = gathered;
    this.#watch.mark("wire", { sum: sumSeconds, compute: computeSeconds });

    const { lossNats, sum } = round.result();
    this.#step += steps;
    const learningRate = learningRateAt(this.#step - 1, options);
    const rate = this.#isLocal ? options.outerLearningRate : learningRate;
    const gradientNorm = this.#optimizer.apply(weights, sum, { units, learningRate: rate, count: this.#step });
    this.#pool.give(sum);
    this.#digest = ops.digest(weights);
    this.#last = { lossNats, gradientNorm, learningRate };
    this.#watch.mark("apply");

    this.#broadcast(this.#step - steps);
    this.#watch.mark("broadcast");
    const several = steps > 1 && { steps };
    await ledger.append({ step: this.#step, ...several, parts, ...this.#last, weights: this.#digest });
    this.#watch.mark("ledger");

    const tokensOfUnit = (steps * options.batchSize * options.blockSize) / units;
    const tokensByWorker = new Map([...unitsByWorker].map(([worker, units]) => [worker, units * tokensOfUnit]));
    const { seconds, phases } = this.#watch.end({ tokensByWorker, secondsByWorker }, steps);
    this.metrics.observeSteps(seconds, phases, steps);
    const { stepSeconds } = this.#watch;
    const tokensPerSec = Math.round((options.batchSize * options.blockSize) / stepSeconds!);
    this.history.addStep({
      step: this.#step,
      tokens: this.#tokensSeen,
      seconds: this.#seconds,
      ...this.#last,
      tokensPerSec,
    });
    const etaSeconds = stepSeconds! * (options.steps - this.#step);
    log.info(
      {
        step: this.#step,
        steps: options.steps,
        ...this.#last,
        tokensPerSec,
        etaSeconds,
        workers: this.dispatch.crew.size,
      },
      "step",
    );
  }

  /** The shards of one batch: as often as it has to be computed. */
  async #gradientRounds(): Promise<() => GradientRound> {
    const { options, ops } = this.#setup;
    const step = this.#step;
    const windows = await this.#windowsOf(step);
    if (step + 1 < options.steps) this.#windowsOf(step + 1).catch(() => {}); // whoever awaits it hears
    const { shards } = options;
    const rows = options.batchSize / shards;
    return () => new GradientRound({ step, shards, rows, windows, sum: this.#sum, ops });
  }

  /** Local steps up to the next multiple of --local-steps, or to the last step of the run. */
  #localRound(): LocalRound {
    const { options, ops, sampler } = this.#setup;
    const { replicas, localSteps, shards, beta1, beta2, eps, weightDecay, gradientClip } = options;
    const step = this.#step;
    const steps = Math.min(localSteps - (step % localSteps), options.steps - step);
    return new LocalRound({
      step,
      replicas,
      rows: options.batchSize / shards,
      terms: {
        shards: shards / replicas,
        learningRates: Array.from({ length: steps }, (_, h) => learningRateAt(step + h, options)),
        updates: options.innerState === "averaged" ? step : 0,
        optimizer: { beta1, beta2, eps, weightDecay, gradientClip },
      },
      starts: sampler,
      read: (starts) => this.#windows("train", starts),
      sum: this.#sum,
      ops,
    });
  }

  /** @param from the step that the last update went out from */
  #broadcast(from?: number): void {
    const { options, weights } = this.#setup;
    // Who is sent an update knows by its step from which one it leads.
    const { update: vector } = this.#optimizer;
    const update = vector && from === stepBefore(this.#step, options.localSteps) ? { from, vector } : undefined;
    this.dispatch.crew.broadcast(this.#step, this.#optimizer.sent?.(weights) ?? weights, update);
  }

  /** What is due after the steps since `before`. */
  async #validateAndSave(before: number): Promise<void> {
    const { options, log } = this.#setup;
    if (this.#isDue(options.evalInterval, before) && this.#validates) {
      this.#state = "evaluating";
      const lossNats = await this.#betweenSteps("eval", () => this.#validationLoss());
      const step = this.#step;
      this.#validation = { step, lossNats };
      this.history.addValidation({ step, tokens: this.#tokensSeen, seconds: this.#seconds, valLossNats: lossNats });
      this.journal.keep("evaluation", `validation loss ${lossNats.toFixed(4)} after step ${step}`, { step });
      log.info({ step, valLossNats: lossNats }, "validation");
      if (options.evalSampleTokens > 0) await this.#betweenSteps("eval", () => this.#sample());
    }
    const isBest = this.#lossHere !== null && this.#lossHere < (this.#archive.best ?? Number.POSITIVE_INFINITY);
    const owed = this.#archive.owes();
    if (this.#isDue(options.checkpointInterval, before) || isBest || this.#checkpointAsked || owed)
      await this.#betweenSteps("checkpoint", () => this.#checkpoint(this.#step === options.steps));
  }

  /** Something of every so many steps, 0 for never: in the steps since `before`, and at the end. */
  #isDue(interval: number, before: number): boolean {
    if (this.#step === this.#setup.options.steps) return true;
    return interval > 0 && Math.floor(this.#step / interval) > Math.floor(before / interval);
  }

  /** Validation loss of these very weights. */
  get #lossHere(): number | null {
    return this.#validation?.step === this.#step ? this.#validation.lossNats : null;
  }

  /** With --val-fraction 0 there is nothing to validate on. */
  get #validates(): boolean {
    return this.#setup.dataset.val.length > 0;
  }

  /** Of training, since the run's first step, without the times in which no coordinator was there. */
  get #seconds(): number {
    return this.#trainedSeconds + (this.#setup.clock.now() - this.#trainingSince) / 1000;
  }

  /** A phase that comes after its step has been counted. */
  async #betweenSteps<T>(phase: "eval" | "checkpoint", act: () => Promise<T>): Promise<T> {
    this.#watch.begin();
    const result = await act();
    this.metrics.observePhase(phase, this.#watch.mark(phase));
    return result;
  }

  /** Mean loss in nats over the consecutive windows of the validation split, all or --eval-windows evenly spaced. */
  async #validationLoss(): Promise<number> {
    const { options, dataset } = this.#setup;
    const all = dataset.consecutive("val");
    const wanted = Math.min(options.evalWindows || all.length, all.length);
    const work = {
      step: this.#step,
      starts: Array.from({ length: wanted }, (_, i) => all[Math.floor((i * all.length) / wanted)]!),
      rows: options.batchSize / options.shards,
      read: (starts: readonly number[]) => this.#windows("val", starts),
    };
    const { round, gathered } = await this.#gather(() => new EvaluationRound(work));
    for (const { worker, second } of gathered.parts)
      if (second === undefined && !this.#evaluatedBy.has(worker)) this.#evaluatedBy.set(worker, this.#step);
    return round.result();
  }

  /** What the weights write now, for people. */
  async #sample(): Promise<void> {
    const { options, dataset, model, log } = this.#setup;
    const { tokenizer } = dataset;
    const prompt = await promptOf(options.prompt, dataset);
    const shown = prompt.ids.slice(-model.blockSize);
    const window = tokenArray(model.vocabSize, model.blockSize + 1);
    window.set(shown);
    const step = this.#step;
    const limits = { tokens: options.evalSampleTokens, ids: Math.min(tokenizer.vocabSize, model.vocabSize) };
    const work = { step, window, prompt: shown.length, ...limits };
    const { round } = await this.#gather(() => new SampleRound(work));
    const text = prompt.text + textBefore(tokenizer, prompt.ids, [...round.result()], []);
    this.history.addSample({ step, text });
    log.info({ step, sample: text }, `sample after step ${step}`);
  }

  async #checkpoint(isFinal: boolean): Promise<void> {
    const valLossNats = this.#lossHere;
    const { options, model, weights, ledger, dataset } = this.#setup;
    this.#checkpointAsked = false;
    await this.#savePast();
    await this.#archive.write(
      {
        model,
        weights: weights.slice(),
        optimizer: Object.fromEntries(Object.entries(this.#optimizer.state).map(([name, x]) => [name, x.slice()])),
        tokenizer: dataset.tokenizer.toFiles(),
        endOfText: dataset.tokenizer.endOfText,
        state: {
          step: this.#step,
          seed: options.seed,
          options: keptOptions(options),
          arithmetic: this.dispatch.arithmetic ?? "none",
          weightsDigest: this.#digest,
          ledger: ledger.position,
          dataset: { name: dataset.name, fingerprint: dataset.fingerprint },
          tokensSeen: this.#tokensSeen,
          ...(this.#last && { lossNats: this.#last.lossNats }),
          ...(valLossNats !== null && { valLossNats }),
          ...(options.verify > 0 && {
            evaluatedBy: [...this.#evaluatedBy].map(([worker, step]) => ({ worker, step })),
          }),
        },
      },
      isFinal,
      () => ledger.sync(),
    );
  }

  /** The curves beside the checkpoint that they lead to. */
  async #savePast(): Promise<void> {
    const { options, model } = this.#setup;
    const tokensPerStep = options.batchSize * options.blockSize;
    const about = { model: summaryOf(model), steps: options.steps, tokensPerStep, options: changedOptions(options) };
    await this.#archive.saveCurves({ ...about, ...this.history.curves() });
  }

  /** All windows of a step, read once: the next step's are read while this one is computed. */
  #windowsOf(step: number): Promise<Uint16Array | Uint32Array> {
    if (this.#nextWindows?.step !== step)
      this.#nextWindows = { step, ids: (async () => this.#windows("train", this.#setup.sampler(step)))() };
    return this.#nextWindows.ids;
  }

  /** Not steps times batch: a run that goes on may have another batch. */
  get #tokensSeen(): number {
    const { batchSize, blockSize } = this.#setup.options;
    return this.#seen.tokens + (this.#step - this.#seen.step) * batchSize * blockSize;
  }

  /** (starts.length, T + 1) token ids in the narrowest type that holds them. */
  async #windows(split: Split, starts: readonly number[]): Promise<Uint16Array | Uint32Array> {
    const { model, dataset } = this.#setup;
    return await readWindows(model, starts, (start, row) => dataset.read(split, start, row.length, row));
  }

  /** What does not change in a run: its options, those that are not at their defaults by name, and its data. */
  about() {
    const { options, dataset } = this.#setup;
    return {
      options,
      changed: Object.keys(changedOptions(options)),
      data: {
        name: dataset.name,
        tokenizer: dataset.tokenizer.name,
        vocabulary: dataset.tokenizer.vocabSize,
        trainTokens: dataset.train.length,
        validationTokens: dataset.val.length,
        sha256: dataset.fingerprint,
      },
    };
  }

  /** What anyone may see of the run, now. */
  status(): RunStatus {
    const { id, name, model, layout, options } = this.#setup;
    const tokensPerStep = options.batchSize * options.blockSize;
    const { stepSeconds, phaseSeconds } = this.#watch;
    const waitingFor = this.#state === "finished" ? null : this.dispatch.waitingFor;
    return {
      run: { name, id, startedAt: this.#startedAt.toISOString() },
      versions: { weft: weftVersion, protocol: String(protocolVersion), node: process.version },
      model: { summary: summaryOf(model), parameters: layout.size, blockSize: model.blockSize },
      arithmetic: this.dispatch.arithmetic ?? null,
      state: waitingFor === null ? this.#state : "waiting",
      waitingFor,
      idleSeconds: this.#watch.idleSeconds(this.dispatch.progressAt),
      // Longer than a slow step, and than the patience for a worker that does not answer.
      stallAfterSeconds: 3 * options.timeout + 20 * options.localSteps * (stepSeconds ?? options.timeout),
      step: this.#step,
      steps: options.steps,
      tokens: this.#tokensSeen,
      shards: options.shards,
      tokensPerStep,
      lossNats: this.#last?.lossNats ?? null,
      valLossNats: this.#validation?.lossNats ?? null,
      bestValLossNats: this.#archive.best ?? null,
      gradientNorm: this.#last?.gradientNorm ?? null,
      learningRate: this.#last?.learningRate ?? null,
      tokensPerSec: stepSeconds && tokensPerStep / stepSeconds,
      stepSeconds,
      etaSeconds: stepSeconds && stepSeconds * (options.steps - this.#step),
      phaseSeconds,
      leases: { ...this.dispatch.counts },
      ...this.dispatch.crew.bytes(),
      workers: this.dispatch.crew.status(this.#step, this.dispatch.leases, this.#watch),
      gone: this.dispatch.crew.gone(),
      quarantined: [...this.dispatch.crew.quarantine.list],
      checkpoints: this.shelf.list(Date.now()),
      samples: [...this.history.samples(3)],
      checkpointTrouble: this.#archive.trouble ?? null,
      diskFreeBytes: this.#archive.freeBytes,
      weightsDigest: this.#digest,
    };
  }
}
