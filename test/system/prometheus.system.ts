// deploy/prometheus and deploy/grafana against the real Prometheus, scraping a real run.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { parse } from "yaml";
import type { RunStatus } from "../../coordinator/status.ts";
import { type RealRun, startRun, token } from "./real-run.ts";
import { freePort } from "./weft.ts";

const deploy = join(import.meta.dirname, "../../deploy");
let run: RealRun;
let prometheus: ChildProcess;
let url: string;
/** In the middle of the run, in seconds, and what the run said of itself then. */
let middle: number;
let middleStatus: RunStatus;
let end: RunStatus;

beforeAll(async () => {
  run = await startRun(400);
  // The deployed configuration, but for the coordinator's address, the place of the token and the pace.
  const config = readFileSync(join(deploy, "prometheus/prometheus.yml"), "utf8")
    .replace("coordinator:7070", run.address)
    .replace("/run/secrets/weft-token", join(run.folder, "token"))
    .replace("scrape_interval: 5s", "scrape_interval: 500ms")
    .replace("evaluation_interval: 15s", "evaluation_interval: 1s");
  writeFileSync(join(run.folder, "prometheus.yml"), config);
  writeFileSync(join(run.folder, "token"), token);
  copyFileSync(join(deploy, "prometheus/rules.yml"), join(run.folder, "rules.yml"));
  const port = await freePort();
  url = `http://127.0.0.1:${port}`;
  prometheus = spawn(
    "prometheus",
    [
      `--config.file=${join(run.folder, "prometheus.yml")}`,
      `--storage.tsdb.path=${join(run.folder, "metrics")}`,
      `--web.listen-address=127.0.0.1:${port}`,
      "--log.level=warn",
    ],
    { stdio: "inherit" },
  );
  while (!(await isScraped())) await sleep(200);
  run.begin();
  middleStatus = await run.until(({ step }) => step >= run.steps * 0.6);
  middle = Date.now() / 1000;
  // The last checkpoint is written beside the end of the training.
  end = await run.until(({ state, checkpoints }) => state === "finished" && checkpoints[0]?.final === true);
  await sleep(2500); // two scrapes of the end
}, 300_000);

afterAll(async () => {
  const ended = prometheus && once(prometheus, "close");
  prometheus?.kill("SIGTERM");
  await ended;
  await run?.[Symbol.asyncDispose]();
});

async function isScraped(): Promise<boolean> {
  // Nobody listens on its port yet in the first second.
  const samples = await query("up").catch(() => []);
  return samples[0]?.value[1] === "1";
}

interface Sample {
  readonly metric: Record<string, string>;
  readonly value: [number, string];
}

/** A query's samples now or at a time in the past. @throws Error with Prometheus' own words */
async function query(expression: string, at?: number): Promise<Sample[]> {
  const parameters = new URLSearchParams({ query: expression, ...(at !== undefined && { time: String(at) }) });
  const answer = await (await fetch(`${url}/api/v1/query?${parameters}`)).json();
  const { status, data, error } = answer as {
    status: string;
    data: { resultType: "vector"; result: Sample[] } | { resultType: "scalar"; result: Sample["value"] };
    error: string;
  };
  if (status !== "success") throw new Error(`${expression}: ${error}`);
  return data.resultType === "scalar" ? [{ metric: {}, value: data.result }] : data.result;
}

function promtool(...words: string[]): { status: number | null; output: string } {
  const { status, stdout, stderr } = spawnSync("promtool", words, { encoding: "utf8" });
  return { status, output: stdout + stderr };
}

test("promtool finds nothing wrong with configuration, alerts and metrics", async () => {
  expect(promtool("check", "config", join(run.folder, "prometheus.yml"))).toMatchObject({ status: 0 });
  expect(promtool("test", "rules", join(deploy, "prometheus/rules.test.yml"))).toMatchObject({ status: 0 });
  const input = await (await run.get("/metrics")).text();
  const { status, stderr, stdout } = spawnSync("promtool", ["check", "metrics"], { input, encoding: "utf8" });
  expect([status, stdout + stderr]).toEqual([0, ""]);
});

