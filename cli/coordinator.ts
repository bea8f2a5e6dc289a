// `weft coordinator`: own a run, and let workers anywhere compute it.

import { hostname } from "node:os";
import { Command } from "commander";
import { TrainingRun } from "../coordinator/loop.ts";
import { accessWith, resolveToken, type Token } from "../coordinator/serve/access.ts";
import { serve } from "../coordinator/serve/server.ts";
import { setUpRun } from "../coordinator/setup.ts";
import { createLog } from "./log.ts";
import { addOptions, optionsOf } from "./options.ts";
import { onStopSignal } from "./signals.ts";

export function coordinatorCommand(): Command {
  const command = new Command("coordinator").description("own a run and let workers on any machine compute it");
  addOptions(command, ["model", "data", "training", "run", "network", "serving"]);
  return command.action(async () => {
    const options = await optionsOf(command);
    const { log, close } = createLog("coordinator", options.steps);
    const token = await resolveToken(options.host, options.tokenFile, process.env);
    const setup = await setUpRun(options, log, false);
    const run = new TrainingRun(setup);
    const server = await serve(run, { ...options, access: accessWith(token?.text), log });
    log.info(`listening on ${server.address}: dashboard http://${server.address}/`);
    // Not through the log: the line may hold a token, which is shown this once.
    process.stderr.write(`to compute: ${workerLine(options.host, server.port, token)}\n`);
    const stopped = new Promise<void>((resolve) => {
      onStopSignal((signal) => {
        run.stop(signal);
        resolve();
      });
    });
    try {
      const result = await run.train();
      close();
      log.info(
        { ...result },
        `${result.finished ? "finished" : "stopped"} after step ${result.step}: weights ${result.weightsDigest}`,
      );
      if (result.finished && options.stay) {
        log.info(`still serving status and checkpoints on http://${server.address}; interrupt to end`);
        await stopped;
      }
    } finally {
      close();
      await server.close();
      await setup.dataset.close();
    }
  });
}

/** A ready line for a worker. A token that we made is shown here once; one that the user gave is never shown. */
export function workerLine(host: string, port: number, token: Token | undefined): string {
  const everywhere = host === "0.0.0.0" || host === "::";
  const name = everywhere ? hostname() : host.includes(":") ? `[${host}]` : host;
  const made = token?.source === "generated" ? `WEFT_TOKEN=${token.text} ` : token ? "WEFT_TOKEN=... " : "";
  return `${made}weft worker --coordinator ws://${name}:${port}`;
}
