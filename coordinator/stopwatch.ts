// Where the time of a run goes: seconds by phase, and the speed over the last steps.
import { performance } from "node:perf_hooks";
import { type Phase, phases } from "./status.ts";

/** Steps that a mean looks back over. */
const lookBack = 50;

interface Lap {
  readonly seconds: number;
  readonly phases: Partial<Record<Phase, number>>;
  readonly unitsByWorker: ReadonlyMap<string, number>;
}

export class Stopwatch {
  #startedAt = 0;
  #progressAt = performance.now();
  #phases: Partial<Record<Phase, number>> = {};
  #laps: Lap[] = [];

  begin(): void {
    this.#startedAt = performance.now();
    this.#phases = {};
  }

  note(phase: Phase, seconds: number): void {
    this.#phases[phase] = (this.#phases[phase] ?? 0) + seconds;
    this.#progressAt = performance.now();
  }

  time<T>(phase: Phase, act: () => T): T {
    const started = performance.now();
    const result = act();
    this.note(phase, (performance.now() - started) / 1000);
    return result;
  }

  async timeAsync<T>(phase: Phase, act: () => Promise<T>): Promise<T> {
    const started = performance.now();
    const result = await act();
    this.note(phase, (performance.now() - started) / 1000);
    return result;
  }

  /** The step is over. @returns how long it took, by phase */
  end(unitsByWorker: ReadonlyMap<string, number>): Lap {
    const lap = { seconds: (performance.now() - this.#startedAt) / 1000, phases: this.#phases, unitsByWorker };
    this.#laps = [...this.#laps.slice(1 - lookBack), lap];
    return lap;
  }

  /** Mean over the last steps; null before the first. */
  get stepSeconds(): number | null {
    if (this.#laps.length === 0) return null;
    return this.#laps.reduce((sum, lap) => sum + lap.seconds, 0) / this.#laps.length;
  }

  /** Units a second that each worker gave the run over the last steps: together they are the run's speed. */
  get unitsPerSecond(): Map<string, number> {
    const seconds = this.#laps.reduce((sum, lap) => sum + lap.seconds, 0);
    const speeds = new Map<string, number>();
    for (const { unitsByWorker } of this.#laps)
      for (const [worker, units] of unitsByWorker) speeds.set(worker, (speeds.get(worker) ?? 0) + units / seconds);
    return speeds;
  }

  /** Mean seconds a step of each phase over the last steps. */
  get phaseSeconds(): Record<Phase, number> {
    const mean = (phase: Phase) =>
      this.#laps.reduce((sum, lap) => sum + (lap.phases[phase] ?? 0), 0) / Math.max(1, this.#laps.length);
    return Object.fromEntries(phases.map((phase) => [phase, mean(phase)])) as Record<Phase, number>;
  }

  /** Since something was last done. */
  get idleSeconds(): number {
    return (performance.now() - this.#progressAt) / 1000;
  }
}
