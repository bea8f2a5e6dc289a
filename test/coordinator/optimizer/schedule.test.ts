import { expect, test } from "vitest";
import { learningRateAt } from "../../../coordinator/optimizer/schedule.ts";
import { openOracle } from "../../oracle.ts";

const options = { learningRate: 1e-3, minLearningRate: 1e-4, warmupSteps: 10, decaySteps: 110, steps: 200 } as const;

test("warm-up, cosine, linear and constant have their formulas' values", () => {
  const at = (step: number, schedule: "cosine" | "linear" | "constant") =>
    learningRateAt(step, { ...options, schedule });
  expect(at(0, "cosine")).toBeCloseTo(1e-3 / 11, 12);
  expect(at(9, "linear")).toBeCloseTo(1e-2 / 11, 12);
  expect(at(10, "cosine")).toBeCloseTo(1e-3, 12);
  expect(at(60, "cosine")).toBeCloseTo(5.5e-4, 12);
  expect(at(35, "cosine")).toBeCloseTo(1e-4 + 9e-4 * 0.5 * (1 + Math.SQRT1_2), 12);
  expect(at(60, "linear")).toBeCloseTo(5.5e-4, 12);
  expect(at(35, "linear")).toBeCloseTo(7.75e-4, 12);
  expect(at(1000, "cosine")).toBe(1e-4);
  expect(at(1000, "constant")).toBe(1e-3);
});

test("nanoGPT's rule is the one that the oracle records", async () => {
  const oracle = await openOracle("nanogpt-char-cpu");
  expect(oracle.meta<{ lrAt: string }>("optimizer").lrAt).toBe("i<warmup: lr*(i+1)/(warmup+1)");
});
