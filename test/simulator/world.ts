// One world: the real coordinator and the real workers, with encoding and decoding, in one process under a virtual clock,
// with the faults that its seed draws. What must hold in every one of them:
//
// - the weights at the end are those of one undisturbed worker, every shard of every step counted once;
// - while the honest worker can speak with its coordinator, a step ends within
//     3 timeouts (nobody measured; a mute one found out; a connection given up)
//     + 12 x the honest worker's own time for the round (what others held, late at twice what their speed gives; its own)
//     + what the wire takes;
// - nothing is left behind: no timer, no vector on its way in, no more memory than the round's.
import pino from "pino";
import { type Lie, lies, lyingEngine } from "../../cli/liar.ts";
import { isBy, Quarantine } from "../../coordinator/crew/quarantine.ts";
import { roomBytes, roomFor } from "../../coordinator/crew/uploads.ts";
import type { Dataset } from "../../coordinator/data/dataset.ts";
import { History } from "../../coordinator/history.ts";
import { type EarlierState, type RunResult, type RunSetup, TrainingRun } from "../../coordinator/loop.ts";
import { AdamW } from "../../coordinator/optimizer/adamw.ts";
import { Nesterov } from "../../coordinator/optimizer/nesterov.ts";
import { roundedUpdates } from "../../coordinator/optimizer/rounded.ts";
import { learningRateAt } from "../../coordinator/optimizer/schedule.ts";
import { Relay } from "../../relay/relay.ts";
import { adamwUpdate } from "../../shared/arithmetic/adamw.ts";
import {
  codecOf,
  codecOver,
  nodeRounding,
  scalarCodec,
  type WireFormat,
  wireFormats,
} from "../../shared/arithmetic/codec.ts";
import { TreeSum, VectorPool } from "../../shared/arithmetic/tree.ts";
import { scalarOps } from "../../shared/arithmetic/vector.ts";
import type { Options } from "../../shared/config.ts";
import { ConfigError, messageOf } from "../../shared/errors.ts";
import { initialWeights } from "../../shared/family/init.ts";
import { decayStretches, layoutOf } from "../../shared/family/layout.ts";
import { resolveOptions } from "../../shared/resolve.ts";
import { randomSampler } from "../../shared/sampler.ts";
import { timesOf } from "../../shared/wire/protocol.ts";
import type { Engine } from "../../worker/engine/contract.ts";
import { work } from "../../worker/worker.ts";
import { Disk } from "./disk.ts";
import { blockSize, type Health, toyEngine, toyGradient, toyModel } from "./engine.ts";
import { drawFaults, excuses, type Fault } from "./faults.ts";
import { type LinkSettings, type Mishap, Network } from "./network.ts";
import { between, oneOf, type Random, randomFrom, whole } from "./random.ts";
import { Process, Time } from "./time.ts";

const arithmetic = "native plain float32";
/** A world of more steps than this is looked at for its memory alone. */
export const keptLines = 1000;
const log = pino({ level: "silent" });
const layout = layoutOf(toyModel);

export interface Plan {
  readonly seed: number;
  readonly options: Options;
  readonly workers: readonly {
    readonly unitMs: number;
    readonly link: LinkSettings;
    readonly below?: number;
    readonly hasData?: boolean;
  }[];
  /** Relays, each below an earlier one or the coordinator, and when they are killed. */
  readonly relays?: readonly {
    readonly link: LinkSettings;
    readonly below?: number;
    /** Named before those: any other relay. */
    readonly first?: number;
    readonly killedAt: number;
  }[];
  readonly faults: readonly Fault[];
  /** What the last worker does, from a moment on; the one before it and worker 0 are honest. */
  readonly lie?: { readonly kind: Lie; readonly fromMs: number };
  /** For gradients on their way in and in the sum; left out: the usual. */
  readonly roomBytes?: number;
  /** Hears of every step that is done. */
  readonly onStep?: (step: number) => void;
}

/** What the seed means. */
export function planOf(seed: number): Plan {
  const random = randomFrom(seed);
  const shards = oneOf(random, [1, 2, 4, 8]);
  const rows = whole(random, 1, 2);
  const count = oneOf(random, [1, 2, 2, 3, 3, 4, 6]);
  const unitMs = between(random, 2, 60);
  const options = optionsOf({
    shards,
    batchSize: shards * rows,
    steps: whole(random, 3, 7),
    seed,
    timeout: oneOf(random, [1, 2, 5]),
    evalInterval: oneOf(random, [0, 2]),
    checkpointInterval: oneOf(random, [0, 1, 2]),
    wire: wireFormats[seed % wireFormats.length]!,
    evalSampleTokens: seed % 3 === 0 ? 2 : 0,
  });
  const workers = Array.from({ length: count }, () => ({
    unitMs: unitMs * oneOf(random, [1, 1, 1, 0.3, 4]),
    link: { latencyMs: oneOf(random, [0.1, 1, 20]), bytesPerMs: oneOf(random, [100, 1000, 100_000]) },
  }));
  const spanMs = options.steps * shards * unitMs * oneOf(random, [0.5, 1, 2]);
  return { seed, options, workers, faults: drawFaults(random, count, spanMs) };
}

