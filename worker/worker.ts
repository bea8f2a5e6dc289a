// A worker process: keeps one session with its coordinator going, comes back by itself after a lost connection, and
// keeps its engine across sessions.
import type { Logger } from "pino";
import { type Clock, sleep, systemClock } from "../shared/clock.ts";
import type { Options } from "../shared/config.ts";
import { ConfigError, Interrupted } from "../shared/errors.ts";
import type { Pipe } from "../shared/wire/pipe.ts";
import { timesOf, type Welcome } from "../shared/wire/protocol.ts";
import { type Dial, dial, UnreachableError } from "../shared/wire/web-socket.ts";
import { type Computer, type Computers, computerOf } from "./computer.ts";
import { openEngine } from "./engine/choose.ts";
import type { Engine } from "./engine/contract.ts";
import { engineOptionsOf } from "./engine/options.ts";
import { type Ending, runSession, type WorkerData } from "./session.ts";

export interface WorkerSettings {
  readonly options: Options;
  /** CPU threads of this process. */
  readonly threads: number;
  readonly name: string;
  readonly token: string | undefined;
  readonly log: Logger;
  /** Where windows are drawn from instead of being sent. */
  readonly data?: WorkerData | undefined;
  /** Aborted: finish cleanly. */
  readonly leave: AbortSignal;
}

/** What a worker lives in: time, the way to its coordinator, engines, chance. */
export interface World {
  readonly clock: Clock;
  /** @throws ConfigError when it is refused for good; UnreachableError when it is worth trying again */
  readonly connect: (dial: Dial) => Promise<Pipe>;
  readonly openEngine: typeof openEngine;
  /** In [0, 1): so that many workers that lost one coordinator do not all come back at once. */
  readonly random: () => number;
}

export const thisWorld: World = { clock: systemClock, connect: dial, openEngine, random: Math.random };

const firstWaitMs = 250;
const longestWaitMs = 10_000;
/** How often a worker that went on elsewhere looks whether who is before it in its list is back. */
const returnEveryMs = 30_000;
const knockMs = 1000;

/**
 * Work for a coordinator until its run is over or we are asked to leave. Where several are named, they are tried in
 * their order, one more with every pass, and the first that takes us in is worked for until it is lost.
 * @param computers who computes; left out: an engine of this process
 * @returns how it ended
 * @throws ConfigError when none can be reached for --patience seconds, or one refuses us
 * @throws EngineError when the engine cannot start
 */