test("what Prometheus stored is what /status says, number for number", async () => {
  expect(await run.status()).toMatchObject({ step: run.steps, state: "finished", lossNats: end.lossNats });
  const expected: Record<string, number | null> = {
    weft_loss_nats: end.lossNats,
    weft_validation_loss_nats: end.valLossNats,
    weft_best_validation_loss_nats: end.bestValLossNats,
    weft_gradient_norm: end.gradientNorm,
    weft_learning_rate: end.learningRate,
    weft_steps_total: end.step,
    weft_planned_steps: run.steps,
    weft_tokens_total: run.steps * 8 * 32,
    weft_model_parameters: end.model.parameters,
    weft_leases_counted_total: end.leases.counted,
    weft_leases_lost_total: end.leases.lost,
    weft_received_bytes_total: end.bytesIn,
    weft_checkpoint_step: run.steps,
    weft_checkpoints: end.checkpoints.length,
    weft_checkpoint_bytes: end.checkpoints[0]!.bytes,
    weft_checkpoint_failing: 0,
    weft_workers_on_probation: 0,
    weft_finished: 1,
    weft_waiting: 0,
    weft_step_duration_seconds_count: run.steps,
    'weft_step_phase_duration_seconds_count{phase="compute"}': run.steps,
    'up{job="weft"}': 1,
  };
  for (const [name, value] of Object.entries(expected)) {
    const stored = (await query(name)).map((sample) => Number(sample.value[1]));
    expect([name, stored]).toEqual([name, [value]]);
  }
});

test("both workers were seen while they computed, by their names", async () => {
  expect(middleStatus.workers.map(({ state }) => state)).toEqual(["contributing", "contributing"]);
  const samples = await query("weft_worker_shards_total", middle);
  expect(samples.map(({ metric }) => metric.worker).sort()).toEqual(middleStatus.workers.map(({ id }) => id).sort());
  expect((await query("max_over_time(weft_workers_contributing[10m])"))[0]?.value[1]).toBe("2");
});

test("every expression of the Grafana dashboard has an answer in the middle of the run", async () => {
  const { panels } = JSON.parse(readFileSync(join(deploy, "grafana/dashboards/weft.json"), "utf8")) as {
    panels: Array<{ title: string; targets: Array<{ expr: string }> }>;
  };
  const expressions = panels.flatMap(({ title, targets }) => targets.map(({ expr }) => ({ title, expr })));
  expect(expressions.length).toBeGreaterThan(30);
  for (const { title, expr } of expressions) {
    const filled = expr.replaceAll("$__rate_interval", "1m").replaceAll("$instance", ".*");
    const values = (await query(filled, middle)).map(({ value }) => Number(value[1]));
    expect([title, filled, values.length > 0, values.some(Number.isNaN)]).toEqual([title, filled, true, false]);
  }
});

test("every alert is evaluated without an error, and a good run fires none", async () => {
  const answer = await (await fetch(`${url}/api/v1/rules`)).json();
  const { groups } = (answer as { data: { groups: Array<{ rules: Array<Record<string, unknown>> }> } }).data;
  const rules = groups.flatMap((group) => group.rules);
  expect(rules.map(({ name, health, lastError, state }) => [name, health, lastError ?? "", state])).toEqual(
    rules.map(({ name }) => [name, "ok", "", "inactive"]),
  );
  const written = parse(readFileSync(join(deploy, "prometheus/rules.yml"), "utf8")).groups[0].rules;
  expect(rules.map(({ name }) => name)).toEqual(written.map(({ alert }: { alert: string }) => alert));
});

test("Grafana's alerts ask Prometheus what it answers, and none has a series while all is well", async () => {
  const { groups } = JSON.parse(readFileSync(join(deploy, "grafana/provisioning/alerting/weft.json"), "utf8")) as {
    groups: Array<{ rules: Array<{ title: string; data: Array<{ model: { expr?: string } }> }> }>;
  };
  for (const { title, data } of groups.flatMap(({ rules }) => rules))
    expect([title, await query(data[0]!.model.expr!, middle)]).toEqual([title, []]);
  const metrics = ["weft_disk_free_bytes", "weft_checkpoint_bytes"];
  for (const name of metrics) expect(Number((await query(name, middle))[0]?.value[1]), name).toBeGreaterThan(0);
});
