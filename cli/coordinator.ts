// `weft coordinator`: own a run, and let workers anywhere compute it.

import { hostname } from "node:os";
import { Command } from "commander";
import type { Logger } from "pino";
import { type RunSetup, TrainingRun } from "../coordinator/loop.ts";
import { accessWith, resolveToken, type Token, viewTokenOf } from "../coordinator/serve/access.ts";
import { type RunServer, serve } from "../coordinator/serve/server.ts";
import { certificateOf } from "../coordinator/serve/tls.ts";
import { setUpRun } from "../coordinator/setup.ts";
import type { Options } from "../shared/config.ts";
import { Interrupted } from "../shared/errors.ts";
import { type ModelConfig, summaryOf } from "../shared/model.ts";
import { defaultPreset } from "../shared/presets.ts";
import { mergeOptions } from "../shared/resolve.ts";
import { dryRun } from "./dry-run.ts";
import { announceSpeed, checkMemory } from "./estimate.ts";
import { createLog } from "./log.ts";
import { addOptions, sourcesOf } from "./options.ts";
import { onStopSignal } from "./signals.ts";

export function coordinatorCommand(): Command {
  const command = new Command("coordinator").description("own a run and let workers on any machine compute it");
  addOptions(command, ["model", "data", "training", "run", "network", "trust", "serving"]);
  return command.action(async () => {
    const sources = { ...(await sourcesOf(command)), impliedPreset: defaultPreset };
    const { log, say, close } = createLog("coordinator");
    const fits = (options: Options, model: ModelConfig) => checkMemory(options, model, 0);
    const settings = { substitute: false, fits };
    if (mergeOptions(sources).options.dryRun) return await dryRun(sources, log, settings, async () => 0);
    // From the first moment: who is asked to stop while it starts ends cleanly too, and can be started again.
    let run: TrainingRun | undefined;
    let asked: string | undefined;
    const starting = new AbortController();
    const stopped = new Promise<void>((resolve) => {
      onStopSignal((signal) => {
        if (!run && signal === "SIGINT") process.exit(130);
        asked = signal;
        starting.abort();
        run?.stop(signal);
        resolve();
      });
    });
    const setup = await setUpRun(sources, log, { ...settings, signal: starting.signal }).catch((error) => {
      if (!asked || !(error instanceof Interrupted)) throw error;
      log.info(`${asked} before the first step: ${error.message}`);
    });
    if (!setup) return close();
    const { options } = setup;
    const token = await resolveToken(options.host, options.tokenFile, process.env);
    introduce(setup, log, await fits(options, setup.model));
    run = new TrainingRun(setup);
    if (asked) run.stop(asked);
    const access = accessWith(token?.text, viewTokenOf(process.env, token));
    const server = await serve(run, run, { ...options, access, certificate: await certificateOf(options), log });
    const listening = isEverywhere(options.host) ? `${options.host}:${server.port}` : server.address;
    log.info(`listening on ${listening}: dashboard ${pageAddresses(options.host, server, token)}`);
    // Not through the log: the line may hold a token, which is shown this once.
    say(`to compute: ${workerLine(options.host, server, token)}`);
    const forget = announceSpeed(run, log);
    try {
      const result = await run.train();
      close();
      log.info(
        { ...result },
        `${result.finished ? "finished" : "stopped"} after step ${result.step}: weights ${result.weightsDigest}`,
      );
      if (result.finished && options.stay) {
        log.info(`still serving the page and checkpoints on ${pageOf(server)}; Ctrl-C ends it`);
        await stopped;
      }
    } finally {
      forget();
      close();
      await server.close();
      await setup.dataset.close();
    }
  });
}

/** What is trained, on what, and what it takes. */
export function introduce({ dataset, model, layout }: RunSetup, log: Logger, memory: string): void {
  const tokens = dataset.train.length + dataset.val.length;
  log.info(`data: ${dataset.name}, ${tokens.toLocaleString("en")} tokens`);
  log.info(`model: ${summaryOf(model)}; ${layout.size.toLocaleString("en")} parameters`);
  log.info(`memory: ${memory}`);
}

const isEverywhere = (host: string): boolean => host === "0.0.0.0" || host === "::";

/** Where the page is: on this machine, and from elsewhere if it can be seen from there. */
export function pageAddresses(host: string, server: RunServer, token: Token | undefined): string {
  const asks = token ? "; it asks for the token" : "";
  const here = pageOf(server);
  const elsewhere = `${server.tls ? "https" : "http"}://${hostname()}:${server.port}/`;
  if (isEverywhere(host)) return `${here} on this machine, ${elsewhere} from others${asks}`;
  return `${here}${asks}`;
}

/** A ready line for a worker. A token that we made is shown here once; one that the user gave is never shown. */
export function workerLine(host: string, server: RunServer, token: Token | undefined): string {
  const name = isEverywhere(host) ? hostname() : host.includes(":") ? `[${host}]` : host;
  const made = token?.source === "generated" ? `WEFT_TOKEN=${token.text} ` : token ? "WEFT_TOKEN=... " : "";
  return `${made}weft worker --coordinator ${addressOf(server, `${name}:${server.port}`)}`;
}

/** What clients need to find the port and to know it. @param at "host:7070" */
export function addressOf({ tls }: RunServer, at: string): string {
  if (!tls) return `ws://${at}`;
  return `wss://${at}${tls.fingerprint === undefined ? "" : `#${tls.fingerprint}`}`;
}

function pageOf({ tls, address }: RunServer): string {
  return `${tls ? "https" : "http"}://${address}/`;
}
