// The run for Prometheus. Almost everything is read from the run's status when it is scraped, so that /metrics and
// /status cannot disagree; only distributions, which a status does not hold, are observed as they happen.
// Names follow https://prometheus.io/docs/practices/naming/ : weft_, base units, _total on counters.
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import type { Phase, RunStatus, WorkerStatus } from "./status.ts";
import { phases } from "./status.ts";

/** Series of at most this many workers carry their name; a scrape stays small however many come and go. */
const namedWorkers = 64;

/** From a tiny model's millisecond to a large model's ten minutes. */
const secondsBuckets = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 600];

/** prom-client's defaults whose `_total` names are not counters: promtool refuses them, and their sums add nothing. */
const misnamed = ["nodejs_active_handles_total", "nodejs_active_requests_total", "nodejs_active_resources_total"];

/** What a run needs of it. */
export type RunMetrics = Pick<Metrics, "contentType" | "observeSteps" | "observePhase" | "render">;

export class Metrics {
  readonly contentType = Registry.PROMETHEUS_CONTENT_TYPE;
  readonly #registry = new Registry();
  readonly #phaseSeconds: Histogram<"phase">;
  readonly #stepSeconds: Histogram;
  readonly #readers: Array<(status: RunStatus) => void> = [];
  readonly #status: () => RunStatus;

