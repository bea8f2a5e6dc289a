// The model of a step by hand, and the advice that follows from it for links that are easy to judge.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { adviceText, advise, type Measured, predict } from "../../cli/advice.ts";
import { lossOf, lossTable } from "../../cli/local-steps-loss.ts";
import { type Means, type StepWork, stepTime } from "../../cli/step-model.ts";
import { modelOf } from "../../shared/config.ts";
import { layoutOf } from "../../shared/family/layout.ts";
import { resolveOptions } from "../../shared/resolve.ts";

const means: Means = {
  workers: 2,
  tokensPerSec: 500,
  atOnce: 2,
  roundTripSeconds: 0.1,
  downBytesPerSec: 10e6,
  upBytesPerSec: 5e6,
  handlingSeconds: 0,
  updateSeconds: 0.05,
};
const work: StepWork = {
  topology: "star",
  localSteps: 1,
  units: 4,
  tokensPerStep: 1000,
  vectorBytes: 4e6,
  windowBytes: 2000,
};

test("a step of two workers at a star, by hand", () => {
  // Two leases of two shards: 500 tokens each are 1 s. Two copies of 4 MB down at 10 MB/s, two sums up at 5 MB/s.
  const time = stepTime(work, means);
  expect(time.computeSeconds).toBeCloseTo(1);
  expect(time.downSeconds).toBeCloseTo(0.8002);
  expect(time.upSeconds).toBeCloseTo(1.6);
  expect(time.otherSeconds).toBeCloseTo(0.15);
  // The first answer is on its way while the second worker's weights still come.
  expect(time.overlapSeconds).toBeCloseTo(0.25 * 0.5 * 0.8002);
  expect(time.tokensPerSec).toBeCloseTo(1000 / 3.4502, 1);
  expect(time.utilisation).toBeCloseTo(1 / 3.4502, 3);
  expect([time.downBytesPerStep, time.upBytesPerStep]).toEqual([8_002_000, 8e6]);
});

test("behind a relay one copy goes down and one sum up", () => {
  const time = stepTime({ ...work, topology: "relay" }, means);
  expect([time.downBytesPerStep, time.upBytesPerStep]).toEqual([4_002_000, 4e6]);
  expect(time.computeSeconds).toBeCloseTo(1);
});

test("H local steps share one exchange, and each has an optimizer's step at its worker", () => {
  const one = stepTime({ ...work, windowBytes: 0 }, means);
  const ten = stepTime({ ...work, windowBytes: 0, localSteps: 10 }, means);
  expect(ten.downSeconds).toBeCloseTo(one.downSeconds);
  // Ten times two units in turn, of 250 tokens and 0.05 s.
  expect(ten.computeSeconds).toBeCloseTo(10 * 2 * (0.5 + 0.05));
  expect(ten.stepSeconds).toBeCloseTo((11 + 0.8 + 1.6 - 0.1 + 0.15) / 10);
});

test("more workers than units wait, and are sent the weights all the same; shared cores halve the speed", () => {
  const eight = stepTime(work, { ...means, workers: 8, atOnce: 8 });
  expect(eight.computeSeconds).toBeCloseTo(0.5);
  expect(eight.downBytesPerStep).toBe(8 * 4e6 + 2000);
  expect(eight.upBytesPerStep).toBe(4 * 4e6);
  expect(eight.utilisation).toBeLessThan(0.5);
  expect(stepTime(work, { ...means, workers: 8, atOnce: 2 }).computeSeconds).toBeCloseTo(1);
});

const options = resolveOptions({ preset: "shakespeare-cpu" }).options;
const model = modelOf(options, 65);
const planned = { options, model, parameters: layoutOf(model).size };
const tiny = 1e-12;
const measured = (MBps: number): Measured => ({
  ...{ workers: 4, tokensPerSec: 20_000, atOnce: 4 },
  link: { roundTripMs: 1, downMBps: MBps, upMBps: MBps },
  handling: { valueSeconds: { float32: tiny, bf16: tiny, int8: tiny, int4: tiny }, updateValueSeconds: tiny },
});

