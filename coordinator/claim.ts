// One run at a time at an address of a store. A store has no locks, so owner.json there says whose the address is, and is
// written anew while that run lives. Whoever finds one that is fresh, by the store's own clock, waits: either it is
// written again, or it grows old and the address is free. Of two that begin in the same moment the later one has it, and
// the other hears of it within half a minute.
import { hostname } from "node:os";
import { resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { ConfigError, Interrupted } from "../shared/errors.ts";
import type { ObjectStore } from "../shared/store/s3.ts";

const ownerName = "owner.json";
/** Of each process its own: several may look at once. */
const probeName = `.now-${hostname()}-${process.pid}`;
const beatMs = 30_000;
/** An owner that is silent for so long is gone. */
const silenceMs = 4 * beatMs;

const ownerSchema = z.object({ host: z.string(), directory: z.string(), process: z.int() });
type Owner = z.infer<typeof ownerSchema>;

export interface Waiting {
  /** Told what is waited for. */
  readonly say: (line: string) => void;
  /** Ends the wait. */
  readonly signal?: AbortSignal | undefined;
  /** Between two signs of life, which end with the process, and between two looks, which keep it alive. */
  readonly pause?: (signal: AbortSignal, isLooking?: boolean) => Promise<unknown>;
}

const pauseFor = (signal: AbortSignal, isLooking = false): Promise<unknown> =>
  sleep(beatMs, undefined, { signal, ref: isLooking });

export class Claim {
  readonly #store: ObjectStore;
  readonly #owner: Owner;
  readonly #released = new AbortController();
  #lostTo: Owner | undefined;

  private constructor(store: ObjectStore, owner: Owner) {
    this.#store = store;
    this.#owner = owner;
  }

  /**
   * Where another run has it that may be gone, as after a machine was lost, this waits until that is known.
   * @param directory of the run: the same one on the same host may go on at once, whatever became of the process before
   * @throws ConfigError that names the run which has the address; Interrupted where the store is away, or it was stopped
   */
  static async take(store: ObjectStore, directory: string, { say, signal, pause = pauseFor }: Waiting): Promise<Claim> {
    const claim = new Claim(store, { host: hostname(), directory: resolve(directory), process: process.pid });
    let lastSign: number | undefined;
    for (;;) {
      const [found] = await store.list(ownerName);
      const other = found && (await claim.#other());
      if (!other) break;
      const silentMs = (await now(store)) - found.modified;
      if (silentMs >= silenceMs) break;
      if (found.modified > (lastSign ?? Number.POSITIVE_INFINITY))
        throw new ConfigError(
          `${store.url} belongs to ${nameOf(other)}, which lives; stop that run, or choose another address with --checkpoint-to`,
        );
      if (lastSign === undefined)
        say(
          `${store.url} belongs to ${nameOf(other)}, heard of ${Math.max(0, Math.round(silentMs / 1000))} s ago; it is ` +
            `taken over when it was silent for ${silenceMs / 1000} s`,
        );
      lastSign = found.modified;
      await pause(signal ?? claim.#released.signal, true).catch(() => {});
      if (signal?.aborted) throw new Interrupted(`${store.url}: stopped while it waited for its address`);
    }
    await claim.#write();
    void claim.#keep(pause);
    return claim;
  }

  /** @throws ConfigError where another run has taken the address since */
  check(): void {
    if (this.#lostTo) throw new ConfigError(`${this.#store.url} was taken over by ${nameOf(this.#lostTo)}`);
  }

  async release(): Promise<void> {
    this.#released.abort();
    if (!this.#lostTo && !(await this.#other())) await this.#store.remove(ownerName);
  }

  async #keep(pause: (signal: AbortSignal) => Promise<unknown>): Promise<void> {
    const { signal } = this.#released;
    for (;;) {
      await pause(signal).catch(() => {});
      if (signal.aborted) return;
      try {
        this.#lostTo = await this.#other();
        if (this.#lostTo) return;
        await this.#write();
      } catch (error) {
        // A store that is away is said by what sends the checkpoints.
        if (!(error instanceof ConfigError || error instanceof Interrupted)) throw error;
      }
    }
  }

  /** Whose the address is, where it is not ours. */
  async #other(): Promise<Owner | undefined> {
    if ((await this.#store.list(ownerName)).length === 0) return undefined;
    const text = (await this.#store.readAll(ownerName)).toString("utf8");
    const unknown: Owner = { host: "an unknown host", directory: "an unknown folder", process: 0 };
    let owner = unknown;
    try {
      owner = ownerSchema.parse(JSON.parse(text));
    } catch {
      // Damaged, or of a later version: somebody's all the same.
    }
    return owner.host === this.#owner.host && owner.directory === this.#owner.directory ? undefined : owner;
  }

  #write(): Promise<void> {
    return this.#store.put(ownerName, Buffer.from(`${JSON.stringify(this.#owner)}\n`));
  }
}

const nameOf = ({ directory, host, process }: Owner): string =>
  `the run in ${directory} on ${host} (process ${process})`;

/** The store's time. */
async function now(store: ObjectStore): Promise<number> {
  await store.put(probeName, Buffer.from("now\n"));
  const [probe] = await store.list(probeName);
  await store.remove(probeName);
  return probe?.modified ?? Date.now();
}
