// `weft chaos` brings faults about on real processes, and its exit status says whether every bit is right.
import { afterAll, expect, test } from "vitest";
import { killAll, text, weft } from "../system/weft.ts";

afterAll(killAll);

test("a quarter of a minute of faults: every kind of figure, and the right digest", async () => {
  const run = weft([
    "chaos",
    "--minutes",
    "0.25",
    "--faults-per-hour",
    "1440",
    "--workers",
    "2",
    "--data",
    text,
    "--json",
  ]);
  expect(await run.ended, run.stderr()).toBe(0);
  const report = JSON.parse(run.stdout());
  expect(report).toMatchObject({ right: true, firstDifferentStep: null });
  expect(report.faults).toBeGreaterThan(0);
  expect(report.steps).toBeGreaterThan(1);
  expect(report.throughputKept).toBeGreaterThan(0);
  expect(report.recoverySeconds.p95).toBeLessThan(30);
});

test.each([
  [["--workers", "0"], /chaos: --workers cannot be "0": .*>=1/],
  [["--minutes", "x"], /chaos: --minutes cannot be "x": .*expected number/],
  [["--preset", "none"], /unknown preset "none"/],
])("weft chaos %j is refused", async (args, message) => {
  const run = weft(["chaos", ...args]);
  expect(await run.ended).toBe(1);
  expect(run.stderr()).toMatch(message);
});
