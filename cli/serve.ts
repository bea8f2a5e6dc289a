// `weft serve`: a model for programs that speak OpenAI's completions API.
import type { AddressInfo } from "node:net";
import { basename, resolve } from "node:path";
import { Command } from "commander";
import { accessWith, resolveToken } from "../coordinator/serve/access.ts";
import { threadsEach } from "../shared/config.ts";
import { ConfigError } from "../shared/errors.ts";
import { openModel } from "../shared/store/model.ts";
import { openTokenizerOf } from "../shared/tokenizers/open.ts";
import { openEngine } from "../worker/engine/choose.ts";
import { engineOptionsOf } from "../worker/engine/options.ts";
import { completionsServer } from "./completions.ts";
import { addOptions, type Own, optionsOf } from "./options.ts";
import { onStopSignal } from "./signals.ts";
import { say } from "./terminal.ts";

const own = {
  checkpoint: {},
  host: {},
  port: { default: 8000 },
  tokenFile: {},
  precision: {},
  samples: { default: 8, help: "most texts of one request (n)" },
  tokens: { default: 4096, help: "most tokens of one text (max_tokens)" },
} satisfies Own;

export function serveCommand(): Command {
  const command = new Command("serve").description(
    "serve a model over OpenAI's completions API: /v1/models, /v1/completions, streaming too",
  );
  addOptions(command, ["engine"], own);
  return command.action(async () => {
    const options = await optionsOf(command, own);
    const { checkpoint, host, port } = options;
    if (checkpoint === "")
      throw new ConfigError("serve: name a checkpoint, a run or a model's folder with --checkpoint");
    const token = await resolveToken(host, options.tokenFile, process.env);
    const model = await openModel(checkpoint, say);
    const tokenizer = await openTokenizerOf(model);
    const { engine, why } = await openEngine(
      options.engine,
      engineOptionsOf({ ...options, threads: options.threads || threadsEach(1) }, model.model, options.samples, say),
    );
    try {
      await engine.setWeights(model.weights);
      const name = basename(resolve(checkpoint));
      const server = completionsServer({
        ...{ name, engine, tokenizer, mostSamples: options.samples, mostTokens: options.tokens },
        access: accessWith(token?.text),
        now: () => Date.now() / 1000,
        onError: (error) => say(`a request failed: ${(error as Error).stack}`),
      });
      await new Promise<void>((listening, failed) => {
        server.once("error", (error: NodeJS.ErrnoException) =>
          failed(new ConfigError(`serve: port ${port} on ${host} cannot be listened on (${error.code}); see --port`)),
        );
        server.listen(port, host, listening);
      });
      const at = server.address() as AddressInfo;
      say(`${model.what}; ${why}`);
      say(`serving model "${name}": http://${at.family === "IPv6" ? `[${at.address}]` : at.address}:${at.port}/v1`);
      if (token?.source === "generated") say(`API key: ${token.text}`);
      await new Promise<void>((closed) => {
        onStopSignal(() => {
          server.close(() => closed());
          server.closeIdleConnections();
          setTimeout(() => server.closeAllConnections(), 3000).unref();
        });
      });
    } finally {
      await engine.dispose();
    }
  });
}
