// What every engine must do, as tests that know only the contract (worker/engine/contract.ts). Reference numbers come from
// PyTorch in float64 (test/oracle.ts) or are small enough to work out here.

import { afterEach, describe, expect, test } from "vitest";
import { adamwUpdate } from "../../../shared/arithmetic/adamw.ts";
import { codecOver, nodeRounding, scalarCodec, wireFormats } from "../../../shared/arithmetic/codec.ts";
import { PhiloxStream, stream } from "../../../shared/arithmetic/philox.ts";
import { scalarOps } from "../../../shared/arithmetic/vector.ts";
import { EngineError } from "../../../shared/errors.ts";
import { initialWeights } from "../../../shared/family/init.ts";
import { decayStretches, layoutOf } from "../../../shared/family/layout.ts";
import type { ModelConfig } from "../../../shared/model.ts";
import type { Engine, EngineOptions } from "../../../worker/engine/contract.ts";
import { localTraining } from "../../../worker/engine/local.ts";
import { shardGradient } from "../../../worker/engine/shards.ts";
import { openOracle } from "../../oracle.ts";
import { expectClose, largest, worst } from "./compare.ts";
import { referenceLoss } from "./reference.ts";

const at = { seed: 1337, step: 0, shard: 0 };

const tiny: ModelConfig = {
  family: "gpt2",
  vocabSize: 11,
  blockSize: 8,
  nLayer: 2,
  nHead: 2,
  nEmbd: 12,
  bias: true,
  dropout: 0,
  activation: "gelu",
  tiedHead: true,
  layerNormEps: 1e-5,
};

const bigram: ModelConfig = { ...tiny, family: "bigram", vocabSize: 5, nLayer: 0, nHead: 0, nEmbd: 0 };

/** Weights far from the start's symmetry, so that every term of a gradient counts. */
function lively(model: ModelConfig, seed = 1): Float32Array {
  const weights = initialWeights(layoutOf(model), seed);
  const random = new PhiloxStream(seed, stream.init, 999);
  for (let i = 0; i < weights.length; i++) weights[i]! += 0.2 * random.normal();
  return weights;
}

function ids(model: ModelConfig, count: number, seed = 7): Int32Array {
  const random = new PhiloxStream(seed, stream.sampler);
  return Int32Array.from({ length: count }, () => random.below(model.vocabSize));
}

