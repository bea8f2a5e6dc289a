// Where the time of a run goes: seconds by phase, and the speed over the last steps.
import type { Clock } from "../shared/clock.ts";
import { type Phase, phases } from "./status.ts";

/** Rounds that a mean looks back over. */
const lookBack = 50;

interface Lap {
  readonly steps: number;
  readonly seconds: number;
  readonly phases: Partial<Record<Phase, number>>;
  readonly tokensByWorker: ReadonlyMap<string, number>;
  readonly secondsByWorker: ReadonlyMap<string, number>;
}

export class Stopwatch {
  readonly #clock: Clock;
  #startedAt = 0;
  #markedAt = 0;
  #progressAt: number;
  #phases: Partial<Record<Phase, number>> = {};
  #laps: Lap[] = [];

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#progressAt = clock.now();
  }

  begin(): void {
    this.#startedAt = this.#markedAt = this.#clock.now();
    this.#phases = {};
  }

  /** All since the mark before was this phase, but for parts of it that were others. @returns its seconds */
  mark(phase: Phase, parts: Partial<Record<Phase, number>> = {}): number {
    const now = this.#clock.now();
    let rest = (now - this.#markedAt) / 1000;
    for (const [part, seconds] of Object.entries(parts) as [Phase, number][]) {
      const own = Math.min(rest, seconds);
      this.#phases[part] = (this.#phases[part] ?? 0) + own;
      rest -= own;
    }
    this.#phases[phase] = (this.#phases[phase] ?? 0) + rest;
    this.#markedAt = this.#progressAt = now;
    return rest;
  }

  /**
   * So many steps, done together, are over.
   * @param byWorker tokens that each gave, and seconds that it says it computed
   * @returns how long they took, by phase
   */
  end(byWorker: Pick<Lap, "tokensByWorker" | "secondsByWorker">, steps: number): Lap {
    const lap = { steps, seconds: (this.#clock.now() - this.#startedAt) / 1000, phases: this.#phases, ...byWorker };
    this.#laps = [...this.#laps.slice(1 - lookBack), lap];
    return lap;
  }

  /** Mean over the last steps; null before the first. */
  get stepSeconds(): number | null {
    if (this.#laps.length === 0) return null;
    return this.#laps.reduce((sum, lap) => sum + lap.seconds, 0) / this.#steps;
  }

  get #steps(): number {
    return this.#laps.reduce((sum, lap) => sum + lap.steps, 0);
  }

  /** What each worker gave the run over the last steps: together they are the run's speed. */
  get tokensPerSecond(): Map<string, number> {
    return this.#perSecond(({ tokensByWorker }) => tokensByWorker);
  }

  /** Share of the time of the last steps in which each worker computed, as it says. */
  get utilisation(): Map<string, number> {
    const shares = this.#perSecond(({ secondsByWorker }) => secondsByWorker);
    return new Map([...shares].map(([worker, share]) => [worker, Math.min(1, share)]));
  }

  #perSecond(of: (lap: Lap) => ReadonlyMap<string, number>): Map<string, number> {
    const seconds = this.#laps.reduce((sum, lap) => sum + lap.seconds, 0);
    const rates = new Map<string, number>();
    for (const lap of this.#laps)
      for (const [worker, amount] of of(lap)) rates.set(worker, (rates.get(worker) ?? 0) + amount / seconds);
    return rates;
  }

  /** Mean seconds a step of each phase over the last steps. */
  get phaseSeconds(): Record<Phase, number> {
    const mean = (phase: Phase) =>
      this.#laps.reduce((sum, lap) => sum + (lap.phases[phase] ?? 0), 0) / Math.max(1, this.#steps);
    return Object.fromEntries(phases.map((phase) => [phase, mean(phase)])) as Record<Phase, number>;
  }

  /** Since something was last done. @param answeredAt when somebody's work last counted, on the clock */
  idleSeconds(answeredAt: number): number {
    return (this.#clock.now() - Math.max(this.#progressAt, answeredAt)) / 1000;
  }
}