/** The same world with one more honest worker, one that lies, and second opinions. */
export function lyingPlanOf(seed: number, verify: number): Plan {
  const plan = planOf(seed);
  const random = randomFrom(seed + 0.25);
  const first = plan.workers[0]!;
  const more = [1, 1].map(() => ({ ...first, unitMs: first.unitMs * oneOf(random, [0.3, 1, 2]) }));
  const steps = plan.options.steps * 3;
  const options = optionsOf({ ...plan.options, verify, steps, evalInterval: oneOf(random, [1, 2]) });
  const spanMs = steps * options.shards * first.unitMs;
  const lie = { kind: oneOf(random, lies), fromMs: oneOf(random, [0, 0, between(random, 0, spanMs / 2)]) };
  return { ...plan, options, workers: [...plan.workers, ...more], lie };
}

/**
 * The same world with a chain of relays and the workers along it; the honest one stays with the coordinator, where it is
 * to be heard in any case.
 */
export function withRelays(plan: Plan, depth: number, honestBelow = false): Plan {
  const random = randomFrom(plan.seed + 0.25);
  const spanMs = plan.options.steps * plan.options.shards * plan.workers[0]!.unitMs;
  const link = { latencyMs: oneOf(random, [0.1, 5]), bytesPerMs: oneOf(random, [1000, 100_000]) };
  const relays = Array.from({ length: depth }, (_, i) => ({
    link,
    ...(i > 0 && { below: i - 1 }),
    killedAt: oneOf(random, [between(random, 0, spanMs), Number.POSITIVE_INFINITY]),
  }));
  const workers = plan.workers.map((worker, i) =>
    depth > 0 && (i > 0 || honestBelow)
      ? { ...worker, below: i === 0 ? depth - 1 : whole(random, 0, depth - 1) }
      : worker,
  );
  return { ...plan, relays, workers };
}

/** The same world in rounds of local steps. */
export function inRounds(plan: Plan): Plan {
  const { seed, options, faults } = plan;
  const random = randomFrom(seed + 0.75);
  const localSteps = whole(random, 2, 5);
  const replicas = oneOf(
    random,
    [1, 2, 4, 8].filter((replicas) => replicas <= options.shards),
  );
  const steps = Math.max(2, options.steps * localSteps - whole(random, 0, localSteps - 1));
  const innerState = oneOf(random, ["averaged", "fresh"] as const);
  // A unit may take far longer than the timeout.
  const longer = oneOf(random, [1, 1, 20]);
  return {
    ...plan,
    options: optionsOf({ ...options, localSteps, replicas, steps, innerState }),
    workers: plan.workers.map((worker) => ({ ...worker, unitMs: worker.unitMs * longer })),
    // AdamW makes a step of the usual size of any gradient: what is absurd inside a replica is nothing that can be seen.
    faults: faults.map((fault) => (fault.kind === "absurd" ? { ...fault, kind: "nan" } : fault)),
  };
}

/** The same world where a coordinator has the least room for gradients, and every other worker draws its windows itself. */
export const lean = (plan: Plan): Plan => ({
  ...plan,
  roomBytes: 0,
  workers: plan.workers.map((worker, i) => ({ ...worker, hasData: i % 2 === 0 })),
});

let base: Options | undefined;
export function optionsOf(own: Partial<Options>): Options {
  base ??= resolveOptions({
    flags: {
      family: "bigram",
      nLayer: 0,
      nHead: 0,
      nEmbd: 0,
      blockSize,
      warmupSteps: 0,
      learningRate: 0.01,
      shards: 1,
      batchSize: 1,
    },
  }).options;
  return {
    ...base,
    minLearningRate: 0.001,
    ...own,
    decaySteps: own.steps ?? base.steps,
    sharedMemory: false,
    patience: 1e6,
  };
}

const tokens = Int32Array.from({ length: 400 }, (_, i) => (i * i * 7 + i * 3) % toyModel.vocabSize);
const [trainTokens, valTokens] = [tokens.subarray(0, 340), tokens.subarray(340)];

