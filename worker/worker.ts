// A worker process: keeps one session with its coordinator going, comes back by itself after a lost connection, and
// keeps its engine across sessions.
import { performance } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import type { Options } from "../shared/config.ts";
import { ConfigError } from "../shared/errors.ts";
import { timesOf } from "../shared/wire/protocol.ts";
import { openEngine } from "./engine/choose.ts";
import type { Engine } from "./engine/contract.ts";
import { engineOptionsOf } from "./engine/options.ts";
import { runSession, type Welcome } from "./session.ts";

export interface WorkerSettings {
  readonly options: Options;
  /** CPU threads of this process. */
  readonly threads: number;
  readonly name: string;
  readonly token: string | undefined;
  readonly log: Logger;
  /** Aborted: finish cleanly. */
  readonly leave: AbortSignal;
}

const firstWaitMs = 250;
const longestWaitMs = 10_000;

/**
 * Work for a coordinator until its run is over or we are asked to leave.
 * @throws ConfigError when it cannot be reached for --patience seconds, or refuses us
 * @throws EngineError when the engine cannot start
 */
export async function work(settings: WorkerSettings): Promise<void> {
  const { options, name, token, log, leave } = settings;
  const engines = new EngineKeeper(settings);
  const handshakeMs = timesOf(options.timeout * 1000).handshakeMs;
  let aloneSince = performance.now();
  let waitMs = firstWaitMs;
  try {
    for (;;) {
      const ending = await runSession({
        url: options.coordinator,
        token,
        name,
        handshakeMs,
        openEngine: (welcome) => engines.for(welcome),
        onEvent: (text) => log.warn(text),
        leave,
      });
      if (ending.how !== "lost") {
        log.info(`worker ${name} ends: ${ending.reason}`);
        return;
      }
      if (ending.wasWelcome) {
        aloneSince = performance.now();
        waitMs = firstWaitMs;
      }
      const aloneSeconds = (performance.now() - aloneSince) / 1000;
      if (aloneSeconds >= options.patience)
        throw new ConfigError(
          `worker: ${options.coordinator} cannot be reached (${ending.reason}); gave up after ${Math.round(aloneSeconds)} s, see --patience`,
        );
      if (waitMs === firstWaitMs)
        log.warn(`${options.coordinator}: ${ending.reason}; trying again for ${options.patience} s`);
      // Many workers that lost one coordinator must not all come back at once.
      await sleep(waitMs * (0.5 + Math.random() / 2), undefined, { signal: leave }).catch(() => {});
      if (leave.aborted) return;
      waitMs = Math.min(2 * waitMs, longestWaitMs);
    }
  } finally {
    await engines.dispose();
  }
}

/** The engine of the last session, for as long as the run asks for the same. */
class EngineKeeper {
  readonly #settings: WorkerSettings;
  #engine: Engine | undefined;
  #madeFor = "";

  constructor(settings: WorkerSettings) {
    this.#settings = settings;
  }

  async for({ model, rowsPerShard, precision }: Welcome): Promise<Engine> {
    const { options, threads, log } = this.#settings;
    const wanted = JSON.stringify({ model, rowsPerShard, precision });
    if (this.#engine && this.#madeFor === wanted) return this.#engine;
    await this.dispose();
    const { engine, why } = await openEngine(
      options.engine,
      engineOptionsOf({ ...options, precision, threads }, model, rowsPerShard),
    );
    log.info({ arithmetic: engine.arithmetic, device: engine.device }, why);
    this.#engine = engine;
    this.#madeFor = wanted;
    return engine;
  }

  async dispose(): Promise<void> {
    await this.#engine?.dispose();
    this.#engine = undefined;
  }
}
