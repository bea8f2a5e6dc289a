// `weft worker`: compute for a coordinator.
import { hostname } from "node:os";
import { Command } from "commander";
import { resolveToken } from "../coordinator/access.ts";
import { threadsEach } from "../shared/config.ts";
import { work } from "../worker/worker.ts";
import { createLog } from "./log.ts";
import { addOptions, optionsOf } from "./options.ts";
import { onStopSignal } from "./signals.ts";

export function workerCommand(): Command {
  const command = new Command("worker").description("compute for a coordinator; comes back by itself when it is lost");
  addOptions(command, ["worker", "engine"]);
  command.option("--token-file <FILE>", "file with the run's token (default: the variable WEFT_TOKEN)");
  return command.action(async () => {
    const options = await optionsOf(command);
    const leave = new AbortController();
    onStopSignal(() => leave.abort());
    const { log } = createLog("worker");
    await work({
      options,
      threads: options.threads || threadsEach(1),
      name: options.name || `${hostname()}-${process.pid}`,
      token: (await resolveToken("localhost", options.tokenFile, process.env))?.text,
      log,
      leave: leave.signal,
    });
  });
}
