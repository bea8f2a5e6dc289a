// What happened in a run, said once: in the log as it happens, and kept for those who look later (GET /events, the
// page). Bounded: the newest of each kind stay, so that a flood of one kind drowns no other.
import type { Logger } from "pino";

export const eventKinds = [
  "started",
  "joined",
  "left",
  "late",
  "refused",
  "quarantined",
  "evaluation",
  "checkpoint",
  "asked",
  "ended",
] as const;
export type EventKind = (typeof eventKinds)[number];

export interface RunEvent {
  /** Rises by one from event to event. */
  readonly number: number;
  /** ISO 8601. */
  readonly at: string;
  readonly kind: EventKind;
  /** The sentence of the log. */
  readonly text: string;
  readonly worker?: string;
  readonly step?: number;
}

/** What a log line holds beside its sentence. */
export interface EventFields {
  readonly worker?: string;
  readonly step?: number;
  readonly [field: string]: unknown;
}

export class Journal {
  readonly log: Logger;
  readonly #capacity: number;
  readonly #now: () => Date;
  readonly #events = new Map<EventKind, RunEvent[]>();
  #count = 0;

  /** @param capacity most events of one kind */
  constructor(log: Logger, { capacity = 100, now = () => new Date() }: { capacity?: number; now?: () => Date } = {}) {
    this.log = log;
    this.#capacity = capacity;
    this.#now = now;
  }

  /** Something happened as it should. */
  tell(kind: EventKind, text: string, fields: EventFields = {}): void {
    this.log.info({ event: kind, ...fields }, text);
    this.keep(kind, text, fields);
  }

  /** Something happened that somebody may have to look after. */
  warn(kind: EventKind, text: string, fields: EventFields = {}): void {
    this.log.warn({ event: kind, ...fields }, text);
    this.keep(kind, text, fields);
  }

  /** The kept events with a number above this one, oldest first. */
  after(number: number): RunEvent[] {
    return [...this.#events.values()]
      .flat()
      .filter((event) => event.number > number)
      .sort((a, b) => a.number - b.number);
  }

  /** Keep what the log says in its own words. */
  keep(kind: EventKind, text: string, { worker, step }: EventFields = {}): void {
    const events = this.#events.get(kind) ?? [];
    events.push({
      number: ++this.#count,
      at: this.#now().toISOString(),
      kind,
      text,
      ...(worker !== undefined && { worker }),
      ...(step !== undefined && { step }),
    });
    if (events.length > this.#capacity) events.shift();
    this.#events.set(kind, events);
  }
}
