// `weft relay`: compute for a coordinator with workers of its own.
import { hostname } from "node:os";
import { Command } from "commander";
import { accessWith, resolveToken } from "../coordinator/serve/access.ts";
import { serve } from "../coordinator/serve/server.ts";
import { certificateOf } from "../coordinator/serve/tls.ts";
import { Relay } from "../relay/relay.ts";
import { systemClock } from "../shared/clock.ts";
import { threadsEach } from "../shared/config.ts";
import { work } from "../worker/worker.ts";
import { workerLine } from "./coordinator.ts";
import { createLog } from "./log.ts";
import { addOptions, type Own, optionsOf } from "./options.ts";
import { onStopSignal } from "./signals.ts";

const own = {
  coordinator: {},
  name: {},
  patience: {},
  anyArithmetic: {},
  timeout: { help: "longest wait for a coordinator that is called; what workers are given is the run's" },
  threads: { help: "threads for sums and for the wire" },
  out: { default: "runs/relay", help: "folder of the certificate of --tls self-signed" },
} satisfies Own;

export function relayCommand(): Command {
  const command = new Command("relay").description(
    "compute for a coordinator with workers of its own: deals on what it gets, adds up what they give",
  );
  addOptions(command, ["network"], own);
  return command.action(async () => {
    const options = await optionsOf(command, own);
    const leave = new AbortController();
    onStopSignal(() => leave.abort());
    const { log, say, close } = createLog("relay");
    const threads = options.threads || threadsEach(1);
    const token = await resolveToken(options.host, options.tokenFile, process.env);
    const certificate = await certificateOf(options);
    const relay = new Relay({ options, clock: systemClock, threads, log });
    const server = await serve(relay, relay, { ...options, access: accessWith(token?.text), certificate, log });
    log.info(`listening on ${server.address}: relay for ${options.coordinator.join(", ")}`);
    // Not through the log: the line may hold a token, which is shown this once.
    say(`to compute: ${workerLine(options.host, server, token)}`);
    try {
      const name = options.name || `${hostname()}-relay-${process.pid}`;
      const shown = token?.source === "generated" ? undefined : token?.text;
      const settings = { options, threads, name, token: shown, log, leave: leave.signal };
      const ending = await work(settings, undefined, relay);
      if (ending.how === "finished") await relay.finish(ending.reason);
    } finally {
      relay.suspend("the relay stops");
      close();
      await server.close();
    }
  });
}
