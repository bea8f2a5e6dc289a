// The curves of a run in bounded memory: when the list is full every second point goes and from then on only every
// 2nd, 4th, 8th ... step is kept, and the first, where it began. Validation points are thinned on their own.
import { z } from "zod";

const number = z.number();

/** One step, as GET /history and history.json give it. */
const trainColumns = ["step", "tokens", "seconds", "lossNats", "gradientNorm", "learningRate", "tokensPerSec"] as const;
const validationColumns = ["step", "tokens", "seconds", "valLossNats"] as const;

export interface HistoryPoint {
  readonly step: number;
  /** Trained on by then. */
  readonly tokens: number;
  /** Since the run's first step, without the times in which no coordinator was there. */
  readonly seconds: number;
  readonly lossNats: number;
  readonly gradientNorm: number;
  readonly learningRate: number;
  readonly tokensPerSec: number;
}

export interface ValPoint {
  readonly step: number;
  readonly tokens: number;
  readonly seconds: number;
  readonly valLossNats: number;
}

export const sampleSchema = z.object({ step: z.int().min(0), text: z.string() });
/** What the weights of a step wrote, its prompt first. */
export type Sample = z.infer<typeof sampleSchema>;
/** Samples that are kept, the newest. */
const mostSamples = 40;

const columnsOf = <const K extends string>(names: readonly K[]) =>
  z.object(
    // Files of earlier versions have no tokens.
    Object.fromEntries(
      names.map((name) => [name, name === "tokens" ? z.array(number).default([]) : z.array(number)]),
    ) as Record<K, z.ZodArray<z.ZodNumber>>,
  );

/** Points by column: a quarter of the bytes of a list of objects. */
export const curvesSchema = z.object({
  /** Every so many steps a point; those between are gone. */
  stride: z.int().min(1),
  train: columnsOf(trainColumns),
  validation: columnsOf(validationColumns),
  samples: z.array(sampleSchema).default([]),
});
export type Curves = z.infer<typeof curvesSchema>;

export class History {
  readonly #capacity: number;
  #stride = 1;
  #train: HistoryPoint[] = [];
  #last: HistoryPoint | undefined;
  #val: ValPoint[] = [];
  #samples: Sample[] = [];

  /** @param capacity most points of each curve, at least 2 */
  constructor(capacity = 4000) {
    this.#capacity = capacity;
  }

  /** The curves of a run up to a step, which goes on from there. */
  static from({ stride, train, validation, samples }: Curves, step: number): History {
    const history = new History();
    history.#stride = stride;
    history.#train = train.step.flatMap((_, i) => (train.step[i]! <= step ? [pointOf(train, trainColumns, i)] : []));
    history.#val = validation.step.flatMap((_, i) =>
      validation.step[i]! <= step ? [pointOf(validation, validationColumns, i)] : [],
    );
    history.#samples = samples.filter((sample) => sample.step <= step);
    history.#last = history.#train.at(-1);
    return history;
  }

  /** When the newest point was made, in seconds since the run's first step. */
  get seconds(): number {
    return Math.max(this.#last?.seconds ?? 0, this.#val.at(-1)?.seconds ?? 0);
  }

  /** The run goes on from this step: what came after it is gone. */
  backTo(step: number): void {
    this.#train = this.#train.filter((p) => p.step <= step);
    this.#val = this.#val.filter((p) => p.step <= step);
    this.#samples = this.#samples.filter((p) => p.step <= step);
    this.#last = this.#train.at(-1);
  }

  /** Steps come in rising order; one that is not above the last cuts the curve there. */
  addStep(point: HistoryPoint): void {
    if (this.#last && point.step <= this.#last.step) this.backTo(point.step - 1);
    this.#last = point;
    if (point.step % this.#stride !== 0 && this.#train.length > 0) return;
    this.#train.push(point);
    while (this.#train.length > this.#capacity) {
      this.#stride *= 2;
      this.#train = this.#train.filter((p, i) => i === 0 || p.step % this.#stride === 0);
    }
  }

  addValidation(point: ValPoint): void {
    this.#val.push(point);
    if (this.#val.length > this.#capacity) this.#val = this.#val.filter((_, i) => i % 2 === 0);
  }

  addSample(sample: Sample): void {
    this.#samples = [...this.#samples, sample].slice(-mostSamples);
  }

  /** The newest, the last one last. */
  samples(most = mostSamples): readonly Sample[] {
    return this.#samples.slice(-most);
  }

  /** Both curves, the newest step always among them; with `after` only what came after that step. */
  curves(after = -1): Curves {
    const newest = this.#last && this.#train.at(-1) !== this.#last ? [this.#last] : [];
    const isAfter = (point: { step: number }): boolean => point.step > after;
    return {
      stride: this.#stride,
      train: columns([...this.#train, ...newest].filter(isAfter), trainColumns),
      validation: columns(this.#val.filter(isAfter), validationColumns),
      samples: this.#samples.filter(isAfter),
    };
  }
}

function columns<K extends string>(points: readonly Record<K, number>[], names: readonly K[]): Record<K, number[]> {
  return Object.fromEntries(names.map((name) => [name, points.map((point) => point[name])])) as Record<K, number[]>;
}

function pointOf<K extends string>(from: Record<K, number[]>, names: readonly K[], i: number): Record<K, number> {
  return Object.fromEntries(names.map((name) => [name, from[name][i] ?? 0])) as Record<K, number>;
}