export async function work(settings: WorkerSettings, world = thisWorld, computers?: Computers): Promise<Ending> {
  const { options, threads, name, token, log, data, leave } = settings;
  const { clock } = world;
  const engines = new EngineKeeper(settings, world);
  const urls = options.coordinator;
  const handshakeMs = timesOf(options.timeout * 1000).handshakeMs;
  /** Of a relay: who has its work from here. Not so for ever: who lost its coordinator may have found another. */
  const below = new Set<string>();
  let aloneSince = clock.now();
  let waitMs = firstWaitMs;
  /** @param better where we would rather be: once somebody works there again, this session is left for it */
  const sessionAt = async (url: string, better: readonly string[]): Promise<Ending> => {
    const [over, elsewhere] = [new AbortController(), new AbortController()];
    const leaveIt = () => elsewhere.abort();
    leave.addEventListener("abort", leaveIt);
    if (leave.aborted) leaveIt();
    try {
      const pipe = await world.connect({ url, token, timeoutMs: handshakeMs });
      const open: Computers["for"] = (...asked) => (computers ?? engines).for(...asked);
      const onEvent = (text: string) => log.warn(text);
      if (better.length > 0) void whenBack(better, over.signal).then((is) => is && elsewhere.abort());
      const own = { pipe, clock, url, name, threads, handshakeMs, open, onEvent, data, leave: elsewhere.signal };
      const ending = await runSession(own);
      const isReturn = ending.how === "left" && !leave.aborted;
      if (ending.isBelow) below.add(url);
      else if (ending.how === "lost" && ending.wasWelcome) below.clear();
      return isReturn ? { ...ending, how: "lost", reason: `${better.join(", ")} may be back` } : ending;
    } catch (error) {
      if (!(error instanceof UnreachableError)) throw error;
      return { how: "lost", reason: error.message, wasWelcome: false };
    } finally {
      over.abort();
      leave.removeEventListener("abort", leaveIt);
    }
  };
  /** Resolves to true once one of these takes workers in, as far as can be told from outside; false when it is over. */
  const whenBack = async (better: readonly string[], over: AbortSignal): Promise<boolean> => {
    for (;;) {
      await sleep(clock, returnEveryMs, over);
      for (const url of better) {
        if (over.aborted) return false;
        if (below.has(url)) continue;
        const pipe = await world.connect({ url, token, timeoutMs: handshakeMs }).catch(() => undefined);
        if (pipe && (await staysOpen(pipe, clock))) return true;
      }
    }
  };
  /** With one of the first so many. */
  const session = async (most: number): Promise<Ending> => {
    const [url, ...others] = urls.slice(0, most) as [string, ...string[]];
    let ending = await sessionAt(url, []);
    for (const [i, other] of others.entries())
      if (ending.how === "lost" && !ending.wasWelcome && !leave.aborted)
        ending = await sessionAt(other, urls.slice(0, i + 1));
    return ending;
  };
  try {
    for (let passes = 1; !leave.aborted; passes++) {
      const ending = await session(passes);
      if (ending.how !== "lost") {
        log.info(`worker ${name} ends: ${ending.reason}`);
        return ending;
      }
      if (ending.wasWelcome) {
        aloneSince = clock.now();
        waitMs = firstWaitMs;
        passes = 0;
      }
      const who = urls.join(", ");
      const why = ending.reason.replace(`${who}: `, "");
      const aloneSeconds = (clock.now() - aloneSince) / 1000;
      if (aloneSeconds >= options.patience)
        throw new ConfigError(
          `worker: ${who} cannot be reached (${why}); gave up after ${Math.round(aloneSeconds)} s, see --patience`,
          { cause: new Interrupted(ending.reason) },
        );
      if (waitMs === firstWaitMs) log.warn(`${who}: ${why}; trying again for ${options.patience} s`);
      await sleep(clock, waitMs * (0.5 + world.random() / 2), leave);
      waitMs = Math.min(2 * waitMs, longestWaitMs);
    }
    return { how: "left", reason: "asked to stop", wasWelcome: false };
  } finally {
    await engines.dispose();
  }
}

/** A relay without a coordinator of its own closes at once. */
async function staysOpen(pipe: Pipe, clock: Clock): Promise<boolean> {
  let isOpen = true;
  pipe.listen({
    message: () => {},
    ping: () => {},
    pong: () => {},
    closed: () => {
      isOpen = false;
    },
  });
  await sleep(clock, knockMs);
  pipe.close(1000, "");
  return isOpen;
}

/** The engine of the last session, for as long as the run asks for the same. */
class EngineKeeper implements Computers {
  readonly #settings: WorkerSettings;
  readonly #world: World;
  #engine: Engine | undefined;
  #madeFor = "";

  constructor(settings: WorkerSettings, world: World) {
    this.#settings = settings;
    this.#world = world;
  }

  async for({ model, rowsPerShard, precision, localSteps, shards: mostShards }: Welcome): Promise<Computer> {
    const { options, threads, log } = this.#settings;
    const trainsLocally = localSteps > 1;
    const wanted = JSON.stringify({ model, rowsPerShard, precision, trainsLocally, mostShards });
    if (this.#engine && this.#madeFor === wanted) return computerOf(this.#engine);
    await this.dispose();
    const asked = engineOptionsOf({ ...options, precision, threads }, model, rowsPerShard, (line) => log.info(line));
    const { engine, why } = await this.#world.openEngine(options.engine, { ...asked, trainsLocally, mostShards });
    log.info({ arithmetic: engine.arithmetic, device: engine.device }, why);
    this.#engine = engine;
    this.#madeFor = wanted;
    return computerOf(engine);
  }

  async dispose(): Promise<void> {
    await this.#engine?.dispose();
    this.#engine = undefined;
  }
}