const dataset = {
  name: "toy",
  fingerprint: "toy",
  tokenizer: {
    vocabSize: toyModel.vocabSize,
    toFiles: () => new Map(),
    encode: () => Int32Array.of(1),
    decoder: () => ({ push: (id: number) => ` ${id}`, end: () => "" }),
  },
  train: trainTokens,
  val: valTokens,
  consecutive: () =>
    Int32Array.from({ length: Math.floor((valTokens.length - 1) / blockSize) }, (_, i) => i * blockSize),
  read: async (split: string, start: number, length: number, out: Int32Array) =>
    out.set((split === "train" ? trainTokens : valTokens).subarray(start, start + length)),
} as unknown as Dataset;

/** The same at a worker. */
const workerData = {
  ...{ name: "toy", fingerprint: "toy", train: trainTokens },
  read: async (start: number, row: Int32Array) => row.set(trainTokens.subarray(start, start + row.length)),
};

const codecs = (format: WireFormat) => codecOver(format, scalarCodec, scalarOps);
const samplerOf = ({ seed, batchSize }: Options) => randomSampler(seed, batchSize, trainTokens.length - blockSize);

/** A shard's gradient at these weights. */
function gradientOf(weights: Float32Array, windows: readonly number[], shard: number, out: Float32Array): void {
  const ids = (shift: number) =>
    Int32Array.from(windows.flatMap((at) => [...trainTokens.subarray(at + shift, at + shift + blockSize)]));
  toyGradient(weights, ids(0), ids(1), shard, out);
}

/** The same in rounds of local steps. */
function localDigest(options: Options): string {
  const { shards, replicas, localSteps, innerState, batchSize, steps, seed, outerLearningRate } = options;
  const [rows, each] = [batchSize / shards, shards / replicas];
  const P = layout.size;
  const isAveraged = innerState === "averaged";
  const state = { weights: initialWeights(layout, seed), m: new Float32Array(P), v: new Float32Array(P) };
  const wire = { codec: codecs(options.wire), seed, ops: scalarOps };
  const nesterov = { momentum: options.outerMomentum };
  const outer = roundedUpdates(P, wire, () => new Nesterov(layout, nesterov, scalarOps));
  const codec = codecOf(options.wire, isAveraged ? 3 : 1, P, codecs);
  const pool = new VectorPool((isAveraged ? 3 : 1) * P);
  const sampler = samplerOf(options);
  for (let step = 0; step < steps; ) {
    const end = Math.min(step + localSteps, steps);
    const round = nodeRounding(codec, { seed, step, units: replicas });
    const sum = new TreeSum({ first: 0, count: replicas }, pool, scalarOps, round);
    for (let replica = 0; replica < replicas; replica++) {
      const own = { weights: state.weights.slice(), m: state.m.slice(), v: state.v.slice() };
      for (let h = step; h < end; h++) {
        const gradients = new VectorPool(P);
        const batch = new TreeSum({ first: replica * each, count: each }, gradients, scalarOps);
        for (let shard = replica * each; shard < (replica + 1) * each; shard++) {
          const gradient = gradients.take();
          gradientOf(own.weights, sampler(h).slice(shard * rows, (shard + 1) * rows), shard, gradient);
          batch.add({ first: shard, count: 1 }, gradient);
        }
        const count = isAveraged ? h + 1 : h + 1 - step;
        const update = { ...options, units: each, learningRate: learningRateAt(h, options), count };
        adamwUpdate(scalarOps, decayStretches(layout), own, batch.take(), update);
      }
      const vector = pool.take();
      vector.set(state.weights.map((x, i) => x - own.weights[i]!));
      if (isAveraged) vector.set(own.m, P);
      if (isAveraged) vector.set(own.v, 2 * P);
      round?.({ first: replica, count: 1 }, vector);
      sum.add({ first: replica, count: 1 }, vector);
    }
    const all = sum.take();
    const update = { units: replicas, learningRate: outerLearningRate, count: end };
    outer.apply(state.weights, all.subarray(0, P), update);
    for (const [i, moment] of [state.m, state.v].entries())
      if (isAveraged)
        moment.set(
          all.subarray((i + 1) * P, (i + 2) * P).map((x) => (Math.abs(x) / replicas < 2 ** -100 ? 0 : x / replicas)),
        );
    pool.give(all);
    step = end;
  }
  return scalarOps.digest(state.weights);
}

