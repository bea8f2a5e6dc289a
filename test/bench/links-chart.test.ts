// The picture of the links: a panel for each setting and number of workers, a line for each way, a dot where it was measured.
import { expect, test } from "vitest";
import type { Cell } from "../../bench/links.ts";
import { linksChart } from "../../bench/links-chart.ts";

const cell = (workers: number, way: string, mbps: number, tokensPerSec: number, isMeasured: boolean): Cell => ({
  ...{ setting: "a", way, workers, mbps, predicted: { tokensPerSec, utilisation: 0.5 } },
  ...(isMeasured && {
    measured: {
      ...{ steps: 2, stepSeconds: 1, computeSeconds: 0.5, tokensPerSec: 2 * tokensPerSec, utilisation: 0.5 },
      ...{ bytesOut: 1, bytesIn: 1 },
    },
  }),
});

test("lines are predicted, dots measured, and both stand where they belong", () => {
  const cells = [
    cell(1, "star", 10, 100, true),
    cell(1, "star", 1000, 1000, false),
    cell(2, "star", 10, 10, false),
    cell(2, "H 20", 10, 10_000, true),
  ];
  const svg = linksChart(cells, ["star", "H 20"], 1);
  const count = (what: string) => svg.split(what).length - 1;
  expect([count("<polyline"), count("<circle")]).toEqual([3, 2]);
  expect(svg).toContain("setting a, 1 worker<");
  expect(svg).toContain("setting a, 2 workers<");
  expect(svg).not.toMatch(/NaN|undefined|Infinity/);
  // From 10 to 100,000: a tenfold is a quarter of the panel's 220; the slowest link stands at its left edge.
  expect(svg).toContain('points="62.0,243.0 362.0,188.0"');
  expect(svg).toMatch(/<circle cx="62.0" cy="226.4" r="4" fill="#[1-9]/);
  // Two workers on one core.
  expect(count('fill="#fff" stroke')).toBe(1);
});