test("bytes come from the codec: blocks with their scales, and moments in bf16", () => {
  const P = planned.parameters;
  const bytes = (localSteps: number, wire: "float32" | "bf16" | "int8") =>
    predict(planned, measured(1), { topology: "relay", localSteps, wire }).upBytesPerStep * localSteps;
  expect(bytes(1, "float32")).toBe(4 * P);
  expect(bytes(1, "bf16")).toBe(2 * P);
  expect(bytes(1, "int8")).toBe(P + 4 * Math.ceil(P / 256));
  expect(bytes(20, "int8")).toBeCloseTo(P + 4 * Math.ceil(P / 256) + 2 * 2 * P);
});

test("a fast link takes every step exact; a slow one pays with loss, and says so", () => {
  const fast = advise(planned, measured(100_000));
  expect(fast.take).toMatchObject({ topology: "star", localSteps: 1, wire: "float32" });
  expect(fast.loss).toBe("no loss");
  const slow = advise(planned, measured(1));
  expect(slow.take.localSteps).toBeGreaterThanOrEqual(20);
  expect(slow.take.tokensPerSec).toBeGreaterThanOrEqual(0.8 * Math.max(...slow.ways.map((way) => way.tokensPerSec)));
  expect(slow.ways).toHaveLength(5 * 4 * 2);
  for (const { take } of [fast, slow]) expect(take.utilisation).toBeLessThanOrEqual(1);
  const text = adviceText(slow);
  expect(text).toMatch(/^take --local-steps \d+ --wire \w+/m);
  for (const line of text.split("\n")) expect(line.length, line).toBeLessThanOrEqual(80);
});

test("advice is what a coordinator takes: as many replicas as the shards allow, and the loss of so many", () => {
  const few = { ...planned, options: { ...planned.options, batchSize: 12, shards: 2 } };
  const { take, flags, loss } = advise(few, measured(1));
  expect(flags.join(" ")).toMatch(/^--local-steps \d+ --replicas 2 --wire /);
  expect(loss).toBe(lossOf({ ...take, replicas: 2 }));
  const asCoordinator = { preset: "shakespeare-cpu", flags: { batchSize: 12, shards: 2, localSteps: take.localSteps } };
  expect(() => resolveOptions(asCoordinator)).toThrow(/take --replicas 2/);
  expect(advise(planned, measured(1)).flags.join(" ")).not.toContain("--replicas");
});

test("docs/local-steps.md shows the losses that the advice goes by", () => {
  const page = readFileSync(join(import.meta.dirname, "../../docs/local-steps.md"), "utf8");
  for (const { localSteps, replicas, wire, valLossNats, percent } of lossTable) {
    const change = localSteps === 1 && wire === "float32" ? "" : `${percent < 0 ? "" : "+"}${percent.toFixed(1)}%`;
    expect(page).toContain(
      `| ${localSteps} | ${replicas} | ${wire} | ${valLossNats.toFixed(4)} | ${change} |`.replace("|  |", "| |"),
    );
  }
});

test("what a way costs is said of itself, else of the nearest that was measured, and of which", () => {
  const said = (localSteps: number, replicas: number, wire: "float32" | "bf16" | "int8") =>
    lossOf({ localSteps, replicas, wire }).replace(/^.\d+\.\d%/, "x");
  expect(said(1, 1, "float32")).toBe("no loss");
  expect(said(20, 4, "bf16")).toBe("x loss, measured");
  expect(said(20, 8, "int8")).toBe("x loss, measured");
  expect(said(20, 16, "int8")).toBe("x loss, measured with 8 replicas");
  expect(said(20, 8, "bf16")).toBe("x loss, measured in int8");
  expect(said(50, 8, "bf16")).toBe("x loss, measured with 4 replicas in int8");
  expect(said(30, 4, "int8")).toBe("a loss that has not been measured");
  // What every step costs in a small wire is not known from what it costs in float32.
  const isKnown = lossTable.some((row) => row.localSteps === 1 && row.wire === "bf16");
  expect(said(1, 1, "bf16")).toBe(isKnown ? "x loss, measured" : "a loss that has not been measured");
});