/** The digest that one undisturbed worker gives, by the shortest way. */
export function referenceDigest({ options }: Plan): string {
  if (options.localSteps > 1) return localDigest(options);
  const { shards, batchSize, steps, seed } = options;
  const rows = batchSize / shards;
  const weights = initialWeights(layout, seed);
  const codec = codecs(options.wire);
  const optimizer = roundedUpdates(
    layout.size,
    { codec, seed, ops: scalarOps },
    () => new AdamW(layout, options, scalarOps),
  );
  const pool = new VectorPool(layout.size);
  const sampler = samplerOf(options);
  for (let step = 0; step < steps; step++) {
    const starts = sampler(step);
    const round = nodeRounding(codec, { seed, step, units: shards });
    const sum = new TreeSum({ first: 0, count: shards }, pool, scalarOps, round);
    for (let shard = 0; shard < shards; shard++) {
      const gradient = pool.take();
      gradientOf(weights, starts.slice(shard * rows, (shard + 1) * rows), shard, gradient);
      round?.({ first: shard, count: 1 }, gradient);
      sum.add({ first: shard, count: 1 }, gradient);
    }
    const whole = sum.take();
    optimizer.apply(weights, whole, { units: shards, learningRate: learningRateAt(step, options), count: step + 1 });
    pool.give(whole);
  }
  return scalarOps.digest(weights);
}

const coordinatorUrl = "ws://coordinator";

/** Whom one that stands below this relay works for, and who comes after. */
function urlsOf({ relays = [] }: Plan, below: number | undefined): string[] {
  return below === undefined
    ? [coordinatorUrl]
    : [`ws://relay-${below}`, ...urlsOf({ relays } as Plan, relays[below]!.below)];
}

/** One simulated worker, started again whenever its process ends before the run does. */
class Member {
  readonly index: number;
  readonly health: Health;
  process: Process;
  #leave = new AbortController();
  readonly #world: World;
  readonly #link: LinkSettings;
  readonly #arithmetic: string;
  readonly #urls: readonly string[];
  isReachable = true;
  #isDown = false;

  constructor(world: World, index: number, unitMs: number, link: LinkSettings, says = arithmetic, below?: number) {
    this.index = index;
    this.#urls = urlsOf(world.plan, below);
    this.#world = world;
    this.#link = link;
    this.#arithmetic = says;
    this.health = { unitMs, mute: false, value: undefined, loss: undefined, broken: false, gradients: 0 };
    this.process = new Process(world.time);
    this.start();
  }

