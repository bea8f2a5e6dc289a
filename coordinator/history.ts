// The loss curve of a run in bounded memory: when the list is full every second point goes and from then on only
// every 2nd, 4th, 8th ... step is kept, and the first, where it began. Validation points are thinned on their own.

export interface HistoryPoint {
  readonly step: number;
  readonly lossNats: number;
  readonly gradientNorm: number;
  readonly learningRate: number;
}

export interface ValPoint {
  readonly step: number;
  readonly valLossNats: number;
}

export class History {
  readonly #capacity: number;
  #stride = 1;
  #train: HistoryPoint[] = [];
  #last: HistoryPoint | undefined;
  #val: ValPoint[] = [];

  /** @param capacity most points of each curve, at least 2 */
  constructor(capacity = 2000) {
    this.#capacity = capacity;
  }

  /** Steps come in rising order; one that is not above the last (a resumed run went back) cuts the curve there. */
  addStep(point: HistoryPoint): void {
    if (this.#last && point.step <= this.#last.step) {
      this.#train = this.#train.filter((p) => p.step < point.step);
      this.#val = this.#val.filter((p) => p.step < point.step);
    }
    this.#last = point;
    if (point.step % this.#stride !== 0) return;
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

  /** Both curves, with the newest step always among them. */
  points(): { train: HistoryPoint[]; validation: ValPoint[] } {
    const newest = this.#last && this.#train.at(-1) !== this.#last ? [this.#last] : [];
    return { train: [...this.#train, ...newest], validation: [...this.#val] };
  }
}
