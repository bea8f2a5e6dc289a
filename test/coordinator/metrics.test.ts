import { expect, test } from "vitest";
import { Metrics } from "../../coordinator/metrics.ts";
import { phases } from "../../coordinator/status.ts";
import { fakeStatus, fakeWorker } from "./fake-run.ts";

/** Series of a scrape by their full name, labels included. */
async function scrape(metrics: Metrics): Promise<Map<string, number>> {
  const series = new Map<string, number>();
  for (const line of (await metrics.render()).split("\n")) {
    const space = line.lastIndexOf(" ");
    if (line !== "" && !line.startsWith("#")) series.set(line.slice(0, space), Number(line.slice(space + 1)));
  }
  return series;
}

test("every number of a scrape is the status's own", async () => {
  const checkpoint = { valLossNats: 2.5, bytes: 1, sha256: "", best: true, final: false };
  const status = fakeStatus({
    checkpoints: [
      { ...checkpoint, name: "step-000100", step: 100, ageSeconds: 20 },
      { ...checkpoint, name: "step-000200", step: 200, ageSeconds: 7.5 },
    ],
  });
  const series = await scrape(new Metrics(() => status));
  const expected = {
    weft_loss_nats: 2.34375,
    weft_validation_loss_nats: 2.4140625,
    weft_gradient_norm: 0.71875,
    weft_learning_rate: 0.000984375,
    weft_tokens_per_second: 40_961,
    weft_tokens_total: 192_000,
    weft_steps_total: 250,
    weft_planned_steps: 2000,
    weft_workers_connected: 2,
    weft_workers_contributing: 1,
    weft_leases_hedged_total: 3,
    weft_leases_lost_total: 2,
    weft_received_bytes_total: 1_624_691_356,
    weft_sent_bytes_total: 1_824_691_356,
    weft_checkpoint_age_seconds: 7.5,
    weft_checkpoint_step: 200,
    weft_waiting: 0,
    'weft_worker_bytes_total{worker="a-1",direction="in"}': 812_345_678,
    'weft_worker_bytes_total{worker="a-1",direction="out"}': 912_345_678,
    'weft_worker_tokens_per_second{worker="a-1"}': 20_480.5,
    'weft_worker_utilisation_ratio{worker="a-1"}': 0.875,
    'weft_worker_round_trip_seconds{worker="a-1"}': 0.00075,
  };
  for (const [name, value] of Object.entries(expected)) expect([name, series.get(name)]).toEqual([name, value]);
  expect(series.get("process_resident_memory_bytes")).toBeGreaterThan(1e6);
});

test("scraping twice counts nothing twice", async () => {
  const metrics = new Metrics(() => fakeStatus());
  const first = await scrape(metrics);
  const second = await scrape(metrics);
  const ours = [...first].filter(([name]) => name.startsWith("weft_"));
  expect(ours.length).toBeGreaterThan(40);
  for (const [name, value] of ours) expect([name, second.get(name)]).toEqual([name, value]);
});

test("a number that does not exist yet has no series", async () => {
  let status = fakeStatus();
  const metrics = new Metrics(() => status);
  expect((await scrape(metrics)).has("weft_loss_nats")).toBe(true);
  status = fakeStatus({ lossNats: null, valLossNats: null });
  const series = await scrape(metrics);
  expect(series.has("weft_loss_nats")).toBe(false);
  expect(series.has("weft_validation_loss_nats")).toBe(false);
  expect(series.has("weft_checkpoint_age_seconds")).toBe(false);
});

test("a worker that left leaves no series, and a crowd is cut to the 64 that were here first", async () => {
  let status = fakeStatus({ workers: [fakeWorker("gone")] });
  const metrics = new Metrics(() => status);
  expect((await scrape(metrics)).has('weft_worker_shards_total{worker="gone"}')).toBe(true);
  const crowd = Array.from({ length: 300 }, (_, i) => fakeWorker(`w${i}`, { connectedSeconds: i }));
  status = fakeStatus({ workers: crowd });
  const names = [...(await scrape(metrics)).keys()].filter((name) => name.startsWith("weft_worker_shards_total"));
  expect(names.length).toBe(64);
  expect(names).toContain('weft_worker_shards_total{worker="w299"}');
  expect(names).not.toContain('weft_worker_shards_total{worker="gone"}');
});

test("steps and their phases are distributions", async () => {
  const metrics = new Metrics(() => fakeStatus());
  metrics.observeSteps(0.02, { compute: 0.0125, sum: 0.0005 }, 1);
  metrics.observeSteps(4, { compute: 3 }, 2);
  metrics.observePhase("eval", 4);
  const series = await scrape(metrics);
  expect(series.get("weft_step_duration_seconds_sum")).toBe(4.02);
  // A round of two local steps is two.
  expect(series.get("weft_step_duration_seconds_count")).toBe(3);
  expect(series.get('weft_step_duration_seconds_bucket{le="3"}')).toBe(3);
  expect(series.get('weft_step_duration_seconds_bucket{le="0.03"}')).toBe(1);
  const sums = phases.map((phase) => series.get(`weft_step_phase_duration_seconds_sum{phase="${phase}"}`));
  expect(sums).toEqual([3.0125, 0, 0.0005, 0, 0, 0, 4, 0]);
});
