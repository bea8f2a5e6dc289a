// What a run takes, before it begins: memory of this machine, held against what is free, and time by a short measurement.
import { constants } from "node:buffer";
import { performance } from "node:perf_hooks";
import type { Logger } from "pino";
import { coordinatorBytes, processBytes, vectorsSent } from "../coordinator/memory.ts";
import type { RunStatus } from "../coordinator/status.ts";
import { type Clock, systemClock } from "../shared/clock.ts";
import { flagsFor, type Options, threadsEach } from "../shared/config.ts";
import { ConfigError } from "../shared/errors.ts";
import { layoutOf } from "../shared/family/layout.ts";
import { type ModelConfig, summaryOf } from "../shared/model.ts";
import { chooseEngine, openEngine } from "../worker/engine/choose.ts";
import { engineOptionsOf } from "../worker/engine/options.ts";
import { durationText } from "./duration.ts";

interface Memory {
  readonly coordinatorBytes: number;
  /** Of each worker on this machine; undefined where there is none, or a GPU's memory is planned when it is opened. */
  readonly workerBytes: number | undefined;
  /** What its engine plans, and can address at all. */
  readonly planned?: { readonly bytes: number; readonly addressableBytes?: number | undefined } | undefined;
  readonly workers: number;
}

/** @param workers on this machine */
async function memoryOf(options: Options, model: ModelConfig, workers: number): Promise<Memory> {
  const { size } = layoutOf(model);
  const sharing = options.sharedMemory ? workers : 0;
  const coordinator = coordinatorBytes(size, sharing, options);
  if (workers === 0) return { coordinatorBytes: coordinator, workerBytes: undefined, workers };
  const threads = options.threads || threadsEach(workers);
  const rows = options.batchSize / options.shards;
  const { kind, asked } = await chooseEngine(options.engine, engineOptionsOf({ ...options, threads }, model, rows));
  const planned = await kind.planned?.(asked);
  // Weights that are on their way while it still computes with the last ones, and what changes them.
  const arriving = sharing > 0 ? 0 : (options.wire === "float32" ? 2 : 3) * 4 * size * vectorsSent(options);
  // Weights and moments of the replica that it trains.
  const replica = options.localSteps > 1 ? 3 * 4 * size : 0;
  const workerBytes = planned && processBytes + planned.bytes + arriving + replica;
  return { coordinatorBytes: coordinator, workerBytes, planned, workers };
}

const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(bytes < 1e10 ? 2 : 0)} GB`;

function sentence({ coordinatorBytes: own, workerBytes, workers }: Memory): string {
  if (workers === 0) return `${gigabytes(own)} for the coordinator`;
  const each = workers === 1 ? "its worker" : `each of ${workers} workers`;
  const theirs =
    workerBytes === undefined ? `${each} plans its GPU's as it starts` : `${gigabytes(workerBytes)} for ${each}`;
  return `${gigabytes(own)} for the coordinator, ${theirs}`;
}

/**
 * @param workers on this machine
 * @returns what the run takes and what is free, as a sentence
 * @throws ConfigError where it is more, with what to change
 */
export async function checkMemory(options: Options, model: ModelConfig, workers: number): Promise<string> {
  // What this process holds already is part of the estimate.
  const free = process.availableMemory() + process.memoryUsage.rss();
  const limit = options.memoryLimit > 0 ? options.memoryLimit * 2 ** 30 : Number.POSITIVE_INFINITY;
  const addressable = ({ planned }: Memory): boolean =>
    !planned?.addressableBytes || planned.bytes <= planned.addressableBytes;
  const fits = (memory: Memory): boolean => {
    const { coordinatorBytes: own, workerBytes = 0, workers: count } = memory;
    const taken = options.memoryLimit > 0 ? workerBytes <= limit : own + count * workerBytes <= free;
    return taken && addressable(memory);
  };
  const memory = await memoryOf(options, model, workers);
  const about = `about ${sentence(memory)}`;
  if (fits(memory)) {
    checkLength(options, model);
    return `${about}; ${gigabytes(free)} are free`;
  }

  const { shards, batchSize } = options;
  const ways: Partial<Options>[] = [
    { checkpointActivations: true },
    { shards: Math.min(batchSize & -batchSize, 65_536) },
    { workers: 1 },
    { workers: 1, checkpointActivations: true },
    { batchSize: shards },
    { batchSize: shards, checkpointActivations: true },
    { batchSize: shards, checkpointActivations: true, workers: 1 },
  ];
  let cure = "take a smaller model or another machine";
  for (const way of workers === 0 ? [] : ways) {
    const changed = { ...options, ...way };
    if (!fits(await memoryOf(changed, model, Math.min(workers, way.workers ?? workers)))) continue;
    cure = `it would fit with ${flagsFor(way).join(" ")}`;
    break;
  }
  const rows = batchSize / shards;
  const least = model.vocabSize === 1 ? " at least" : "";
  const had = !addressable(memory)
    ? `an engine in WebAssembly addresses ${gigabytes(memory.planned!.addressableBytes!)}`
    : options.memoryLimit > 0
      ? `--memory-limit is ${gigabytes(limit)}`
      : `${gigabytes(free)} are free`;
  throw new ConfigError(
    `config: this machine cannot hold ${summaryOf(model)}, ${rows} ${rows === 1 ? "sequence" : "sequences"} at once: ${about}${least}, ` +
      `${had}; ${cure}`,
  );
}