  constructor(status: () => RunStatus) {
    this.#status = status;
    const registers = [this.#registry];
    collectDefaultMetrics({ register: this.#registry });
    for (const name of misnamed) this.#registry.removeSingleMetric(name);

    this.#stepSeconds = new Histogram({
      name: "weft_step_duration_seconds",
      help: "Wall time of a step, from its first lease to its weights being applied.",
      buckets: secondsBuckets,
      registers,
    });
    this.#phaseSeconds = new Histogram({
      name: "weft_step_phase_duration_seconds",
      help: "Wall time of each phase of a step.",
      labelNames: ["phase"],
      buckets: secondsBuckets,
      registers,
    });
    for (const phase of phases) this.#phaseSeconds.zero({ phase });
    this.#declareRun();
    this.#declareWorkers();
  }

  /** @param seconds wall time of a round of so many steps, and of those phases of it that happened */
  observeSteps(seconds: number, byPhase: Partial<Record<Phase, number>>, steps: number): void {
    for (let step = 0; step < steps; step++) {
      this.#stepSeconds.observe(seconds / steps);
      for (const phase of phases) {
        const value = byPhase[phase];
        if (value !== undefined) this.#phaseSeconds.observe({ phase }, value / steps);
      }
    }
  }

  /** Seconds of a phase that belongs to no step, such as the last evaluation. */
  observePhase(phase: Phase, seconds: number): void {
    this.#phaseSeconds.observe({ phase }, seconds);
  }

  /** The text of one scrape. */
  async render(): Promise<string> {
    const status = this.#status();
    for (const read of this.#readers) read(status);
    return await this.#registry.metrics();
  }

  /** A series that exists only while its value does: a loss of nothing is no number. */
  #gauge(name: string, help: string, read: (status: RunStatus) => number | null): void {
    const gauge = new Gauge({ name, help, registers: [this.#registry] });
    this.#readers.push((status) => {
      const value = read(status);
      if (value === null) gauge.remove();
      else gauge.set(value);
    });
  }

  /** A total that the run itself keeps: set, not added to, at each scrape. */
  #total(name: string, help: string, read: (status: RunStatus) => number): void {
    const counter = new Counter({ name, help, registers: [this.#registry] });
    this.#readers.push((status) => {
      counter.reset();
      counter.inc(read(status));
    });
  }

  #declareRun(): void {
    const info = new Gauge({
      name: "weft_run_info",
      help: "Always 1; the labels say which run this is.",
      labelNames: ["run", "model", "version"],
      registers: [this.#registry],
    });
    this.#readers.push(({ run, model, versions }) => {
      info.reset();
      info.set({ run: run.name, model: model.summary, version: versions.weft }, 1);
    });
    this.#gauge("weft_model_parameters", "Parameters of the model.", (s) => s.model.parameters);
    this.#gauge("weft_loss_nats", "Training loss of the last step.", (s) => s.lossNats);
    this.#gauge("weft_validation_loss_nats", "Loss of the last evaluation.", (s) => s.valLossNats);
    this.#gauge("weft_best_validation_loss_nats", "Lowest loss of any evaluation.", (s) => s.bestValLossNats);
    this.#gauge("weft_gradient_norm", "Global norm of the last gradient, before clipping.", (s) => s.gradientNorm);
    this.#gauge("weft_learning_rate", "Learning rate of the last step.", (s) => s.learningRate);
    this.#gauge("weft_tokens_per_second", "Training tokens per second over the last steps.", (s) => s.tokensPerSec);
    this.#gauge("weft_eta_seconds", "Expected time to the last step.", (s) => s.etaSeconds);
    this.#gauge("weft_planned_steps", "Steps that the run will do in all.", (s) => s.steps);
    this.#gauge("weft_idle_seconds", "Since the loop last got something done.", (s) => s.idleSeconds);
    this.#gauge("weft_stall_after_seconds", "Idle time from which the run is stalled.", (s) => s.stallAfterSeconds);
    this.#gauge("weft_waiting", "1 while the loop waits for a reason that /status names.", (s) =>
      s.waitingFor === null ? 0 : 1,
    );
    this.#gauge("weft_finished", "1 once every planned step is done.", (s) => (s.state === "finished" ? 1 : 0));
    this.#gauge("weft_checkpoints", "Whole checkpoints on disk.", (s) => s.checkpoints.length);
    this.#gauge("weft_checkpoint_age_seconds", "Age of the newest checkpoint.", (s) =>
      s.checkpoints.length === 0 ? null : Math.min(...s.checkpoints.map((c) => c.ageSeconds)),
    );
    this.#gauge("weft_checkpoint_step", "Step of the newest checkpoint.", (s) =>
      s.checkpoints.length === 0 ? null : Math.max(...s.checkpoints.map((c) => c.step)),
    );
    this.#gauge("weft_checkpoint_bytes", "Size of the newest checkpoint.", (s) => s.checkpoints[0]?.bytes ?? null);
    this.#gauge("weft_checkpoint_failing", "1 while the disk refuses the newest checkpoint.", (s) =>
      s.checkpointTrouble === null ? 0 : 1,
    );
    this.#gauge("weft_disk_free_bytes", "Free on the disk of the run's folder.", (s) => s.diskFreeBytes);
    this.#total("weft_steps_total", "Steps done.", (s) => s.step);
    this.#total("weft_tokens_total", "Training tokens done.", (s) => s.tokens);
    this.#total("weft_leases_counted_total", "Leases whose answer entered the sum.", (s) => s.leases.counted);
    this.#total("weft_leases_hedged_total", "Leases given to a second worker.", (s) => s.leases.hedged);
    this.#total("weft_leases_lost_total", "Leases whose worker went away or was late.", (s) => s.leases.lost);
    this.#total("weft_leases_refused_total", "Answers that were refused.", (s) => s.leases.refused);
    this.#total("weft_leases_confirmed_total", "Answers that two workers gave alike.", (s) => s.leases.confirmed);
    this.#total("weft_received_bytes_total", "Bytes received from workers.", (s) => s.bytesIn);
    this.#total("weft_sent_bytes_total", "Bytes sent to workers.", (s) => s.bytesOut);
  }

  #declareWorkers(): void {
    const inState = (s: RunStatus, state: string) => s.workers.filter((w) => w.state === state).length;
    this.#gauge("weft_workers_connected", "Workers with an open connection.", (s) => s.workers.length);
    this.#gauge("weft_workers_contributing", "Workers that compute.", (s) => inState(s, "contributing"));
    this.#gauge(
      "weft_workers_on_probation",
      "Workers that compute only what others compute too.",
      (s) => s.workers.filter(({ probation }) => probation !== null).length,
    );
    this.#gauge("weft_workers_quarantined", "Workers that are not let in.", (s) => s.quarantined.length);

    const registers = [this.#registry];
    const bytes = new Counter({
      name: "weft_worker_bytes_total",
      help: "Bytes of one worker's connection; in is what the coordinator received.",
      labelNames: ["worker", "direction"],
      registers,
    });
    const shards = new Counter({
      name: "weft_worker_shards_total",
      help: "Shards of one worker whose gradient entered the sum.",
      labelNames: ["worker"],
      registers,
    });
    const speed = new Gauge({
      name: "weft_worker_tokens_per_second",
      help: "Training tokens per second of one worker over its last leases.",
      labelNames: ["worker"],
      registers,
    });
    const utilisation = new Gauge({
      name: "weft_worker_utilisation_ratio",
      help: "Share of the time of the last steps in which one worker computed.",
      labelNames: ["worker"],
      registers,
    });
    const roundTrip = new Gauge({
      name: "weft_worker_round_trip_seconds",
      help: "Round trip of one worker's last heartbeat.",
      labelNames: ["worker"],
      registers,
    });
    this.#readers.push(({ workers }) => {
      for (const metric of [bytes, shards, speed, utilisation, roundTrip]) metric.reset();
      for (const w of oldest(workers)) {
        bytes.inc({ worker: w.id, direction: "in" }, w.bytesIn);
        bytes.inc({ worker: w.id, direction: "out" }, w.bytesOut);
        shards.inc({ worker: w.id }, w.shardsDone);
        if (w.tokensPerSec !== null) speed.set({ worker: w.id }, w.tokensPerSec);
        if (w.utilisation !== null) utilisation.set({ worker: w.id }, w.utilisation);
        if (w.roundTripMs !== null) roundTrip.set({ worker: w.id }, w.roundTripMs / 1000);
      }
    });
  }
}

/** Those that have been here longest keep their series. */
function oldest(workers: readonly WorkerStatus[]): readonly WorkerStatus[] {
  if (workers.length <= namedWorkers) return workers;
  return [...workers].sort((a, b) => b.connectedSeconds - a.connectedSeconds).slice(0, namedWorkers);
}
