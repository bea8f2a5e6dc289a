// The training loop, from the first step to the last:
//
//   sampler -> leases -> gradients -> one sum -> clip + AdamW -> digest + ledger -> broadcast -> (eval, checkpoint)
//
// It decides nothing about who computes what (dispatch.ts, plan.ts) and knows no socket (connection.ts). What reaches
// the numbers is a function of options, data and seed alone: never of workers, their number, order or speed.
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import type { Logger } from "pino";
import type { WebSocket } from "ws";
import { TreeSum, VectorPool } from "../shared/arithmetic/tree.ts";
import type { VectorOps } from "../shared/arithmetic/vector.ts";
import { checkpointName, type Moments } from "../shared/checkpoint/checkpoint.ts";
import { changedOptions, type Options } from "../shared/config.ts";
import { ConfigError, messageOf } from "../shared/errors.ts";
import type { Layout } from "../shared/family/layout.ts";
import { type ModelConfig, summaryOf } from "../shared/model.ts";
import { weftVersion } from "../shared/version.ts";
import { protocolVersion } from "../shared/wire/protocol.ts";
import { Archive } from "./archive.ts";
import { Dispatch, Stopped } from "./crew/dispatch.ts";
import type { Dataset, Split } from "./data/dataset.ts";
import type { Sampler } from "./data/sampler.ts";
import type { History } from "./history.ts";
import { Journal } from "./journal.ts";
import type { Ledger } from "./ledger.ts";
import { Metrics } from "./metrics.ts";
import { Optimizer } from "./optimizer/adamw.ts";
import { learningRateAt } from "./optimizer/schedule.ts";
import { EarlierRuns, writePast } from "./past.ts";
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
  readonly moments?: Moments | undefined;
  /** Updates already applied to the weights. */
  readonly step: number;
  /** The arithmetic that made the weights, of a run that is resumed. */
  readonly arithmetic?: string | undefined;
  /** Validation loss of the checkpoint that is resumed, where it has one. */
  readonly valLossNats?: number | undefined;
  readonly bestValLossNats?: number | undefined;
  /** The curves up to `step`. */
  readonly history: History;
  readonly dataset: Dataset;
  readonly sampler: Sampler;
  readonly ledger: Ledger;
  readonly ops: VectorOps;
  readonly log: Logger;
}

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
  readonly metrics: Metrics;
  readonly history: History;
  readonly journal: Journal;
  readonly earlier: EarlierRuns;
  readonly dispatch: Dispatch;
  readonly #setup: RunSetup;
  readonly #optimizer: Optimizer;
  readonly #pool: VectorPool;
  readonly #sum: TreeSum;
  readonly #archive: Archive;
  readonly #watch = new Stopwatch();
  readonly #startedAt = new Date();
  #state: RunStatus["state"] = "training";
  #step: number;
  #digest: string;
  /** Of the last step; none before the first of this process. */
  #last: { lossNats: number; gradientNorm: number; learningRate: number } | undefined;
  #valLossNats: number | null = null;
  #checkpointAsked = false;
  /** Seconds of training before this process, and the moment from which it counts its own. */
  readonly #trainedSeconds: number;
  #trainingSince = performance.now();

  constructor(setup: RunSetup) {
    const { layout, options, ops, log } = setup;
    this.#setup = setup;
    this.history = setup.history;
    this.#trainedSeconds = setup.history.seconds;
    this.journal = new Journal(log);
    this.earlier = new EarlierRuns(options.out);
    this.#optimizer = new Optimizer(layout, options, ops, setup.moments);
    this.#pool = new VectorPool(layout.size);
    this.#sum = new TreeSum({ first: 0, count: options.shards }, this.#pool, ops);
    this.#step = setup.step;
    this.#valLossNats = setup.valLossNats ?? null;
    this.#digest = ops.digest(setup.weights);
    this.#archive = new Archive(options.out, options.keepCheckpoints, this.journal, setup.bestValLossNats);
    this.dispatch = new Dispatch({
      timeoutMs: options.timeout * 1000,
      rows: options.batchSize / options.shards,
      anyArithmetic: options.anyArithmetic,
      arithmetic: setup.arithmetic,
      pool: this.#pool,
      ops,
      journal: this.journal,
    });
    this.metrics = new Metrics(() => this.status());
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
    const { options, weights } = this.#setup;
    this.journal.keep("started", `training from step ${this.#step} to ${options.steps}`, { step: this.#step });
    await this.#archive.refresh();
    this.dispatch.crew.broadcast(this.#step, weights);
    try {
      // A run that was stopped in its last evaluation still owes it.
      if (this.#step === options.steps && this.#valLossNats === null) await this.#validateAndSave();
      while (this.#step < options.steps) {
        await this.#trainStep();
        await this.#validateAndSave();
      }
      this.#state = "finished";
      this.journal.keep("ended", `finished ${options.steps} steps`, { step: this.#step });
    } catch (error) {
      if (!(error instanceof Stopped)) throw error;
      this.#state = "stopping";
      this.journal.tell("ended", `stopping after step ${this.#step}: ${error.message}`, { step: this.#step });
      const isNew = this.#step > Math.max(this.#setup.step, this.#archive.newest);
      if (isNew) await this.#checkpoint(null, false);
    }
    await this.#archive.whenWritten();
    this.dispatch.waitingFor = null;
    const finished = this.#state === "finished";
    await this.dispatch.crew.finish(finished ? "the run is finished" : "the coordinator stops");
    return {
      step: this.#step,
      finished,
      valLossNats: this.#valLossNats,
      weightsDigest: this.#digest,
      checkpoint: this.#step > 0 ? join(options.out, checkpointName(this.#step)) : null,
    };
  }

  /** Leave the step in hand, write a checkpoint and let train() return. */
  stop(reason: string): void {
    this.dispatch.fail(new Stopped(reason));
  }

  /** Write a checkpoint after the step in hand. */
  checkpointSoon(): void {
    this.#checkpointAsked = true;
    this.journal.tell("asked", "a checkpoint was asked for: it is written after this step", { step: this.#step });
  }

  /** A worker has connected. @param isLocal from this machine, or by way of it */
  admit(socket: WebSocket, isLocal: boolean): void {
    const { name, model, layout, options } = this.#setup;
    const welcome = {
      type: "welcome" as const,
      version: protocolVersion,
      run: name,
      model,
      parameters: layout.size,
      seed: options.seed,
      rowsPerShard: options.batchSize / options.shards,
      precision: options.precision,
      timeoutMs: options.timeout * 1000,
    };
    this.dispatch.admit(socket, welcome, isLocal && options.sharedMemory);
  }

  /** One update of the weights. */
  async #trainStep(): Promise<void> {
    const { options, weights, ops, sampler, ledger, log } = this.#setup;
    this.#watch.begin();
    if (this.#last === undefined) this.#trainingSince = performance.now();
    this.#state = "training";
    const { losses, parts, unitsByWorker } = await this.#watch.timeAsync("compute", () =>
      this.dispatch.gather({
        purpose: "train",
        step: this.#step,
        starts: sampler(this.#step),
        read: (starts) => this.#windows("train", starts),
        sum: this.#sum,
      }),
    );
    const learningRate = learningRateAt(this.#step, options);
    const gradientNorm = this.#watch.time("apply", () => {
      const sum = this.#sum.take();
      const norm = this.#optimizer.apply(weights, sum, options.shards, learningRate, this.#step + 1);
      this.#pool.give(sum);
      return norm;
    });
    if (!Number.isFinite(gradientNorm))
      throw new ConfigError(
        `the run diverged: the gradient norm of step ${this.#step + 1} is ${gradientNorm}; start again from a checkpoint with --init-from and a lower --learning-rate`,
      );
    this.#step++;
    this.#digest = ops.digest(weights);
    this.#last = { lossNats: mean(losses), gradientNorm, learningRate };
    this.#watch.time("broadcast", () => this.dispatch.crew.broadcast(this.#step, weights));
    await ledger.append({ step: this.#step, parts, ...this.#last, weights: this.#digest });

    const { seconds, phases } = this.#watch.end(unitsByWorker);
    this.metrics.observeStep(seconds, phases);
    const { stepSeconds } = this.#watch;
    const tokensPerSec = Math.round((options.batchSize * options.blockSize) / stepSeconds!);
    this.history.addStep({ step: this.#step, seconds: this.#seconds, ...this.#last, tokensPerSec });
    const etaSeconds = stepSeconds! * (options.steps - this.#step);
    log.info({ step: this.#step, ...this.#last, tokensPerSec, etaSeconds, workers: this.dispatch.crew.size }, "step");
  }

  /** What is due after a step. */
  async #validateAndSave(): Promise<void> {
    const { options, log } = this.#setup;
    const isLast = this.#step === options.steps;
    const due = (interval: number) => isLast || (interval > 0 && this.#step % interval === 0);
    let valLossNats: number | null = null;
    if (due(options.evalInterval)) {
      this.#state = "evaluating";
      valLossNats = await this.#betweenSteps("eval", () => this.#validationLoss());
      this.#valLossNats = valLossNats;
      this.history.addValidation({ step: this.#step, seconds: this.#seconds, valLossNats });
      this.journal.keep("evaluation", `validation loss ${valLossNats.toFixed(4)} after step ${this.#step}`, {
        step: this.#step,
      });
      log.info({ step: this.#step, valLossNats }, "validation");
    }
    const isBest = valLossNats !== null && valLossNats < (this.#archive.best ?? Number.POSITIVE_INFINITY);
    if (due(options.checkpointInterval) || isBest || this.#checkpointAsked)
      await this.#betweenSteps("checkpoint", () => this.#checkpoint(valLossNats, isLast));
  }

  /** Of training, since the run's first step, without the times in which no coordinator was there. */
  get #seconds(): number {
    return this.#trainedSeconds + (performance.now() - this.#trainingSince) / 1000;
  }

  /** A phase that comes after its step has been counted. */
  async #betweenSteps<T>(phase: "eval" | "checkpoint", act: () => Promise<T>): Promise<T> {
    const started = performance.now();
    const result = await this.#watch.timeAsync(phase, act);
    this.metrics.observePhase(phase, (performance.now() - started) / 1000);
    return result;
  }

  /** Mean loss in nats over the consecutive windows of the validation split, all or --eval-windows evenly spaced. */
  async #validationLoss(): Promise<number> {
    const { options, dataset } = this.#setup;
    const all = dataset.consecutive("val");
    const wanted = Math.min(options.evalWindows || all.length, all.length);
    const { losses } = await this.dispatch.gather({
      purpose: "eval",
      step: this.#step,
      starts: Array.from({ length: wanted }, (_, i) => all[Math.floor((i * all.length) / wanted)]!),
      read: (starts) => this.#windows("val", starts),
    });
    return mean(losses);
  }

  async #checkpoint(valLossNats: number | null, isFinal: boolean): Promise<void> {
    const { options, model, weights, ledger, dataset } = this.#setup;
    this.#checkpointAsked = false;
    await ledger.sync();
    await this.#savePast();
    await this.#archive.write(
      {
        model,
        weights: weights.slice(),
        m: this.#optimizer.m.slice(),
        v: this.#optimizer.v.slice(),
        tokenizer: dataset.tokenizer.toFiles(),
        state: {
          step: this.#step,
          seed: options.seed,
          options,
          arithmetic: this.dispatch.arithmetic ?? "none",
          weightsDigest: this.#digest,
          ledger: ledger.position,
          dataset: { name: dataset.name, fingerprint: dataset.fingerprint },
          tokensSeen: this.#step * options.batchSize * options.blockSize,
          ...(this.#last && { lossNats: this.#last.lossNats }),
          ...(valLossNats !== null && { valLossNats }),
        },
      },
      isFinal,
    );
  }

  /** The curves beside the checkpoint that they lead to. */
  async #savePast(): Promise<void> {
    const { options, model, log } = this.#setup;
    const tokensPerStep = options.batchSize * options.blockSize;
    const about = { model: summaryOf(model), steps: options.steps, tokensPerStep, options: changedOptions(options) };
    await writePast(options.out, { ...about, ...this.history.curves() }).catch((error) =>
      log.warn(`the curves for the page could not be saved: ${messageOf(error)}`),
    );
  }

  /** (starts.length, T + 1) token ids in the narrowest type that holds them. */
  async #windows(split: Split, starts: readonly number[]): Promise<Uint16Array | Uint32Array> {
    const { model, dataset } = this.#setup;
    const row = new Int32Array(model.blockSize + 1);
    const size = starts.length * row.length;
    const ids = model.vocabSize > 65_536 ? new Uint32Array(size) : new Uint16Array(size);
    for (const [index, start] of starts.entries()) {
      await dataset.read(split, start, row.length, row);
      ids.set(row, index * row.length);
    }
    return ids;
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
    const { stepSeconds, phaseSeconds, idleSeconds } = this.#watch;
    const waitingFor = this.#state === "finished" ? null : this.dispatch.waitingFor;
    return {
      run: { name, id, startedAt: this.#startedAt.toISOString() },
      versions: { weft: weftVersion, protocol: String(protocolVersion), node: process.version },
      model: { summary: summaryOf(model), parameters: layout.size, blockSize: model.blockSize },
      arithmetic: this.dispatch.arithmetic ?? null,
      state: waitingFor === null ? this.#state : "waiting",
      waitingFor,
      idleSeconds,
      // Longer than a slow step, and than the patience for a worker that has fallen silent.
      stallAfterSeconds: 3 * options.timeout + 20 * (stepSeconds ?? options.timeout),
      step: this.#step,
      steps: options.steps,
      tokens: this.#step * tokensPerStep,
      shards: options.shards,
      tokensPerStep,
      lossNats: this.#last?.lossNats ?? null,
      valLossNats: this.#valLossNats,
      bestValLossNats: this.#archive.best ?? null,
      gradientNorm: this.#last?.gradientNorm ?? null,
      learningRate: this.#last?.learningRate ?? null,
      tokensPerSec: stepSeconds && tokensPerStep / stepSeconds,
      stepSeconds,
      etaSeconds: stepSeconds && stepSeconds * (options.steps - this.#step),
      phaseSeconds,
      leases: { ...this.dispatch.counts },
      ...this.dispatch.crew.bytes(),
      workers: this.dispatch.crew.status(this.#step, this.dispatch.leases, this.#tokensPerSecByWorker()),
      gone: this.dispatch.crew.gone(),
      checkpoints: this.shelf.list(Date.now()),
      weightsDigest: this.#digest,
    };
  }

  #tokensPerSecByWorker(): Map<string, number> {
    const { batchSize, blockSize, shards } = this.#setup.options;
    const speeds = [...this.#watch.unitsPerSecond];
    return new Map(speeds.map(([worker, units]) => [worker, (units * batchSize * blockSize) / shards]));
  }
}

/** In the order of the list: the bits of a loss must not depend on who answered first either. */
function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
