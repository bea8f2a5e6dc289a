// The contract suite on XLA's CPU plugin, and what is the xla engine's own: bf16, devices, programs that are kept,
// memory. It needs `weft install xla --cpu`; scripts/ci-xla.sh runs it from a clean cache.
import { mkdtempSync, readdirSync, rmSync, truncateSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { codecOver, nodeRounding, scalarCodec } from "../../../shared/arithmetic/codec.ts";
import { scalarOps } from "../../../shared/arithmetic/vector.ts";
import { systemClock } from "../../../shared/clock.ts";
import { initialWeights } from "../../../shared/family/init.ts";
import { layoutOf } from "../../../shared/family/layout.ts";
import type { ModelConfig } from "../../../shared/model.ts";
import type { Engine, EngineOptions, LeasePosition } from "../../../worker/engine/contract.ts";
import { xla } from "../../../worker/engine/xla/kind.ts";
import { rowsPerPass } from "../../../worker/engine/xla/trace.ts";
import { openOracle } from "../../oracle.ts";
import { largest, worst } from "./compare.ts";
import { engineContract } from "./engine.contract.ts";
import { expectNoGrowth } from "./growth.ts";

const model: ModelConfig = {
  family: "gpt2",
  vocabSize: 65,
  blockSize: 16,
  nLayer: 1,
  nHead: 2,
  nEmbd: 16,
  bias: true,
  dropout: 0.2,
  activation: "gelu_tanh",
  tiedHead: true,
  layerNormEps: 1e-5,
};
const options: EngineOptions = { model, maxRows: 2, precision: "float32", threads: 1, device: "cpu" };
const { usable, why } = await xla.probe(options);

test("XLA's plugin is there where it must be", () => {
  if (process.env.WEFT_REQUIRE_XLA) expect(usable, why).toBe(true);
});

const weights = initialWeights(layoutOf(model), 1);
const tokens = Int32Array.from({ length: 8 * 2 * 16 }, (_, i) => (i * 31) % 65);
const lease = { seed: 5, step: 9, first: 0, count: 8 };

async function gradient(
  engine: Engine,
  at: LeasePosition = lease,
): Promise<{ digest: string; losses: number[] | undefined }> {
  const out = new Float32Array(weights.length);
  const part = tokens.subarray(at.first * 32, (at.first + at.count) * 32);
  const losses = await engine.gradient(part, part, 2, at, out);
  return { digest: scalarOps.digest(out), losses };
}

describe.skipIf(!usable)("on the CPU plugin (skipped without it: weft install xla --cpu)", () => {
  engineContract("xla", (asked) => xla.create({ ...asked, device: "cpu" }));

  test("1, 2, 3, 4 and 8 devices give the same bits, as do leases of any size", async () => {
    const digests = new Set<string>();
    const rounded = new Set<string>();
    const trained = new Set<string>();
    const optimizer = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, gradientClip: 1 };
    const steps = { at: { ...lease, count: 4 }, rows: 2, learningRates: [1e-2, 1e-2], updates: 0, optimizer };
    const round = nodeRounding(codecOver("int8", scalarCodec, scalarOps), { ...lease, units: 8 });
    for (const threads of [1, 2, 3, 4, 8]) {
      const engine = await xla.create({ ...options, threads });
      expect(engine.device).toContain(`${threads} device`);
      await engine.setWeights(weights);
      const whole = await gradient(engine);
      expect(whole.losses).toHaveLength(8);
      digests.add(JSON.stringify(whole));
      rounded.add(JSON.stringify(await gradient(engine, { ...lease, round })));
      const [m, v] = [new Float32Array(weights.length), new Float32Array(weights.length)];
      const state = { weights: weights.slice(), m, v };
      trained.add(JSON.stringify(await engine.train!(tokens, tokens, steps, state)) + scalarOps.digest(state.weights));
      await engine.setWeights(weights);
      for (const count of [1, 2, 4]) {
        const part = await gradient(engine, { ...lease, first: 4, count });
        expect(part.losses).toEqual(whole.losses!.slice(4, 4 + count));
      }
      await engine.dispose();
    }
    expect([digests.size, rounded.size, trained.size]).toEqual([1, 1, 1]);
  });

  test("a failing device ends the lease on all of them, and the next lease is whole", async () => {
    const engine = await xla.create({ ...options, threads: 4 });
    await engine.setWeights(weights);
    const before = await gradient(engine);
    let asked = 0;
    const out = new Float32Array(weights.length);
    expect(await engine.gradient(tokens, tokens, 2, lease, out, () => ++asked > 5)).toBeUndefined();
    expect(await gradient(engine)).toEqual(before);
    await engine.dispose();
  });

  test("weights that went up as they came are those that were set, whatever came in between", async () => {
    // More than one piece: 16.9 million parameters.
    const large: ModelConfig = { ...model, vocabSize: 2 ** 17, nEmbd: 128, dropout: 0 };
    const { size } = layoutOf(large);
    const engine = await xla.create({ ...options, model: large });
    const ids = Int32Array.from({ length: 16 }, (_, i) => i * 8111);
    const bitsOf = async () => scalarOps.digest(await engine.logits(ids, 1));
    const drawn = [0.05, 0.06].map((factor) => {
      const values = new Float32Array(size);
      for (let i = 0; i < size; i++) values[i] = factor * (((i * 7919) % 2001) / 1000 - 1);
      return values;
    });
    const expected: string[] = [];
    for (const values of drawn) {
      await engine.setWeights(values);
      expected.push(await bitsOf());
    }
    const arriving = new Float32Array(size);
    /** @param from where what has come before ends */
    const arrive = (which: 0 | 1, from: number, known: number) => {
      arriving.set(drawn[which]!.subarray(from, known), from);
      engine.foresee!(arriving, known);
    };
    arrive(0, 0, 1000);
    arrive(0, 1000, 2 ** 24 + 1000);
    arrive(0, 2 ** 24 + 1000, size);
    await engine.setWeights(arriving);
    expect(await bitsOf()).toBe(expected[0]);
    // Overtaken by others in the same array, and by some that nobody told of.
    arrive(0, 0, 2 ** 24);
    arrive(1, 0, 1000);
    arrive(1, 1000, size);
    await engine.setWeights(arriving);
    expect(await bitsOf()).toBe(expected[1]);
    arrive(1, 0, size);
    await engine.setWeights(drawn[0]!);
    expect(await bitsOf()).toBe(expected[0]);
    arrive(0, 0, 2 ** 24);
    engine.foresee!(arriving, 0);
    await engine.setWeights(drawn[1]!);
    expect(await bitsOf()).toBe(expected[1]);
    arrive(0, 0, 2 ** 24);
    await engine.dispose();
  });

  test("who will train by itself has room for AdamW's moments, or is told that there is none", async () => {
    const planned = async (more: Partial<EngineOptions>) => {
      const engine = await xla.create({ ...options, ...more });
      await engine.dispose();
      return engine.plannedBytes;
    };
    const [alone, training] = [await planned({}), await planned({ trainsLocally: true })];
    expect(training - alone).toBe(9 * layoutOf(model).size);
    const memoryLimitBytes = training - 1;
    expect(await planned({ memoryLimitBytes })).toBe(alone);
    await expect(planned({ memoryLimitBytes, trainsLocally: true })).rejects.toThrow(/need about .* the limit is/);
  });

  // Products round their inputs to 8 bits: a relative error of 2^-9 each, of which hundreds average out.
  test("bf16 stays near the oracles", async () => {
    for (const file of ["gpt2-tiny", "gpt1-tiny"]) {
      const oracle = await openOracle(file);
      const layout = layoutOf(oracle.model);
      const [, B, T] = oracle.shape("input.tokens") as [number, number, number];
      const engine = await xla.create({ ...options, model: oracle.model, maxRows: B, precision: "bf16" });
      expect(engine.arithmetic).toMatch(/^xla \d+ xla-cpu-pjrt .* bf16 on /);
      const start = new Float32Array(layout.size);
      for (const { name, offset } of layout.parameters) start.set(await oracle.floats(`param.${name}`), offset);
      await engine.setWeights(start);
      const [input, targets] = await Promise.all(["input.tokens", "input.targets"].map((name) => oracle.ints(name)));
      const out = new Float32Array(layout.size);
      const range = [0, B * T] as const;
      const at = { seed: 1, step: 0, first: 0, count: 1 };
      const losses = await engine.gradient(input!.subarray(...range), targets!.subarray(...range), B, at, out);
      expect(Math.abs(losses![0]! - oracle.meta<number>("loss"))).toBeLessThan(5e-3);
      let far = 0;
      for (const { name, offset, size } of layout.parameters) {
        const expected = await oracle.floats(`grad.${name}`);
        const { difference } = worst(out.subarray(offset, offset + size), expected);
        far = Math.max(far, difference / largest(expected));
      }
      // Not float32 by another name, and no further away than rounding takes it.
      expect(far).toBeGreaterThan(1e-4);
      expect(far).toBeLessThan(0.05);
      await engine.dispose();
    }
  });

  // All but attention, which has too few positions here for cuDNN: heads' tables are padded, rows read once, GELU rewritten.
  test.each(["float32", "bf16"] as const)("%s: what a GPU is given means the same", async (precision) => {
    const { pluginFor, flagsOf } = await import("../../../worker/engine/xla/engine.ts");
    const { openClient } = await import("../../../worker/engine/xla/pjrt.ts");
    const { compileOptions } = await import("../../../worker/engine/xla/compile-options.ts");
    const { gradientProgram } = await import("../../../worker/engine/xla/trace.ts");
    const plugin = pluginFor(options)!;
    const { pjrt, handle } = await openClient(plugin, { cpu_device_count: 1 });
    const large = { ...model, vocabSize: 4999, nEmbd: 64, nHead: 2, dropout: 0, activation: "gelu_tanh" as const };
    const layout = layoutOf(large);
    const [B, T] = [16, 8];
    const start = initialWeights(layout, 3).map((x, i) => 3 * x + 0.05 * Math.sin(i));
    const tokens = Int32Array.from({ length: B * T }, (_, i) => (i * 7919) % 4999);
    const targets = Int32Array.from({ length: B * T }, (_, i) => (i === 0 ? 4998 : (i * 31) % 4999));
    const inputs = [start, tokens, targets, new Uint32Array(4)];
    const computed = async (gpu: boolean) => {
      const program = gradientProgram({ model: large, recompute: false, precision, gpu }, B, T);
      const compiled = await pjrt.compile(handle, program, compileOptions(flagsOf(plugin)));
      const buffers = await Promise.all(inputs.map((input) => pjrt.upload(handle, input, [input.length], 0)));
      const results = await pjrt.execute(compiled, buffers, 0);
      const [losses, gradient] = [new Float32Array(B * T), new Float32Array(layout.size)];
      await pjrt.download(results[0]!, losses);
      await pjrt.download(results[1]!, gradient);
      await pjrt.release([...buffers, ...results, compiled]);
      return { losses, gradient };
    };
    const [plain, gpu] = [await computed(false), await computed(true)];
    const near = precision === "bf16" ? 0.03 : 2e-6;
    expect(worst(gpu.losses, plain.losses).difference).toBeLessThan(near * largest(plain.losses));
    for (const { name, offset, size } of layout.parameters) {
      const expected = plain.gradient.subarray(offset, offset + size);
      const { difference } = worst(gpu.gradient.subarray(offset, offset + size), expected);
      expect([name, difference / largest(expected)]).toEqual([name, expect.toSatisfy((x: number) => x < near)]);
    }
  });

  test("a program is compiled once; one that was cut short is compiled again", async () => {
    const cache = process.env.WEFT_CACHE_DIR;
    const plugin = process.env.WEFT_XLA_PLUGIN;
    const { pluginFor } = await import("../../../worker/engine/xla/engine.ts");
    const { executable } = await import("../../../worker/engine/xla/executables.ts");
    const { openClient } = await import("../../../worker/engine/xla/pjrt.ts");
    const client = await openClient(pluginFor(options)!, { cpu_device_count: 1 });
    const folder = mkdtempSync(join(tmpdir(), "weft-programs-"));
    try {
      process.env.WEFT_CACHE_DIR = folder;
      let compiled = 0;
      const counting = {
        ...client,
        pjrt: Object.assign(Object.create(client.pjrt), {
          compile: (...args: Parameters<typeof client.pjrt.compile>) => {
            compiled++;
            return client.pjrt.compile(...args);
          },
        }),
      };
      const program =
        "func.func public @main(%0: tensor<2xf32>) -> tensor<2xf32> { %1 = stablehlo.add %0, %0 : tensor<2xf32> return %1 : tensor<2xf32> }";
      const said: string[] = [];
      // As if compiling took more than a second: the timer has run out when XLA is done.
      const after = (_: number, act: () => void) => {
        act();
        return { cancel() {} };
      };
      const clock = { ...systemClock, now: () => 0, after };
      for (const times of [1, 1]) {
        await executable(counting, program, {}, { what: "a sum", note: (line) => said.push(line), clock });
        expect(compiled).toBe(times);
      }
      expect(said).toEqual([
        "XLA compiles a sum; the next start finds it in the cache",
        "XLA compiled a sum in 0.0 s",
        "XLA: a sum came from the cache in 0.0 s",
      ]);
      const programs = join(folder, "xla-programs");
      const [name] = readdirSync(programs) as [string];
      truncateSync(join(programs, name), 100);
      await executable(counting, program, {});
      expect(compiled).toBe(2);
      await expect(executable(counting, "no program", {})).rejects.toThrow(/XLA does not compile the program: .*error/);
    } finally {
      rmSync(folder, { recursive: true });
      delete process.env.WEFT_CACHE_DIR;
      if (cache) process.env.WEFT_CACHE_DIR = cache;
      if (plugin) process.env.WEFT_XLA_PLUGIN = plugin;
    }
  });

  test("500 steps, and a thousand engines opened and closed, leave no memory behind", async () => {
    const small = { ...options, model: { ...model, dropout: 0 } };
    const step = async (engine: Engine) => {
      await engine.setWeights(weights);
      await gradient(engine);
    };
    const engine = await xla.create(small);
    const open = async () => (await xla.create(small)).dispose();
    /** Resident bytes after each hundred. */
    const after = async (hundreds: number, work: () => Promise<void>): Promise<number[]> => {
      const bytes: number[] = [];
      for (let i = 1; i <= 100 * hundreds; i++) {
        await work();
        if (i % 100 === 0) bytes.push(process.memoryUsage().rss);
      }
      return bytes;
    };
    // A hundred lost gradients would be 25 MB and more with their shards.
    expectNoGrowth(await after(5, () => step(engine)));
    expectNoGrowth(await after(10, open));
    await engine.dispose();
  });
});

test("a shard is cut into passes by the model alone", () => {
  const gpt2 = { ...model, nLayer: 12, nHead: 12, nEmbd: 768, vocabSize: 50257 };
  expect(rowsPerPass(gpt2, 64, 1024)).toBe(16);
  expect(rowsPerPass(gpt2, 12, 1024)).toBe(12);
  expect(rowsPerPass({ ...gpt2, nLayer: 48, nEmbd: 1600 }, 9, 1024)).toBe(3);
  expect(rowsPerPass({ ...gpt2, nLayer: 1000, nEmbd: 12_288 }, 4, 8192)).toBe(1);
});
