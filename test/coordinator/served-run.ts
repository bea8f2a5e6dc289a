// A coordinator's HTTP side on a free port with a real checkpoint on disk, for the tests of those who ask it.
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pino from "pino";
import { History } from "../../coordinator/history.ts";
import { Journal } from "../../coordinator/journal.ts";
import { Metrics } from "../../coordinator/metrics.ts";
import { EarlierRuns } from "../../coordinator/past.ts";
import { accessWith } from "../../coordinator/serve/access.ts";
import { createHttpServer } from "../../coordinator/serve/http.ts";
import { CheckpointShelf } from "../../coordinator/shelf.ts";
import type { RunStatus } from "../../coordinator/status.ts";
import { writeCheckpoint } from "../../shared/checkpoint/checkpoint.ts";
import { mark } from "../../shared/checkpoint/rundir.ts";
import type { ModelConfig } from "../../shared/model.ts";
import { fakeStatus } from "./fake-run.ts";

/** 262,144 weights: 1 MiB of them, 2 MiB of moments. */
const model: ModelConfig = {
  family: "bigram",
  vocabSize: 512,
  blockSize: 8,
  nLayer: 0,
  nHead: 0,
  nEmbd: 0,
  bias: false,
  dropout: 0,
  activation: "gelu",
  tiedHead: false,
  layerNormEps: 1e-5,
};

/** Every byte of the file depends on the step. */
export async function writeStep(runDirectory: string, step: number, valLossNats: number): Promise<void> {
  const size = model.vocabSize ** 2;
  const vector = (scale: number) => Float32Array.from({ length: size }, (_, i) => Math.sin(i * scale + step));
  await writeCheckpoint(runDirectory, {
    model,
    weights: vector(1),
    optimizer: { m: vector(2), v: vector(3) },
    state: {
      step,
      seed: 1337,
      options: {},
      arithmetic: "native plain float32",
      weightsDigest: "d",
      ledger: { lines: step, head: "h" },
      dataset: { name: "test", fingerprint: "f" },
      tokensSeen: 0,
      valLossNats,
    },
    tokenizer: new Map([["tokenizer.json", "{}\n"]]),
  });
}

export interface ServedRun extends AsyncDisposable {
  readonly url: string;
  readonly runDirectory: string;
  readonly shelf: CheckpointShelf;
  readonly errors: unknown[];
  /** What the page asked of the run. */
  readonly asked: string[];
  /** To be changed by the test. */
  status: RunStatus;
}

/** Steps 100 (best) and 200 (newest), unless `steps` says otherwise. */
export async function serveRun(options: { token?: string; steps?: number[] } = {}): Promise<ServedRun> {
  const runDirectory = mkdtempSync(join(tmpdir(), "weft-served-"));
  const steps = options.steps ?? [100, 200];
  for (const step of steps) await writeStep(runDirectory, step, 2 + step / 1000);
  if (steps[0] !== undefined) await mark(runDirectory, { best: { step: steps[0], valLossNats: 2.1 } });
  const shelf = new CheckpointShelf(runDirectory);
  await shelf.refresh((why) => {
    throw new Error(why);
  });
  const errors: unknown[] = [];
  const served = {
    runDirectory,
    shelf,
    errors,
    asked: [] as string[],
    url: "",
    status: fakeStatus({ checkpoints: shelf.list(Date.now()) }),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
      rmSync(runDirectory, { recursive: true });
    },
  };
  const status = () => served.status;
  const history = new History();
  for (let step = 1; step <= 250; step++)
    history.addStep({
      step,
      tokens: 768 * step,
      seconds: step / 50,
      lossNats: 4.17 / (1 + step / 200),
      gradientNorm: 1,
      learningRate: 1e-3,
      tokensPerSec: 40_000,
    });
  history.addValidation({ step: 250, tokens: 192_000, seconds: 5, valLossNats: 2.4140625 });
  const journal = new Journal(pino({ level: "silent" }));
  journal.tell("joined", "worker a-1 joined: AVX-512, 1 thread", { worker: "a-1" });
  const server = createHttpServer({
    run: {
      status,
      metrics: new Metrics(status),
      history,
      journal,
      shelf,
      earlier: new EarlierRuns(runDirectory),
      about: () => ({ options: {}, changed: [], data: { name: "test" } }),
      checkpointSoon: () => served.asked.push("checkpoint"),
      stop: (reason) => served.asked.push(reason),
    },
    access: accessWith(options.token),
    maxConnections: 32,
    onError: (error) => errors.push(error),
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  served.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return served;
}
