import { expect, test } from "vitest";
import { AdamW } from "../../../coordinator/optimizer/adamw.ts";
import { Nesterov } from "../../../coordinator/optimizer/nesterov.ts";
import { roundedUpdates } from "../../../coordinator/optimizer/rounded.ts";
import { codecOver, scalarCodec } from "../../../shared/arithmetic/codec.ts";
import { bestOps } from "../../../shared/arithmetic/native.ts";
import { scalarOps } from "../../../shared/arithmetic/vector.ts";
import { layoutOf } from "../../../shared/family/layout.ts";

const layout = layoutOf({
  family: "bigram",
  vocabSize: 5,
  blockSize: 4,
  nLayer: 0,
  nHead: 0,
  nEmbd: 0,
  bias: false,
  dropout: 0,
  activation: "gelu",
  tiedHead: true,
  layerNormEps: 1e-5,
});

/** Sum over four units of gradients ((7 i + 3 t) % 11 - 5) / 4; the first five elements stand beside PyTorch's. */
const sumAt = (t: number) =>
  Float32Array.from({ length: layout.size }, (_, i) => (i < 5 ? ((7 * i + 3 * t) % 11) - 5 : 0));

/**
 * PyTorch 1.13 in float64: w = [(i - 2) / 2 for i in range(5)]; torch.optim.SGD([w], lr=0.7, momentum=0.9,
 * nesterov=True); six steps with w.grad = [((7 * i + 3 * t) % 11 - 5) / 4 for i in range(5)], t = 0..5.
 */
const afterSteps = [
  [0.6625, -1.165, 0.665, -1.1625, 0.6675],
  [2.03625, -3.111, 0.616, -0.87375, -0.80425],
  [2.625125, -3.0774, -0.6006, -1.086375, -0.168825],
  [1.9826125, -3.51966, 0.26446, -2.2752375, 0.1055575],
  [3.36435125, -4.915194, 0.745514, -1.21021375, -0.46999825],
  [4.310416125, -4.0361746, 0.3559626, -0.374192375, -2.335498425],
];
const momentumAfter = [-1.2239125, -0.00638, 0.06278, -0.7714625, 1.5722225];

function expectClose(got: Float32Array, wanted: readonly number[], what: string): void {
  wanted.forEach((x, i) => {
    expect(Math.abs(got[i]! - x), `${what}[${i}] is ${got[i]}, PyTorch has ${x}`).toBeLessThan(1e-6 * 4);
  });
}

const start = () => Float32Array.from({ length: layout.size }, (_, i) => (i < 5 ? (i - 2) / 2 : 0));

test.each([scalarOps, bestOps(2)])(
  "Nesterov momentum gives the numbers of torch.optim.SGD(nesterov=True) ($name)",
  (ops) => {
    const optimizer = new Nesterov(layout, { momentum: 0.9 }, ops);
    const weights = start();
    for (const [t, wanted] of afterSteps.entries()) {
      const sum = sumAt(t);
      const norm = optimizer.apply(weights, sum, { units: 4, learningRate: 0.7, count: t + 1 });
      expectClose(weights, wanted, `weights after step ${t + 1}`);
      expect(sum).toEqual(sumAt(t));
      expect(norm).toBeCloseTo(Math.sqrt(sumAt(t).reduce((a, x) => a + (x / 4) ** 2, 0)), 12);
    }
    expectClose(optimizer.state.momentum, momentumAfter, "momentum");
  },
);

const int4 = { codec: codecOver("int4", scalarCodec, scalarOps), seed: 1, ops: scalarOps };

test("rounded updates are what the weights take, and what rounding loses comes later", () => {
  const plain = new Nesterov(layout, { momentum: 0 }, scalarOps);
  const rounded = roundedUpdates(layout.size, int4, (state) => new Nesterov(layout, { momentum: 0 }, scalarOps, state));
  const [exact, weights] = [start(), start()];
  for (let t = 0; t < 40; t++) {
    const before = weights.slice();
    const update = { units: 4, learningRate: 0.01, count: t + 1 };
    plain.apply(exact, sumAt(t), update);
    rounded.apply(weights, sumAt(t), update);
    const sent = rounded.update!.slice();
    int4.codec.round(sent, { seed: 9, step: 9, node: 0 });
    expect(sent, "the update is one that travels as it is").toEqual(rounded.update);
    scalarOps.add(sent, before);
    expect(sent, "and all that changes the weights").toEqual(weights);
  }
  expect(weights).not.toEqual(exact);
  scalarOps.add(weights, rounded.state.carried!);
  for (const [i, x] of exact.entries()) expect(weights[i]).toBeCloseTo(x, 5);
});

test("an optimizer that goes on from a copy of its state gives the same bits", () => {
  const make = {
    nesterov: (state?: Record<string, Float32Array>) => new Nesterov(layout, { momentum: 0.9 }, scalarOps, state),
    adamw: (state?: Record<string, Float32Array>) =>
      new AdamW(layout, { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, gradientClip: 1 }, scalarOps, state),
    rounded: (state?: Record<string, Float32Array>) => roundedUpdates(layout.size, int4, make.adamw, state),
  };
  for (const [name, optimizer] of Object.entries(make)) {
    const update = (t: number) => ({ units: 4, learningRate: 0.1, count: t + 1 });
    const whole = optimizer();
    const weights = start();
    whole.apply(weights, sumAt(0), update(0));
    const copies = Object.fromEntries(Object.entries(whole.state).map(([key, x]) => [key, x.slice()]));
    const resumed = optimizer(copies);
    const again = weights.slice();
    whole.apply(weights, sumAt(1), update(1));
    resumed.apply(again, sumAt(1), update(1));
    expect(again, name).toEqual(weights);
    expect(resumed.state, name).toEqual(whole.state);
  }
});

test("another optimizer's state is refused by name", () => {
  const state = { m: new Float32Array(layout.size), v: new Float32Array(layout.size) };
  expect(() => new Nesterov(layout, { momentum: 0.9 }, scalarOps, state)).toThrow(
    "the checkpoint holds optimizer state m, v, this run's optimizer has momentum; start a new run from its weights with --init-from",
  );
});