  start(): void {
    const { time, network, plan, random } = this.#world;
    const process = new Process(time);
    this.process = process;
    this.#leave = new AbortController();
    this.#isDown = false;
    const again = () => {
      time.after(500, () => {
        if (this.process === process && !this.#isDown && !this.#world.isOver) this.start();
      });
    };
    work(
      {
        options: { ...plan.options, coordinator: this.#urls },
        threads: 1,
        name: `w${this.index}`,
        token: undefined,
        log,
        data: plan.workers[this.index]?.hasData ? workerData : undefined,
        leave: this.#leave.signal,
      } as Parameters<typeof work>[0],
      {
        clock: process.clock,
        random,
        connect: ({ url }) => network.dial(process, url, this.#link, () => this.isReachable, `10.0.0.${this.index}`),
        openEngine: async (_name, { maxRows }) => ({
          engine: this.#world.maybeLying(toyEngine(process, this.health, maxRows, this.#arithmetic), this),
          why: "",
        }),
      },
    ).then(again, again);
  }

  crash(silently: boolean): void {
    this.#isDown = true;
    this.process.die();
    this.#world.network.gone(this.process, silently);
  }

  leave(): void {
    this.#isDown = true;
    this.#leave.abort();
  }
}

/** One simulated relay; killed, it comes back after a while. */
class RelayMember {
  readonly #world: World;
  readonly #index: number;
  #process!: Process;

  constructor(world: World, index: number) {
    this.#world = world;
    this.#index = index;
    this.start();
  }

  start(): void {
    const { time, network, plan, random } = this.#world;
    const { link, below, first } = plan.relays![this.#index]!;
    const coordinator = [...(first === undefined ? [] : [`ws://relay-${first}`]), ...urlsOf(plan, below)];
    const process = new Process(time);
    this.#process = process;
    const { options } = plan;
    const relay = new Relay({ options, clock: process.clock, threads: 1, roomBytes: this.#world.roomBytes, log });
    network.listeners.set(`ws://relay-${this.#index}`, {
      process,
      admit: (pipe) => relay.admit(pipe, false, undefined),
    });
    const again = () => {
      relay.suspend("it ended");
      time.after(500, () => {
        if (this.#process === process && !this.#world.isOver) this.start();
      });
    };
    work(
      {
        options: { ...options, coordinator },
        ...{ threads: 1, name: `r${this.#index}`, token: undefined, log, leave: new AbortController().signal },
      },
      {
        clock: process.clock,
        random,
        connect: ({ url }) => network.dial(process, url, link, () => true),
        openEngine: () => Promise.reject(new Error("a relay has no engine")),
      },
      relay,
    ).then(
      ({ how, reason }) => (how === "finished" ? relay.finish(reason) : again()),
      (error: unknown) => {
        if (!(error instanceof ConfigError)) this.#world.blame(`a relay ended: ${(error as Error).stack}`);
        again();
      },
    );
  }

  kill(): void {
    const process = this.#process;
    process.die();
    this.#world.network.gone(process, this.#world.random() < 0.3);
    this.#world.time.after(3000, () => {
      if (!this.#world.isOver) this.start();
    });
  }
}

/** What became of a world. */
export interface Verdict {
  /** What did not hold; none where all did. */
  readonly failures: readonly string[];
  readonly virtualMs: number;
  readonly steps: number;
  /** Whose answers counted. */
  readonly workers: ReadonlySet<string>;
  /** Whose answers counted in the last step. */
  readonly last: ReadonlySet<string>;
  /** Parts of steps that were with more than one worker when they were answered. */
  readonly hedged: number;
  /** Connections that the last coordinator lost, or closed, before its end. */
  readonly left: number;
  /** Gradients of shards that the workers computed for all that. */
  readonly gradients: number;
  /** Parts that a worker went on with from another's state. */
  readonly takenOver: number;
  /** Steps done when the first wrong answer was given, and when its giver was found out; none where none was given. */
  readonly lie?: { readonly began: number; readonly found: number | undefined } | undefined;
  /** Gradients that the last coordinator held at once, on their way in and in the sum. */
  readonly peak: number;
  /** The digest is the honest one. */
  readonly isRight: boolean;
}

class World {
  readonly plan: Plan;
  readonly time = new Time();
  readonly random: Random;
  readonly network: Network;
  readonly #disk: Disk;
  readonly #members: Member[] = [];
  readonly #failures: string[] = [];
  /** Intervals in which the honest worker and the coordinator could not speak, with the time to find back. */
  readonly #excused: { from: number; to: number }[] = [];
  #coordinator!: Process;
  #run!: TrainingRun;
  #result: RunResult | undefined;
  #liar: Member | undefined;
  #lie: Verdict["lie"];
  #endedAt: number | undefined;
  #isRight = false;
  #peak = 0;
  /** When the run began, and when its coordinators did. */
  readonly #starts: number[] = [];

  constructor(plan: Plan) {
    this.plan = plan;
    this.random = randomFrom(plan.seed + 0.5);
    this.network = new Network(this.time, this.random);
    this.#disk = new Disk(this.time, 20, keptLines);
  }

  /** The engine of a member, which lies where it is the one that does. */
  maybeLying(engine: Engine, member: Member): Engine {
    const { lie } = this.plan;
    if (!lie || member !== this.#liar) return engine;
    const begins = () => this.time.now >= lie.fromMs;
    const onLie = () => {
      this.#lie ??= { began: this.#run.status().step, found: undefined };
    };
    return lyingEngine(engine, { kind: lie.kind, random: this.random, begins, onLie });
  }

  async live(): Promise<Verdict> {
    const { plan, time } = this;
    this.#begin();
    for (const [index, { killedAt }] of (plan.relays ?? []).entries()) {
      const relay = new RelayMember(this, index);
      if (Number.isFinite(killedAt)) time.after(killedAt, () => this.isOver || relay.kill());
    }
    plan.workers.forEach(({ unitMs, link, below }, index) => {
      this.#members.push(new Member(this, index, unitMs, link, arithmetic, below));
    });
    this.#liar = plan.lie && this.#members.at(-1);
    for (const fault of plan.faults) time.after(fault.at, () => this.#befall(fault));
    const recovery = this.#recoveryMs;
    for (const fault of plan.faults)
      if (excuses(fault))
        this.#excused.push({ from: fault.at, to: fault.at + fault.forMs + recovery + this.#unheard(fault) });
    const faultMs = plan.faults.reduce((sum, { forMs }) => sum + forMs + recovery, 0);
    // A liar costs steps that are done again, and every answer may wait for the slowest.
    const limit = (plan.lie ? 50 : 2) * (plan.options.steps + 2) * this.#boundMs + faultMs + 60_000;
    const done = await time.run(() => this.#result !== undefined || this.#failures.length > 0, limit);
    if (!done)
      this.#failures.push(
        `after ${Math.round(limit)} ms only ${this.#disk.steps.length} of ${plan.options.steps} steps are done`,
      );
    else if (this.#result) await this.#inspect(this.#result);
    const { quarantined, steps } = this.#disk;
    const found = quarantined.find((entry) => isBy([entry], `w${plan.workers.length - 1}`))?.step;
    const parts = steps.flatMap(({ parts }) => parts);
    return {
      failures: this.#failures,
      virtualMs: this.#endedAt ?? time.now,
      steps: steps.length,
      workers: new Set(parts.map(({ worker }) => worker)),
      last: new Set(steps.at(-1)?.parts.map(({ worker }) => worker)),
      hedged: parts.filter(({ leases }) => leases > 1).length,
      left: this.#run!.journal.after(0).filter(({ kind }) => kind === "left").length,
      gradients: this.#members.reduce((sum, { health }) => sum + health.gradients, 0),
      takenOver: parts.filter(({ begun }) => begun).length,
      lie: this.#lie && { ...this.#lie, found },
      isRight: this.#isRight,
      peak: this.#peak,
    };
  }

  get roomBytes(): number {
    return this.plan.roomBytes ?? roomBytes;
  }

  /** Something went wrong that nothing excuses. */
  blame(what: string): void {
    this.#failures.push(what);
  }

  get isOver(): boolean {
    return this.#result !== undefined;
  }

  /** Of what a worker is sent and gives. */
  get #vectorLength(): number {
    const { localSteps, innerState } = this.plan.options;
    return (localSteps > 1 && innerState === "averaged" ? 3 : 1) * layout.size;
  }

  /** How long a step or round, with its evaluation, may take while the honest worker can compute. */
  get #boundMs(): number {
    const { options, workers } = this.plan;
    const { unitMs, link } = workers[0]!;
    const groups = Math.ceil(14 / (options.batchSize / options.shards));
    const wireMs = 20 * link.latencyMs + (40 * 4 * this.#vectorLength) / link.bytesPerMs;
    const units = options.shards * options.localSteps + groups + options.evalSampleTokens;
    return 3 * options.timeout * 1000 + 12 * unitMs * units + 20 * wireMs;
  }

  /** From the end of a fault of the wire to a worker that computes again: both ends give up, the longest wait, a handshake. */
  get #recoveryMs(): number {
    return 3 * timesOf(this.plan.options.timeout * 1000).silenceMs + 12_000;
  }

  /** A welcome that is lost while the connection lives, as no real wire loses one, is missed when nobody got ready. */
  #unheard({ kind }: Fault): number {
    return kind === "lose" || kind === "swap" ? timesOf(this.plan.options.timeout * 1000).openMs : 0;
  }

  #begin(): void {
    const { options } = this.plan;
    const process = new Process(this.time);
    const from = this.#disk.newest;
    this.#starts.push(this.time.now);
    const setup: RunSetup = {
      ...{ id: "world", name: "world", options, model: toyModel, layout, dataset, log, ops: scalarOps },
      codecs,
      roomBytes: this.roomBytes,
      weights: from ? from.weights.slice() : initialWeights(layout, options.seed),
      optimizer:
        from && Object.fromEntries(Object.entries(from.optimizer).map(([name, vector]) => [name, vector.slice()])),
      step: from?.state.step ?? 0,
      tokensSeen: from?.state.tokensSeen ?? 0,
      arithmetic: from?.state.arithmetic,
      valLossNats: from?.state.valLossNats,
      evaluatedBy: from?.state.evaluatedBy,
      history: new History(),
      sampler: samplerOf(options),
      ledger: this.#ledger(process, from?.state.ledger),
      openArchive: () => this.#disk.archive(process),
      openMetrics: () =>
        ({ contentType: "", observeSteps: () => {}, observePhase: () => {}, render: async () => "" }) as never,
      clock: process.clock,
      secret: Math.floor(this.random() * 2 ** 48),
      quarantine: new Quarantine(this.#disk.quarantined, (list) => {
        this.#disk.quarantined = [...list];
      }),
      stateBefore: async (step) => this.#stateBefore(step),
    };
    const run = new TrainingRun(setup);
    this.#coordinator = process;
    this.#run = run;
    this.network.listeners.set(coordinatorUrl, {
      process,
      admit: (pipe, address) => run.admit(pipe, false, address),
    });
    run.train().then(
      (result) => {
        if (process !== this.#coordinator || !process.isAlive) return;
        if (!result.finished) return;
        this.#result = result;
        this.#endedAt = this.time.now;
      },
      (error: unknown) => this.#onEnd(process, error),
    );
  }

  #stateBefore(step: number): EarlierState {
    const steps = [...this.#disk.checkpoints.keys()].filter((each) => each < step);
    const found = this.#disk.checkpoints.get(Math.max(...steps));
    const { seed } = this.plan.options;
    if (!found)
      return { weights: initialWeights(layout, seed), optimizer: undefined, step: 0, tokensSeen: 0 } as EarlierState;
    const { state, weights, optimizer } = found;
    return {
      weights: weights.slice(),
      optimizer: Object.fromEntries(Object.entries(optimizer).map(([name, vector]) => [name, vector.slice()])),
      ...{ step: state.step, tokensSeen: state.tokensSeen, valLossNats: state.valLossNats },
    };
  }

  #ledger(process: Process, position = { lines: 0, head: "" }): RunSetup["ledger"] {
    const ledger = this.#disk.ledger(process, position);
    const { onStep } = this.plan;
    if (!onStep) return ledger;
    return {
      ...ledger,
      position,
      append: async (entry) => {
        await ledger.append(entry);
        onStep(entry.step);
      },
    };
  }

  /** A run that ended with an error. */
  #onEnd(process: Process, error: unknown): void {
    if (process !== this.#coordinator || !process.isAlive) return;
    const why = messageOf(error);
    const allowed =
      (/^the run diverged/.test(why) && this.#isExcused(this.time.now)) ||
      /^the last checkpoint is not written/.test(why) ||
      (this.plan.lie !== undefined && /give different answers .* no other worker is there/.test(why));
    if (!allowed) this.#failures.push(`the run ended: ${why}`);
    else this.#restartAfter(1000);
  }

  #isExcused(at: number): boolean {
    return this.#excused.some(({ from, to }) => from <= at && at <= to);
  }

  #restartAfter(ms: number): void {
    const process = this.#coordinator;
    process.die();
    this.network.gone(process, false);
    this.network.listeners.delete(coordinatorUrl);
    this.#excused.push({ from: this.time.now, to: this.time.now + ms + this.#recoveryMs });
    this.time.after(ms, () => {
      if (this.#coordinator === process) this.#begin();
    });
  }

  #befall({ kind, forMs, worker }: Fault): void {
    const { time } = this;
    const member = this.#members[worker % this.#members.length]!;
    const { health, process } = member;
    const coordinator = this.#coordinator;
    const wire = this.network.of(process).at(-1);
    const ways = wire ? [wire.worker.out, wire.coordinator.out] : [];
    const during = (begin: () => void, end: () => void) => {
      begin();
      time.after(forMs, () => {
        if (!this.#result) end();
      });
    };
    const set = <K extends keyof Health>(key: K, value: Health[K]) => {
      const before = health[key];
      during(
        () => Object.assign(health, { [key]: value }),
        () => Object.assign(health, { [key]: before }),
      );
    };
    const mishap = (what: Mishap) => {
      const way = oneOf(this.random, ways);
      if (way) way.mishap = what;
    };
    const restart = () => member.start();
    const acts: Record<Fault["kind"], () => void> = {
      crash: () => during(() => member.crash(this.random() < 0.3), restart),
      leave: () => during(() => member.leave(), restart),
      freeze: () =>
        during(
          () => process.freeze(),
          () => process.thaw(),
        ),
      mute: () => set("mute", true),
      slow: () => set("unitMs", health.unitMs * 100),
      nan: () => set("value", Number.NaN),
      absurd: () => set("value", 3e38),
      loss: () => set("loss", 1.7e308),
      broken: () => set("broken", true),
      lose: () => mishap("lose"),
      repeat: () => mishap("repeat"),
      swap: () => mishap("swap"),
      flip: () => mishap("flip"),
      delay: () => {
        const extraMs = between(this.random, 1, this.plan.options.timeout * 2000);
        const slow = (ms: number) => {
          for (const way of ways) way.extraMs = ms;
        };
        during(
          () => slow(extraMs),
          () => slow(0),
        );
      },
      reset: () => {
        for (const end of wire ? [wire.worker, wire.coordinator] : []) end.break("read ECONNRESET");
      },
      "half-open": () => {
        for (const way of ways) way.isCut = true;
        const reachable = (is: boolean) => {
          member.isReachable = is;
        };
        during(
          () => reachable(false),
          () => reachable(true),
        );
      },
      "cut-up": () => {
        if (wire) wire.worker.out.isCut = true;
      },
      "cut-down": () => {
        if (wire) wire.coordinator.out.isCut = true;
      },
      kill: () => this.#restartAfter(forMs),
      stop: () => {
        this.#run.stop("SIGTERM");
        time.after(forMs, () => {
          if (coordinator === this.#coordinator && !this.#result) this.#restartAfter(1);
        });
      },
      "freeze-coordinator": () =>
        during(
          () => coordinator.freeze(),
          () => coordinator.thaw(),
        ),
      disk: () => {
        const full = (is: boolean) => {
          this.#disk.isFull = is;
        };
        during(
          () => full(true),
          () => full(false),
        );
      },
      storm: () => {
        const first = 100 + this.#members.length;
        const link = { latencyMs: 1, bytesPerMs: 1000 };
        const guests = Array.from({ length: worker }, (_, i) => new Member(this, first + i, 5, link));
        time.after(forMs, () => {
          for (const guest of guests) guest.crash(this.random() < 0.3);
        });
      },
      stranger: () => {
        const says = oneOf(this.random, ["by hand", "native avx2 float32", arithmetic]);
        const stranger = new Member(this, 900 + worker, 5, { latencyMs: 0.1, bytesPerMs: 1000 }, says);
        stranger.health.mute = true;
      },
    };
    acts[kind]();
  }

  async #inspect(result: RunResult): Promise<void> {
    const { options } = this.plan;
    const expected = referenceDigest(this.plan);
    this.#isRight = result.weightsDigest === expected;
    if (!this.#isRight && !this.#isBelieved)
      this.#failures.push(`the digest is ${result.weightsDigest}, expected ${expected}`);
    if (options.steps <= keptLines) this.#inspectLedger();
    const { uploads } = this.#run.dispatch.crew;
    this.#peak = uploads.peak;
    if (uploads.size > 0) this.#failures.push("a vector is still on its way in");
    if (uploads.aside > 0) this.#failures.push("a vector is still set aside");
    const isLocal = options.localSteps > 1;
    const units = isLocal ? options.replicas : options.shards;
    // And one state.
    const most =
      roomFor(units, this.#vectorLength, this.roomBytes) + (isLocal ? (3 * layout.size) / this.#vectorLength : 0);
    if (uploads.peak > most) this.#failures.push(`${uploads.peak} vectors at once, the bound is ${most}`);
    if (this.#coordinator.holding > 0) this.#failures.push("the run is over and its process would not end");
    // Goodbyes and closing handshakes take a moment; then nothing may be planned any more at the coordinator.
    await this.time.run(() => this.#coordinator.timers === 0, this.time.now + 4 * options.timeout * 1000 + 10_000);
    if (this.#coordinator.timers > 0)
      this.#failures.push(`${this.#coordinator.timers} timers are left at the coordinator`);
  }

  /** The liar was not found out, and answers of its count that nobody confirmed. */
  get #isBelieved(): boolean {
    const { plan } = this;
    if (!plan.lie) return false;
    const { quarantined, steps } = this.#disk;
    const liar = `w${plan.workers.length - 1}`;
    const isCaught = quarantined.some(({ names }) => isBy([{ names: [liar] }], names[0]!));
    return (
      !isCaught &&
      steps.some(({ parts }) =>
        parts.some((part) => part.second === undefined && isBy([{ names: [liar] }], part.worker)),
      )
    );
  }

  #inspectLedger(): void {
    const { options, faults } = this.plan;
    const lines = this.#disk.steps;
    const named = lines.flatMap(({ step, steps = 1 }) => Array.from({ length: steps }, (_, i) => step - steps + 1 + i));
    const all = Array.from({ length: options.steps }, (_, i) => i + 1).join();
    if (named.join() !== all) this.#failures.push(`the ledger has steps ${named}`);
    const times = [...this.#starts, ...lines.map(({ at }) => at)].sort((a, b) => a - b);
    for (const { step, parts, at } of lines) {
      const shards = parts.flatMap(({ shards }) => {
        const [first, last = first] = shards.split("-").map(Number) as [number, number?];
        return Array.from({ length: last! - first + 1 }, (_, i) => first + i);
      });
      if (shards.join() !== Array.from({ length: options.shards }, (_, i) => i).join())
        this.#failures.push(`step ${step} counted shards ${shards}`);
      const from = Math.max(0, ...times.filter((time) => time < at));
      const unexcused = at - from - overlapOf(this.#excused, from, at);
      // A crowd of faults within one step lets several mute ones be found out one after another.
      const bound = this.#boundMs * (1 + faults.filter((fault) => fault.at >= from && fault.at <= at).length);
      if (unexcused > bound && !this.plan.lie)
        this.#failures.push(`step ${step} took ${Math.round(unexcused)} ms, the bound is ${Math.round(bound)} ms`);
    }
  }
}

/** Milliseconds of [from, to] that lie in any of the intervals. */
function overlapOf(intervals: readonly { from: number; to: number }[], from: number, to: number): number {
  let [covered, end] = [0, from];
  for (const each of [...intervals].sort((a, b) => a.from - b.from)) {
    const [start, stop] = [Math.max(each.from, end), Math.min(each.to, to)];
    if (stop <= start) continue;
    covered += stop - start;
    end = stop;
  }
  return covered;
}

export async function live(plan: Plan): Promise<Verdict> {
  return await new World(plan).live();
}
