// What watching a run costs it, in processor time: the same machine computes a step and records it.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { History } from "../../coordinator/history.ts";
import { Metrics } from "../../coordinator/metrics.ts";
import { Stopwatch } from "../../coordinator/stopwatch.ts";
import { systemClock } from "../../shared/clock.ts";
import { modelOf } from "../../shared/config.ts";
import { layoutOf } from "../../shared/family/layout.ts";
import { resolveOptions } from "../../shared/resolve.ts";
import { openEngine } from "../../worker/engine/choose.ts";
import { fakeStatus, fakeWorker } from "./fake-run.ts";

/** Milliseconds of processor time of one call, the least of three rounds. */
async function cpuMs(calls: number, act: () => unknown): Promise<number> {
  let least = Number.POSITIVE_INFINITY;
  for (let round = 0; round < 3; round++) {
    const before = process.cpuUsage();
    for (let i = 0; i < calls; i++) await act();
    const { user, system } = process.cpuUsage(before);
    least = Math.min(least, (user + system) / 1000 / calls);
  }
  return least;
}

test("recording a step costs less than 1 % of computing the smallest one that anybody trains; so does a scrape", async () => {
  const { options } = resolveOptions({ preset: "shakespeare-cpu" });
  const model = modelOf(options, 65);
  const rows = options.batchSize;
  const { engine } = await openEngine("auto", {
    model,
    maxRows: rows,
    precision: "float32",
    threads: 1,
    device: "cpu",
  });
  const { size } = layoutOf(model);
  await engine.setWeights(new Float32Array(size).fill(0.01));
  const tokens = Int32Array.from({ length: rows * model.blockSize }, (_, i) => i % 65);
  const gradient = new Float32Array(size);
  const at = { seed: 1, step: 0, first: 0, count: 1 };
  const stepMs = await cpuMs(3, () => engine.gradient(tokens, tokens, rows, at, gradient));
  await engine.dispose();

  const workers = Array.from({ length: 64 }, (_, i) => fakeWorker(`w${i}`));
  const metrics = new Metrics(() => fakeStatus({ workers }));
  const history = new History();
  const watch = new Stopwatch(systemClock);
  const units = new Map(workers.map(({ id }) => [id, 1]));
  let step = 0;
  const recordMs = await cpuMs(2000, () => {
    watch.begin();
    for (const phase of ["wire", "apply", "broadcast", "ledger"] as const) watch.mark(phase);
    const { seconds, phases } = watch.end({ tokensByWorker: units, secondsByWorker: units }, 1);
    metrics.observeSteps(seconds, phases, 1);
    history.addStep({
      step: ++step,
      tokens: step,
      seconds,
      lossNats: 2,
      gradientNorm: 1,
      learningRate: 1e-3,
      tokensPerSec: 1e5,
    });
  });
  expect(recordMs / stepMs, `${recordMs} ms beside ${stepMs} ms`).toBeLessThan(0.01);

  const config = readFileSync(join(import.meta.dirname, "../../deploy/prometheus/prometheus.yml"), "utf8");
  const everyMs = 1000 * Number.parseInt(parse(config).global.scrape_interval, 10);
  const scrapeMs = await cpuMs(20, () => metrics.render());
  expect(scrapeMs / everyMs, `${scrapeMs} ms every ${everyMs} ms`).toBeLessThan(0.01);
  console.log(
    `recording a step: ${(1000 * recordMs).toFixed(1)} us beside ${stepMs.toFixed(1)} ms (${((100 * recordMs) / stepMs).toFixed(3)} %); a scrape with 64 workers: ${scrapeMs.toFixed(2)} ms every ${everyMs / 1000} s (${((100 * scrapeMs) / everyMs).toFixed(3)} %)`,
  );
});