/** What travels is one array. */
function checkLength(options: Options, model: ModelConfig): void {
  const [vectors, { size }] = [vectorsSent(options), layoutOf(model)];
  const most = constants.MAX_LENGTH;
  if (vectors * size <= most) return;
  const cure = vectors > 1 && size <= most ? "take --inner-state fresh" : "take a smaller model";
  throw new ConfigError(
    `config: ${summaryOf(model)}: ${vectors > 1 ? `weights and averaged moments are ${vectors} times ` : ""}${size.toLocaleString("en")} values, ` +
      `and an array of Node.js ${process.versions.node} holds ${most.toLocaleString("en")}; ${cure}`,
  );
}

/** How long the measurement goes on once its first call is done. */
const measureMs = 1000;

/** Seconds of the steps that are left, by the speed of all cores, or of the GPU, on a part of a shard. */
export async function measureTime(options: Options, model: ModelConfig, stepsLeft: number): Promise<string> {
  const most = options.batchSize / options.shards;
  const threads = threadsEach(1);
  const { engine } = await openEngine(options.engine, engineOptionsOf({ ...options, threads }, model, most));
  try {
    const { size } = layoutOf(model);
    await engine.setWeights(new Float32Array(size).fill(0.02));
    const sum = new Float32Array(size);
    // XLA compiles every shape anew: it gets the one that it will compute.
    const isCompiled = engine.name === "xla";
    const T = isCompiled ? model.blockSize : Math.min(model.blockSize, 256);
    const since = performance.now();
    let tokensPerSec = 0;
    for (
      let [rows, calls] = [isCompiled ? most : 1, isCompiled ? -1 : 0];
      calls < 1 || performance.now() - since < measureMs;
      calls++
    ) {
      const tokens = Int32Array.from({ length: rows * T }, (_, i) => i % model.vocabSize);
      const startedAt = performance.now();
      await engine.gradient(tokens, tokens, rows, { seed: 0, step: 0, first: 0, count: 1 }, sum);
      tokensPerSec = Math.max(tokensPerSec, (1000 * rows * T) / (performance.now() - startedAt));
      rows = Math.min(2 * rows, most);
    }
    const seconds = (stepsLeft * options.batchSize * options.blockSize) / tokensPerSec;
    return `about ${durationText(seconds)} for ${stepsLeft.toLocaleString("en")} steps at ${speedText(tokensPerSec)} (${engine.device}, measured on a part of a step; validation and the wire come on top)`;
  } finally {
    await engine.dispose();
  }
}

const speedText = (tokensPerSec: number): string => `${Math.round(tokensPerSec).toLocaleString("en")} tokens/s`;

/** Between two looks at a run. */
const lookMs = 2000;
/** Looks that saw it go on: after the first few its speed is known, and so many of the last tell it. */
const [fewest, most] = [5, 30];
/** How far off an estimate is when it is taken back. */
const faroff = 2;

/**
 * Say how fast a run is and how long it will take, by the median of what it was seen to do, so that a busy moment counts
 * for little; and once more, where that turns out to be far off. @returns ends the looking
 */
export function announceSpeed(
  run: { status(): Pick<RunStatus, "step" | "steps" | "tokensPerStep"> },
  log: Pick<Logger, "info">,
  clock: Clock = systemClock,
): () => void {
  let seen: { at: number; step: number } | undefined;
  /** Milliseconds a step, by look. */
  let paces: number[] = [];
  let said: { at: number; ms: number } | undefined;
  const first = run.status().step;
  const timer = clock.every(lookMs, () => {
    const { step, steps, tokensPerStep } = run.status();
    const at = clock.now();
    const before = seen;
    if (step > (before?.step ?? first)) seen = { at, step };
    if (!before || step === before.step) return;
    // Steps that were taken back tell nothing.
    if (step > before.step) paces = [...paces, (at - before.at) / (step - before.step)].slice(-most);
    if (paces.length < fewest || step >= steps) return;
    const pace = paces.toSorted((a, b) => a - b)[paces.length >> 1]!;
    const ms = pace * (steps - step);
    const speed = speedText((1000 * tokensPerStep) / pace);
    const left = `${steps - step} steps more take about ${durationText(ms / 1000)}`;
    if (!said) {
      said = { at, ms };
      log.info(`${speed}: ${left}`);
      return;
    }
    const whole = at - said.at + ms;
    if (whole < faroff * said.ms && said.ms < faroff * whole) return;
    timer.cancel();
    log.info(`${speed}: ${left}, other than it looked at first`);
  });
  return () => timer.cancel();
}