/** @param open opens the engine under test; unset options are filled in here */
export function engineContract(name: string, create: (options: EngineOptions) => Promise<Engine>): void {
  const engines: Engine[] = [];
  afterEach(async () => {
    for (const engine of engines.splice(0)) await engine.dispose();
  });
  async function open(model: ModelConfig, options: Partial<EngineOptions> = {}): Promise<Engine> {
    const engine = await create({ model, maxRows: 4, precision: "float32", threads: 1, device: "auto", ...options });
    engines.push(engine);
    return engine;
  }
  async function opened(model: ModelConfig, options: Partial<EngineOptions> = {}): Promise<Engine> {
    const engine = await open(model, options);
    await engine.setWeights(lively(model));
    return engine;
  }
  const gradientOf = async (engine: Engine, tokens: Int32Array, targets: Int32Array, rows: number, position = at) => {
    const gradient = new Float32Array(layoutOf(engine.model).size).fill(Number.NaN);
    const loss = await shardGradient(engine, tokens, targets, rows, position, gradient);
    return { loss, gradient };
  };

  describe(`engine ${name}`, () => {
    describe("PyTorch oracles", () => {
      for (const recompute of [false, true])
        test.each(["gpt2-tiny", "gpt2-nobias", "gpt2-odd", "gpt1-tiny"])(
          `%s: forward and every gradient${recompute ? ", activations recomputed" : ""}`,
          async (file) => {
            const oracle = await openOracle(file);
            const layout = layoutOf(oracle.model);
            const [steps, B, T] = oracle.shape("input.tokens") as [number, number, number];
            expect(steps).toBe(20);
            const engine = await open(oracle.model, { maxRows: B, checkpointActivations: recompute });
            await engine.setWeights(await flat(oracle, "param"));
            const tokens = (await oracle.ints("input.tokens")).subarray(0, B * T);
            const targets = (await oracle.ints("input.targets")).subarray(0, B * T);

            expectClose("logits", await engine.logits(tokens, B), await oracle.floats("logits"), 1e-4);
            if (oracle.names.includes("hidden"))
              expectClose("hidden", await engine.hidden(tokens, B), await oracle.floats("hidden"), 1e-4);
            const { loss, gradient } = await gradientOf(engine, tokens, targets, B);
            expect(Math.abs(loss - oracle.meta<number>("loss"))).toBeLessThan(1e-5);
            const losses = await engine.losses(tokens, targets, B);
            expect(losses.length).toBe(B);
            expect(Math.abs(losses.reduce((a, b) => a + b) / B - loss)).toBeLessThan(1e-5);
            for (const parameter of layout.parameters) {
              const expected = await oracle.floats(`grad.${parameter.name}`);
              const got = gradient.subarray(parameter.offset, parameter.offset + parameter.size);
              expectClose(`gradient of ${parameter.name}`, got, expected, 1e-4 * largest(expected));
            }
          },
        );

      test.each(["gpt2-tiny", "gpt2-nobias", "gpt2-odd", "gpt1-tiny"])("%s: 20 steps of AdamW", async (file) => {
        const oracle = await openOracle(file);
        const layout = layoutOf(oracle.model);
        const [steps, B, T] = oracle.shape("input.tokens") as [number, number, number];
        const tokens = await oracle.ints("input.tokens");
        const targets = await oracle.ints("input.targets");
        const optimizer = oracle.meta<Record<string, number>>("optimizer") as Record<
          "lr" | "minLr" | "warmup" | "decaySteps" | "beta1" | "beta2" | "eps" | "weightDecay" | "clip",
          number
        >;
        const engine = await open(oracle.model, { maxRows: B });
        const weights = await flat(oracle, "param");
        const first = new Float32Array(layout.size);
        const second = new Float32Array(layout.size);
        const curve: number[] = [];
        const norms: number[] = [];
        for (let step = 0; step < steps; step++) {
          await engine.setWeights(weights);
          const range = [step * B * T, (step + 1) * B * T] as const;
          const { loss, gradient } = await gradientOf(engine, tokens.subarray(...range), targets.subarray(...range), B);
          const norm = Math.sqrt(scalarOps.sumOfSquares(gradient));
          curve.push(loss);
          norms.push(norm);
          for (const { offset, size, decay } of layout.parameters) {
            const part = (x: Float32Array) => x.subarray(offset, offset + size);
            scalarOps.adamw(part(weights), part(gradient), part(first), part(second), {
              ...optimizer,
              learningRate: learningRate(step, optimizer),
              weightDecay: decay ? optimizer.weightDecay : 0,
              count: step + 1,
              gradientScale: Math.min(1, optimizer.clip / (norm + 1e-6)),
            });
          }
        }
        expectClose("loss curve", curve, oracle.meta<number[]>("lossCurve"), 1e-4);
        expectClose("gradient norms", norms, oracle.meta<number[]>("gradNorms"), 1e-4);
        const final = await flat(oracle, "final");
        for (const { name: parameter, offset, size } of layout.parameters) {
          // The true gradient of the key biases is zero: AdamW turns rounding into steps there, and only there.
          const third = parameter.endsWith("c_attn.bias") ? size / 3 : size;
          for (let from = offset; from < offset + size; from += third)
            expectClose(
              `final ${parameter} from ${from - offset}`,
              weights.subarray(from, from + third),
              final.subarray(from, from + third),
              third < size && from === offset + third ? 1e-3 : 1e-4,
            );
        }
      });
    });

    test("a bigram's loss and gradient are those worked out by hand", async () => {
      const engine = await open(bigram);
      const table = Float32Array.from({ length: 25 }, (_, i) => Math.log(1 + (i % 5) + Math.floor(i / 5)));
      await engine.setWeights(table);
      // Row r holds log(1 + r + c): its probabilities are (1 + r + c) / (15 + 5 r).
      const p = (r: number, c: number) => (1 + r + c) / (15 + 5 * r);
      const tokens = Int32Array.of(0, 2, 2);
      const targets = Int32Array.of(2, 2, 4);
      const { loss, gradient } = await gradientOf(engine, tokens, targets, 1);
      expect(Math.abs(loss - -(Math.log(p(0, 2)) + Math.log(p(2, 2)) + Math.log(p(2, 4))) / 3)).toBeLessThan(1e-6);
      const expected = new Float32Array(25);
      tokens.forEach((r, n) => {
        for (let c = 0; c < 5; c++) expected[r * 5 + c]! += (p(r, c) - (c === targets[n] ? 1 : 0)) / 3;
      });
      expectClose("gradient", gradient, expected, 1e-6);
      const picked = Float32Array.from([0, 2, 2].flatMap((r) => [...table.subarray(5 * r, 5 * r + 5)]));
      expectClose("logits", await engine.logits(tokens, 1), picked, 0);
      await expect(engine.hidden(tokens, 1)).rejects.toThrow(EngineError);
    });

    const variants: [string, Partial<ModelConfig>][] = [
      ["gpt2", {}],
      ["gpt2, tanh GELU", { activation: "gelu_tanh" }],
      ["gpt2, head of its own", { tiedHead: false }],
      ["gpt2, dropout", { dropout: 0.3 }],
      ["gpt2, no bias, dropout", { bias: false, dropout: 0.1 }],
      ["gpt1", { family: "gpt1" }],
      ["gpt1, dropout", { family: "gpt1", dropout: 0.3 }],
      ["gpt1, no bias, head of its own", { family: "gpt1", bias: false, tiedHead: false }],
    ];
    test.each(variants)("%s: the loss and its gradient are those of the plain model in float64", async (_, change) => {
      const model = { ...tiny, ...change };
      const engine = await open(model);
      const weights = lively(model);
      const tokens = ids(model, 3 * 7);
      const targets = ids(model, 3 * 7, 8);
      const position = { seed: 2 ** 40 + 5, step: 3, shard: 2 };
      await engine.setWeights(weights);
      const { loss, gradient } = await gradientOf(engine, tokens, targets, 3, position);
      const moved = Float64Array.from(weights);
      const lossAt = () => referenceLoss(model, moved, tokens, targets, 3, position);
      const expected = lossAt();
      expect(Math.abs(loss - expected), `loss ${loss}, expected ${expected}`).toBeLessThan(1e-5);
      // Along a random direction, parameter by parameter.
      const random = new PhiloxStream(3, stream.init);
      const h = 1e-4;
      for (const { name: parameter, offset, size } of layoutOf(model).parameters) {
        const direction = Float64Array.from({ length: size }, () => random.normal() / Math.sqrt(size));
        const lossAtStep = (step: number) => {
          direction.forEach((d, i) => {
            moved[offset + i] = weights[offset + i]! + step * d;
          });
          return lossAt();
        };
        const slope = (lossAtStep(h) - lossAtStep(-h)) / (2 * h);
        moved.set(weights);
        const got = direction.reduce((sum, d, i) => sum + d * gradient[offset + i]!, 0);
        expect(Math.abs(got - slope), `${parameter}: got ${got}, expected ${slope}`).toBeLessThan(1e-6);
      }
    });

    test("a shorter window is the beginning of a longer one, down to one token", async () => {
      const engine = await opened(tiny);
      const tokens = ids(tiny, 8);
      const whole = await engine.logits(tokens, 1);
      for (const T of [7, 3, 1])
        expectClose(`T = ${T}`, await engine.logits(tokens.slice(0, T), 1), whole.subarray(0, T * 11), 1e-5);
      const { loss, gradient } = await gradientOf(engine, tokens.slice(0, 1), tokens.slice(1, 2), 1);
      const row = whole.subarray(0, 11);
      const sum = row.reduce((total, x) => total + Math.exp(x), 0);
      expect(Math.abs(loss - (Math.log(sum) - row[tokens[1]!]!))).toBeLessThan(1e-5);
      // Positions that were not used have no gradient, and nothing of an earlier content of `out` is left.
      const { offset, size } = layoutOf(tiny).byName.get("transformer.wpe.weight")!;
      expect(largest(gradient.subarray(offset, offset + 12))).toBeGreaterThan(0);
      expect(largest(gradient.subarray(offset + 12, offset + size))).toBe(0);
    });

    test("rows do not touch each other, and the gradient is the mean over them", async () => {
      const engine = await opened(tiny);
      const tokens = ids(tiny, 4 * 8);
      const targets = ids(tiny, 4 * 8, 8);
      const row = (x: Int32Array, r: number) => x.slice(8 * r, 8 * r + 8);
      for (let rows = 1; rows <= 4; rows++) {
        const all = await gradientOf(engine, tokens.slice(0, 8 * rows), targets.slice(0, 8 * rows), rows);
        const mean = new Float32Array(all.gradient.length);
        const losses: number[] = [];
        for (let r = 0; r < rows; r++) {
          const one = await gradientOf(engine, row(tokens, r), row(targets, r), 1);
          losses.push(one.loss);
          for (let i = 0; i < mean.length; i++) mean[i]! += one.gradient[i]! / rows;
        }
        expectClose(`gradient of ${rows} rows`, all.gradient, mean, 1e-5 * largest(mean));
        const perRow = await engine.losses(tokens.slice(0, 8 * rows), targets.slice(0, 8 * rows), rows);
        expectClose("losses", perRow, losses, 1e-5);
      }
    });

    describe("local training", () => {
      const model = { ...tiny, dropout: 0.2 };
      const P = layoutOf(model).size;
      const optimizer = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, gradientClip: 1 };
      const steps = {
        at: { seed: 3, step: 40, first: 2, count: 2 },
        rows: 2,
        learningRates: [1e-2, 2e-2, 5e-3],
        updates: 7,
        optimizer,
      };
      const N = 2 * 2 * 8;
      const start = () => ({
        weights: lively(model),
        m: lively(model, 2).map((x) => x / 10),
        v: lively(model, 3).map((x) => x * x),
      });

      test("is the gradients and updates of its steps, one after another, bit for bit", async () => {
        const engine = await open(model);
        const [tokens, targets] = [ids(model, 3 * N), ids(model, 3 * N, 8)];
        const state = start();
        const done: number[] = [];
        const result = await localTraining(engine)(tokens, targets, steps, state, { progress: (n) => done.push(n) });
        expect(done.filter(Number.isInteger)).toEqual([1, 2, 3]);
        expect(done).toEqual([...new Set(done)].sort((a, b) => a - b));

        const by = start();
        const sum = new Float32Array(P);
        for (const [h, learningRate] of steps.learningRates.entries()) {
          await engine.setWeights(by.weights);
          const part = (x: Int32Array) => x.subarray(h * N, (h + 1) * N);
          const at = { ...steps.at, step: 40 + h };
          const losses = (await engine.gradient(part(tokens), part(targets), 2, at, sum))!;
          const update = { ...optimizer, units: 2, learningRate, count: 8 + h };
          const norm = adamwUpdate(scalarOps, decayStretches(layoutOf(model)), by, sum, update);
          expect(result.losses[h]).toBe((losses[0]! + losses[1]!) / 2);
          expect(result.gradientNorms[h]).toBe(norm);
        }
        for (const name of ["weights", "m", "v"] as const) expectClose(name, state[name], by[name], 0);
        // The engine goes on with the weights that came out.
        await engine.setWeights(by.weights);
        const wanted = await engine.logits(tokens.slice(0, 8), 1);
        await engine.setWeights(state.weights);
        expectClose("logits", await engine.logits(tokens.slice(0, 8), 1), wanted, 0);
      });

      test("stopped and handed over between two steps, it gives the same bits", async () => {
        const [tokens, targets] = [ids(model, 3 * N), ids(model, 3 * N, 8)];
        const whole = start();
        const { losses } = await localTraining(await open(model))(tokens, targets, steps, whole);
        const state = start();
        let done = 0;
        const first = await localTraining(await open(model))(tokens, targets, steps, state, {
          progress: (n) => {
            done = n;
          },
          stopped: () => done === 1,
        });
        expect([done, first.losses.length]).toEqual([1, 1]);
        const rest = {
          ...steps,
          at: { ...steps.at, step: steps.at.step + done },
          learningRates: steps.learningRates.slice(done),
          updates: steps.updates + done,
        };
        const second = await localTraining(await open(model))(
          tokens.subarray(done * N),
          targets.subarray(done * N),
          rest,
          state,
        );
        expect([...first.losses, ...second.losses]).toEqual(losses);
        for (const name of ["weights", "m", "v"] as const) expectClose(name, state[name], whole[name], 0);
      });

      test("what is not of this model is refused with the numbers, and the state stays", async () => {
        const train = localTraining(await open(model));
        const tokens = ids(model, 3 * N);
        const refused = async (change: Partial<typeof steps>, message: RegExp, length = 3 * N, state = start()) => {
          const before = state.weights.slice();
          const call = train(tokens.subarray(0, length), tokens.subarray(0, length), { ...steps, ...change }, state);
          await expect(call).rejects.toThrow(message);
          expectClose("weights", state.weights, before, 0);
        };
        await refused({}, /95 ids do not make 3 local steps of 2 shards of 2 rows/, 3 * N - 1);
        await refused({ learningRates: [] }, /do not make 0 local steps/);
        await refused({ updates: -1 }, /after -1 updates/);
        await refused({}, /m: 5 values, expected/, 3 * N, { ...start(), m: new Float32Array(5) });
        await refused({ at: { ...steps.at, first: 1 } }, /is no node of a tree/);
        tokens[0] = model.vocabSize;
        await refused({}, /outside the vocabulary/);
      });
    });

    test.each(wireFormats)("a lease is the tree sum of its shards, however it is cut (%s)", async (wire) => {
      const model = { ...tiny, dropout: 0.2 };
      const engine = await opened(model);
      const tokens = ids(model, 8 * 2 * 6);
      const round = nodeRounding(codecOver(wire, scalarCodec, scalarOps), { seed: 5, step: 9, units: 8 });
      const lease = async (first: number, count: number) => {
        const part = tokens.subarray(first * 12, (first + count) * 12);
        const sum = new Float32Array(layoutOf(model).size).fill(Number.NaN);
        const losses = await engine.gradient(part, part, 2, { seed: 5, step: 9, first, count, round }, sum);
        expect(losses).toHaveLength(count);
        return { losses, sum };
      };
      const whole = await lease(0, 8);
      for (const count of [4, 2, 1]) {
        const leases = [];
        for (let first = 0; first < 8; first += count) leases.push(await lease(first, count));
        expect(leases.flatMap(({ losses }) => losses)).toEqual(whole.losses);
        for (let sums = leases; sums.length > 1; sums = sums.filter((_, i) => i % 2 === 0))
          for (let i = 0; i < sums.length; i += 2) {
            scalarOps.add(sums[i]!.sum, sums[i + 1]!.sum);
            round?.({ first: i * (8 / sums.length), count: 16 / sums.length }, sums[i]!.sum);
          }
        expectClose(`leases of ${count}`, leases[0]!.sum, whole.sum, 0);
      }
      // Cancelled at once, and between its parts where the engine can: it says so, and goes on with the next.
      const out = new Float32Array(whole.sum.length);
      const at = { seed: 5, step: 9, first: 0, count: 8 };
      expect(await engine.gradient(tokens, tokens, 2, at, out, () => true)).toBeUndefined();
      expect(await engine.gradient(tokens, tokens, 2, at, out, () => false)).toEqual(whole.losses);
      for (const node of [
        { first: 0, count: 3 },
        { first: 2, count: 4 },
        { first: 0, count: 0 },
        { first: -1, count: 1 },
      ])
        await expect(engine.gradient(tokens, tokens, 2, { ...at, ...node }, out), `${node.count}`).rejects.toThrow(
          EngineError,
        );
      await expect(engine.gradient(tokens.subarray(1), tokens, 2, at, out)).rejects.toThrow("8 shards");
    });

    test("the same call gives the same bits", async () => {
      const model = { ...tiny, dropout: 0.2 };
      const [first, second] = [await opened(model), await opened(model)];
      const tokens = ids(model, 4 * 8);
      const before = await gradientOf(first, tokens, tokens, 4);
      await gradientOf(first, tokens.slice(0, 3), tokens.slice(0, 3), 1);
      for (const engine of [first, second]) {
        const again = await gradientOf(engine, tokens, tokens, 4);
        expect(again.loss).toBe(before.loss);
        expect(scalarOps.digest(again.gradient)).toBe(scalarOps.digest(before.gradient));
      }
      const recomputing = await opened(model, { checkpointActivations: true });
      const { gradient } = await gradientOf(recomputing, tokens, tokens, 4);
      // A compiler may fuse otherwise what is computed twice: then the arithmetic has another name.
      const isSame = recomputing.arithmetic === first.arithmetic;
      expectClose("gradient", gradient, before.gradient, isSame ? 0 : 1e-6 * largest(before.gradient));
    });

    // So many that a GPU's kernels share one sum among workgroups, whose order must not show.
    test("the same call gives the same bits over thousands of tokens", async () => {
      const model = { ...tiny, nLayer: 1, blockSize: 32 };
      const engine = await opened(model, { maxRows: 64 });
      const tokens = ids(model, 64 * 32);
      const { gradient } = await gradientOf(engine, tokens, tokens, 64);
      for (let call = 0; call < 2; call++)
        expectClose("gradient", (await gradientOf(engine, tokens, tokens, 64)).gradient, gradient, 0);
    });

    test("dropout differs by seed, step and shard, keeps the mean, and is off outside training", async () => {
      const model = { ...tiny, dropout: 0.2 };
      const engine = await opened(model);
      const plain = await opened(tiny);
      const tokens = ids(model, 4 * 8);
      expect(await engine.logits(tokens, 4)).toEqual(await plain.logits(tokens, 4));
      const { loss } = await gradientOf(engine, tokens, tokens, 4);
      for (const other of [{ seed: 1338 }, { step: 1 }, { shard: 1 }])
        expect((await gradientOf(engine, tokens, tokens, 4, { ...at, ...other })).loss).not.toBe(loss);
      // One block without its branches would show a wrong scale at once; over many draws the mean loss stays near.
      const mild = { ...tiny, dropout: 0.02 };
      const mildEngine = await opened(mild);
      const without = (await gradientOf(plain, tokens, tokens, 4)).loss;
      let sum = 0;
      for (let step = 0; step < 100; step++)
        sum += (await gradientOf(mildEngine, tokens, tokens, 4, { ...at, step })).loss;
      expect(Math.abs(sum / 100 - without)).toBeLessThan(0.05);
    });

    test("new weights are honoured at once, in the same array or another", async () => {
      const engine = await open(tiny);
      const tokens = ids(tiny, 4 * 8);
      const weights = lively(tiny);
      await engine.setWeights(weights);
      const first = await gradientOf(engine, tokens, tokens, 4);
      const logits = await engine.logits(tokens.slice(0, 1), 1);
      const other = lively(tiny, 2);
      weights.set(other);
      await engine.setWeights(weights);
      const fresh = await opened(tiny);
      await fresh.setWeights(other);
      expect(await gradientOf(engine, tokens, tokens, 4)).toEqual(await gradientOf(fresh, tokens, tokens, 4));
      const changed = await engine.logits(tokens.slice(0, 1), 1);
      expect(worst(changed, logits).difference).toBeGreaterThan(0.01);
      expect(changed).toEqual(await fresh.logits(tokens.slice(0, 1), 1));
      await engine.setWeights(lively(tiny));
      expect(await gradientOf(engine, tokens, tokens, 4)).toEqual(first);
    });

    test("a vocabulary of thousands, targets and all", async () => {
      const model = { ...tiny, vocabSize: 5003 };
      const engine = await opened(model);
      const tokens = ids(model, 2 * 8);
      const targets = ids(model, 2 * 8, 8);
      const { loss, gradient } = await gradientOf(engine, tokens, targets, 2);
      const logits = await engine.logits(tokens, 2);
      const hidden = await engine.hidden(tokens, 2);
      let expected = 0;
      const head = new Float64Array(5003 * 12);
      targets.forEach((target, n) => {
        const row = logits.subarray(n * 5003, (n + 1) * 5003);
        const sum = row.reduce((total, x) => total + Math.exp(x), 0);
        expected += (Math.log(sum) - row[target]!) / 16;
        for (let v = 0; v < 5003; v++)
          for (let c = 0; c < 12; c++)
            head[v * 12 + c]! += ((Math.exp(row[v]!) / sum - (v === target ? 1 : 0)) / 16) * hidden[n * 12 + c]!;
      });
      expect(Math.abs(loss - expected)).toBeLessThan(1e-4);
      // Tokens that never came in have no gradient but the head's.
      const unseen = Array.from({ length: 5003 }, (_, v) => v).filter((v) => !tokens.includes(v));
      const rowsOf = (x: ArrayLike<number>) =>
        unseen.flatMap((v) => Array.from({ length: 12 }, (_, c) => x[v * 12 + c]!));
      expectClose("head's gradient", rowsOf(gradient), rowsOf(head), 1e-6);
    });

    describe("greedy continuation", () => {
      test.each(["gpt2-tiny", "gpt2-nobias", "gpt2-odd"])("%s", async (file) => {
        const oracle = await openOracle(file);
        const engine = await open(oracle.model);
        await engine.setWeights(await flat(oracle, "param"));
        const greedy = oracle.meta<number[]>("greedy");
        const start = 4;
        const text = greedy.slice(0, start);
        const generation = await engine.generation(1);
        let logits = await generation.feed([Int32Array.from(text)]);
        while (text.length < greedy.length) {
          text.push(logits.indexOf(Math.max(...logits)));
          if (generation.lengths[0] === oracle.model.blockSize) {
            // The window slides: what the row held is forgotten, the end of the text is fed again.
            generation.clear(0);
            logits = await generation.feed([Int32Array.from(text.slice(-oracle.model.blockSize))]);
          } else logits = await generation.feed([Int32Array.of(text.at(-1)!)]);
        }
        expect(text).toEqual(greedy);
      });
    });

    test.each(["bigram", "gpt1", "gpt2"] as const)("generation of %s equals the whole forward pass", async (family) => {
      const model = family === "bigram" ? bigram : { ...tiny, family };
      const engine = await opened(model);
      const V = model.vocabSize;
      const texts = [ids(model, 8, 1), ids(model, 8, 2), ids(model, 8, 3)].map((text) => [...text]);
      const held: number[][] = [[], [], []];
      const generation = await engine.generation(3);
      const check = async (logits: Float32Array, when: string) => {
        expect(generation.lengths).toEqual(held.map((text) => text.length));
        for (const [row, text] of held.entries()) {
          const got = logits.slice(row * V, (row + 1) * V);
          const all = text.length ? await engine.logits(Int32Array.from(text), 1) : new Float32Array(V);
          expectClose(`row ${row} ${when}`, got, all.subarray(all.length - V), 1e-5);
        }
      };
      const feed = async (counts: number[], when: string) => {
        const added = counts.map((count, row) => texts[row]!.slice(held[row]!.length, held[row]!.length + count));
        added.forEach((tokens, row) => {
          held[row]!.push(...tokens);
        });
        await check(await generation.feed(added.map((tokens) => Int32Array.from(tokens))), when);
      };
      await feed([0, 0, 0], "before anything was fed");
      await feed([3, 1, 0], "after the first tokens");
      await feed([1, 2, 0], "with a row left alone");
      await feed([0, 0, 5], "with a late row");
      await generation.reorder([2, 0, 0]);
      held.splice(0, 3, [...held[2]!], [...held[0]!], [...held[0]!]);
      texts.splice(0, 3, [...held[0]!, 1, 2, 3], [...held[1]!, 4, 3, 2, 1], [...held[2]!, 0, 1, 2, 3]);
      await feed([1, 1, 2], "after reordering");
      generation.clear(1);
      held[1] = [];
      texts[1] = [3, 3, 1, 4, 0, 2, 1, 1];
      await feed([2, 8, 1], "after clearing, up to the block size");
      await expect(generation.feed([Int32Array.of(), Int32Array.of(1), Int32Array.of()])).rejects.toThrow(/8 .*1 /);
      await expect(generation.feed([Int32Array.of(V), Int32Array.of(), Int32Array.of()])).rejects.toThrow(EngineError);
      await expect(generation.feed([Int32Array.of()])).rejects.toThrow(/1 .*3/);
      await expect(generation.reorder([0, 1, 3])).rejects.toThrow(EngineError);
      await engine.setWeights(lively(model));
      await expect(generation.feed([Int32Array.of(), Int32Array.of(), Int32Array.of()])).rejects.toThrow(EngineError);
      generation.dispose();
    });

    test("wrong calls are refused with the numbers", async () => {
      const engine = await open(tiny);
      const tokens = ids(tiny, 8);
      const out = new Float32Array(layoutOf(tiny).size);
      const refused = async (call: Promise<unknown>, ...parts: string[]) => {
        const error = await call.then(
          () => undefined,
          (e: unknown) => e,
        );
        expect(error).toBeInstanceOf(EngineError);
        for (const part of parts) expect((error as Error).message).toContain(part);
      };
      await refused(shardGradient(engine, tokens, tokens, 1, at, out), "setWeights");
      await refused(engine.setWeights(out.subarray(1)), "values", "expected");
      await engine.setWeights(lively(tiny));
      await refused(shardGradient(engine, tokens, tokens, 5, at, out), "5", "4");
      await refused(shardGradient(engine, tokens, tokens, 0, at, out), "0", "4");
      await refused(shardGradient(engine, tokens, tokens, 3, at, out), "8 ids", "3 rows");
      await refused(shardGradient(engine, ids(tiny, 9), ids(tiny, 9), 1, at, out), "9 ids", "8");
      await refused(shardGradient(engine, new Int32Array(0), new Int32Array(0), 1, at, out), "0 ids");
      await refused(shardGradient(engine, tokens, tokens.slice(1), 1, at, out), "7", "8");
      await refused(shardGradient(engine, tokens, tokens, 1, at, out.subarray(1)), "values", "expected");
      await refused(shardGradient(engine, tokens.with(3, 11), tokens, 1, at, out), "11", "3");
      await refused(shardGradient(engine, tokens, tokens.with(2, -1), 1, at, out), "-1", "2");
      await refused(engine.logits(tokens.with(3, 11), 1), "11", "3");
      await refused(engine.losses(tokens, tokens.with(0, 99), 1), "99", "0");
      await refused(engine.hidden(tokens, 3), "3");
      // And it still works.
      expect(await shardGradient(engine, tokens, tokens, 1, at, out)).toBeGreaterThan(0);
    });

    test("a model that does not fit the memory is refused before it starts", async () => {
      const model = { ...tiny, blockSize: 1024, nLayer: 12, nHead: 12, nEmbd: 768, vocabSize: 50257 };
      await expect(open(model, { maxRows: 64, memoryLimitBytes: 2 ** 30 })).rejects.toThrow(
        /MB.*1,024 MB|1,024 MB.*MB/,
      );
      const engine = await open(tiny);
      expect(engine.plannedBytes).toBeGreaterThan(4 * layoutOf(tiny).size);
    });
  });
}

async function flat(oracle: Awaited<ReturnType<typeof openOracle>>, prefix: string): Promise<Float32Array> {
  const layout = layoutOf(oracle.model);
  const out = new Float32Array(layout.size);
  for (const { name, offset } of layout.parameters) out.set(await oracle.floats(`${prefix}.${name}`), offset);
  return out;
}

/** nanoGPT's schedule: linear warm-up, then a cosine down to minLr. */
function learningRate(step: number, o: { lr: number; minLr: number; warmup: number; decaySteps: number }): number {
  if (step < o.warmup) return (o.lr * (step + 1)) / (o.warmup + 1);
  if (step > o.decaySteps) return o.minLr;
  const ratio = (step - o.warmup) / (o.decaySteps - o.warmup);
  return o.minLr + 0.5 * (1 + Math.cos(Math.PI * ratio)) * (o.lr - o.minLr);
}
