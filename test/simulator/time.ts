// Virtual time: what will happen, in order. It moves only when nothing more happens now.
import type { Clock, Timer } from "../../shared/clock.ts";

interface Event {
  readonly at: number;
  /** Events of one moment happen in the order in which they were planned. */
  readonly order: number;
  act: (() => void) | undefined;
}

export class Time {
  #now = 0;
  #order = 0;
  readonly #heap: Event[] = [];
  #planned = 0;

  get now(): number {
    return this.#now;
  }

  /** Events that will still happen. */
  get planned(): number {
    return this.#planned;
  }

  after(ms: number, act: () => void): Timer {
    const event: Event = { at: this.#now + Math.max(0, ms), order: this.#order++, act };
    this.#planned++;
    this.#push(event);
    return {
      cancel: () => {
        if (event.act) this.#planned--;
        event.act = undefined;
      },
    };
  }

  /** Let everything happen until `done`, or until this moment. @returns whether it was done */
  async run(done: () => boolean, until: number): Promise<boolean> {
    await settled();
    while (!done()) {
      const event = this.#pop();
      if (!event || event.at > until) return false;
      if (!event.act) continue;
      this.#now = event.at;
      this.#planned--;
      const { act } = event;
      event.act = undefined;
      act();
      await settled();
    }
    return true;
  }

  #push(event: Event): void {
    const heap = this.#heap;
    let i = heap.push(event) - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!isBefore(event, heap[parent]!)) break;
      heap[i] = heap[parent]!;
      i = parent;
    }
    heap[i] = event;
  }

  #pop(): Event | undefined {
    const heap = this.#heap;
    const top = heap[0];
    const last = heap.pop();
    if (!top || !last || heap.length === 0) return top;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++;
      if (!isBefore(heap[child]!, last)) break;
      heap[i] = heap[child]!;
      i = child;
    }
    heap[i] = last;
    return top;
  }
}

const isBefore = (a: Event, b: Event): boolean => a.at < b.at || (a.at === b.at && a.order < b.order);

/** Every promise that can go on has gone on. */
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** A process: it can be frozen, and what comes to it then waits; it can die, and nothing of it happens any more. */
export class Process {
  readonly clock: Clock;
  readonly #time: Time;
  /** Timers that will still act, and whether each is one in the background. */
  readonly #timers = new Map<Timer, boolean>();
  #waiting: (() => void)[] | undefined;
  #isAlive = true;

  constructor(time: Time) {
    this.#time = time;
    this.clock = {
      now: () => time.now,
      after: (ms, act, background = false) => this.#timer((run) => time.after(ms, run), act, background),
      every: (ms, act) => {
        let timer: Timer;
        const again = () => {
          const next = () => {
            again();
            act();
          };
          timer = this.clock.after(ms, next, true);
        };
        again();
        return { cancel: () => timer.cancel() };
      },
    };
  }

  get isAlive(): boolean {
    return this.#isAlive;
  }

  get isFrozen(): boolean {
    return this.#waiting !== undefined;
  }

  /** Timers that will still act. */
  get timers(): number {
    return this.#timers.size;
  }

  /** Those of them that keep the process from ending. */
  get holding(): number {
    return [...this.#timers.values()].filter((background) => !background).length;
  }

  /** Something comes to the process from outside. */
  deliver(act: () => void): void {
    if (!this.#isAlive) return;
    if (this.#waiting) this.#waiting.push(act);
    else act();
  }

  freeze(): void {
    if (this.#isAlive) this.#waiting ??= [];
  }

  thaw(): void {
    const waiting = this.#waiting ?? [];
    this.#waiting = undefined;
    for (const act of waiting) this.#time.after(0, () => this.deliver(act));
  }

  die(): void {
    this.#isAlive = false;
    this.#waiting = undefined;
    for (const timer of this.#timers.keys()) timer.cancel();
    this.#timers.clear();
  }

  #timer(plan: (run: () => void) => Timer, act: () => void, background: boolean): Timer {
    if (!this.#isAlive) return { cancel: () => {} };
    const planned = plan(() => {
      this.#timers.delete(timer);
      this.deliver(() => {
        if (!cancelled) act();
      });
    });
    let cancelled = false;
    const timer: Timer = {
      cancel: () => {
        cancelled = true;
        planned.cancel();
        this.#timers.delete(timer);
      },
    };
    this.#timers.set(timer, background);
    return timer;
  }
}
