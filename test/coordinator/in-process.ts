// A coordinator in this process, with workers that compute on the native engine in it too.
import pino from "pino";
import { TrainingRun } from "../../coordinator/loop.ts";
import { accessWith } from "../../coordinator/serve/access.ts";
import { serve } from "../../coordinator/serve/server.ts";
import { setUpRun } from "../../coordinator/setup.ts";
import type { OptionName } from "../../shared/config.ts";
import { resolveOptions } from "../../shared/resolve.ts";
import type { Engine } from "../../worker/engine/contract.ts";
import { thisWorld, work } from "../../worker/worker.ts";
import { text } from "../system/weft.ts";

const log = pino({ level: "silent" });
export const steps = 120;

/** A coordinator in this process; `computes` brings its workers. */
export async function runs<T>(
  flags: Partial<Record<OptionName, unknown>>,
  computes: (run: TrainingRun, url: string) => T,
) {
  const sources = {
    flags: {
      ...{ data: text, blockSize: 8, nLayer: 1, nHead: 1, nEmbd: 8, batchSize: 8, shards: 8, steps, port: 0 },
      ...{
        evalWindows: 8,
        evalInterval: 20,
        checkpointInterval: 20,
        keepCheckpoints: 99,
        warmupSteps: 10,
        timeout: 2,
        ...flags,
      },
    },
  };
  const setup = await setUpRun(sources, log, { substitute: false });
  const run = new TrainingRun(setup);
  const server = await serve(run, run, { ...setup.options, access: accessWith(undefined), log });
  const workers = computes(run, `ws://${server.address}`);
  try {
    return { run, workers, result: await run.train() };
  } finally {
    await server.close();
    await setup.dataset.close();
  }
}

export function worker(
  url: string,
  name: string,
  as: (engine: Engine) => Engine = (engine) => engine,
): Promise<unknown> {
  const { options } = resolveOptions({ flags: { coordinator: [url], engine: "native", patience: 0 } });
  const settings = { options, threads: 1, name, token: undefined, log, leave: new AbortController().signal };
  return work(settings, {
    ...thisWorld,
    openEngine: async (...call) => {
      const opened = await thisWorld.openEngine(...call);
      return { ...opened, engine: as(opened.engine) };
    },
  });
}
