// Training steps compiled for GPUs that are not here, by XLA's CUDA plugin, and what is in them: kernels, types, buffers,
// memory. Nothing runs: about speed and bits on a GPU this says nothing. scripts/ci-xla.sh brings the plugin.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { layoutOf } from "../../../shared/family/layout.ts";
import type { ModelConfig } from "../../../shared/model.ts";
import { squaresProgram, updateProgram } from "../../../worker/engine/xla/adamw.ts";
import { compileOptions } from "../../../worker/engine/xla/compile-options.ts";
import { flagsOf } from "../../../worker/engine/xla/engine.ts";
import { openPlugin, pjrtAddon } from "../../../worker/engine/xla/pjrt.ts";
import { gradientProgram, type Traced } from "../../../worker/engine/xla/trace.ts";
import { addonFile } from "../../../worker/install/xla-addon.ts";
import { findPlugin } from "../../../worker/install/xla-plugin.ts";
import { flagsOf as hloFlags, instructionsOf } from "./hlo.ts";

const plugin = addonFile() ? findPlugin(true) : undefined;

test("XLA's CUDA plugin is there where it must be", () => {
  if (process.env.WEFT_REQUIRE_XLA) expect(plugin, 'run "weft install xla --cuda 12"').toBeDefined();
});

const gpt2: ModelConfig = {
  family: "gpt2",
  vocabSize: 50257,
  blockSize: 1024,
  nLayer: 12,
  nHead: 12,
  nEmbd: 768,
  bias: true,
  dropout: 0,
  activation: "gelu_tanh",
  tiedHead: true,
  layerNormEps: 1e-5,
};

/** A machine with one of these. */
const targetOf = (kind: "h100" | "a100") => ({
  target_config: readFileSync(join(import.meta.dirname, `targets/${kind}.txtpb`), "utf8"),
  topology: "1x1x1",
});

/** The step of one shard, compiled for a kind of GPU. */
async function compileFor(kind: "h100" | "a100", traced: Partial<Traced>, rows: number) {
  const pjrt = pjrtAddon();
  const handle = await openPlugin(plugin!);
  const model = traced.model ?? gpt2;
  const text = gradientProgram(
    { model, recompute: false, precision: "bf16", gpu: true, ...traced },
    rows,
    model.blockSize,
  );
  const started = performance.now();
  const executable = await pjrt.compileFor(handle, kind, targetOf(kind), text, compileOptions(flagsOf(plugin!)));
  const seconds = (performance.now() - started) / 1000;
  const memory = pjrt.memory(executable);
  const optimized = await pjrt.optimizedProgram(executable);
  const instructions = instructionsOf(optimized);
  // No kernel is chosen by a stopwatch, and none adds as it comes.
  expect(hloFlags(optimized)).toEqual({
    xla_gpu_deterministic_ops: 1n,
    xla_gpu_autotune_level: 0n,
    xla_gpu_enable_triton_gemm: 0n,
    xla_allow_excess_precision: 0n,
    xla_gpu_dot_merger_threshold_mb: 0n,
  });
  const gigabytes = (memory.temporary / 2 ** 30).toFixed(2);
  console.log(
    `${kind}, ${model.nLayer} x ${model.nEmbd}, ${rows} rows: ${seconds.toFixed(1)} s, ${gigabytes} GiB temporary`,
  );
  await pjrt.release([executable]);
  const calls = (target: string) => instructions.filter((one) => one.target === target);
  return { memory, instructions, calls };
}

describe.skipIf(!plugin)("compiled without a GPU (skipped without the plugin: weft install xla --cuda 12)", () => {
  test.each(["h100", "a100"] as const)("124M in bf16 for %s", async (kind) => {
    const rows = 8;
    const { memory, instructions, calls } = await compileFor(kind, {}, rows);
    // Attention by cuDNN in both directions, in every layer, and no T x T anywhere.
    expect(calls("__cudnn$fmhaSoftmax")).toHaveLength(12);
    const backward = calls("__cudnn$fmhaSoftmaxBackward");
    expect(backward).toHaveLength(12);
    // Said of each by ourselves: XLA says it of the first alone, and then does not find what it built for the others.
    for (const { config } of backward) expect(config).toContain('"force_deterministic":true');
    const stored = instructions.filter((one) => one.stored);
    expect(stored.filter(({ shape }) => /\[8,12,1024,1024\]/.test(shape))).toEqual([]);
    // All products of weights take bf16: 4 a layer, forward and twice backward, and the head's slices.
    const products = instructions.filter(({ target }) => /^__cublas/.test(target));
    expect(products.length).toBeGreaterThanOrEqual(4 * 3 * 12);
    for (const { operands } of products) expect(operands.slice(0, 2).join()).toMatch(/^bf16\[[\d,]+\],bf16\[[\d,]+\]$/);
    // GELU is part of the product before it, which keeps what it was of.
    expect(products.filter(({ config }) => config.includes('"BIAS_GELU_AUX"'))).toHaveLength(12);
    // So is the padding of the vocabulary in the head's, once a slice of 4,096 positions.
    const logits = products.filter(({ shape }) => shape.includes("bf16[4096,50688]"));
    expect(logits.map(({ config }) => config.includes('"epilogue":"BIAS"'))).toEqual([true, true]);
    // Logits never exist for a whole shard in float32.
    const largest = stored.flatMap(({ shape }) =>
      [...shape.matchAll(/f32\[([\d,]+)\]/g)].map(([, sizes]) =>
        sizes!
          .split(",")
          .map(Number)
          .reduce((a, b) => a * b),
      ),
    );
    expect(Math.max(...largest)).toBeLessThan(rows * 1024 * 50257);
    expect(Math.max(...largest)).toBeLessThanOrEqual(layoutOf(gpt2).size);
    // Embedding rows are written once each: nothing adds by atomics, and nothing is sorted but the ids.
    const scatters = instructions.filter(({ opcode }) => opcode === "scatter");
    expect(scatters.map(({ operands }) => operands[1])).toEqual(["s32[8192,1]"]);
    expect(memory.temporary).toBeLessThan(8 * 2 ** 30);
  });

  test.each([
    ["float32", '"operand_precision":["HIGHEST","HIGHEST"],"algorithm":"ALG_UNSET"'],
    ["tf32", '"algorithm":"ALG_DOT_TF32_TF32_F32"'],
  ] as const)("in %s every product says so, and there is no kernel of bf16", async (precision, said) => {
    const { instructions, calls } = await compileFor("h100", { precision, model: { ...gpt2, nLayer: 1 } }, 1);
    expect(calls("__cudnn$fmhaSoftmax")).toEqual([]);
    expect(instructions.filter(({ shape }) => shape.includes("bf16"))).toEqual([]);
    const products = instructions.filter(({ target }) => /^__cublas/.test(target));
    expect(products.length).toBeGreaterThanOrEqual(4 * 3);
    for (const { config } of products) expect(config).toContain(said);
    expect(instructions.filter(({ opcode }) => opcode === "dot")).toEqual([]);
  });

  test("AdamW's update for h100 rounds as IEEE has it, operation by operation", async () => {
    const folder = mkdtempSync(join(tmpdir(), "weft-ptx-"));
    try {
      // In place of NVIDIA's assembler, one that keeps what it is given.
      const { cudaData } = plugin!;
      mkdirSync(join(folder, "bin"));
      symlinkSync(join(cudaData!, "nvvm"), join(folder, "nvvm"));
      const assembler = [
        "#!/bin/sh",
        `for file in "$@"; do grep -q "^.version" "$file" 2>/dev/null && cat "$file" >> ${folder}/all.ptx; done`,
        `exec ${cudaData}/bin/ptxas "$@"`,
      ];
      writeFileSync(join(folder, "bin/ptxas"), assembler.join("\n"), { mode: 0o700 });
      const pjrt = pjrtAddon();
      const handle = await openPlugin(plugin!);
      const flags = compileOptions({ ...flagsOf(plugin!), xla_gpu_cuda_data_dir: folder });
      const operationsOf = async (program: string) => {
        writeFileSync(join(folder, "all.ptx"), "");
        await pjrt.release([await pjrt.compileFor(handle, "h100", targetOf("h100"), program, flags)]);
        const ptx = readFileSync(join(folder, "all.ptx"), "utf8");
        const floats = [...ptx.matchAll(/^\s*((?:fma|mul|add|sub|div|sqrt|rcp|cvt)\.\S*f(?:32|64)\S*)\s/gm)];
        return [...new Set(floats.map(([, operation]) => operation))].sort();
      };
      const model = { ...gpt2, nLayer: 1 };
      expect(await operationsOf(updateProgram(model))).toEqual([
        ...["add.rn.f32", "cvt.f64.f32", "cvt.rn.f32.f64", "div.rn.f64", "mul.rn.f32", "sqrt.rn.f64", "sub.rn.f32"],
      ]);
      expect(await operationsOf(squaresProgram(model))).toEqual(["add.rn.f64", "cvt.f64.f32", "mul.rn.f64"]);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test("checkpointActivations saves memory", async () => {
    const model = { ...gpt2, nLayer: 6, vocabSize: 256 };
    const [plain, less] = [
      await compileFor("h100", { model }, 8),
      await compileFor("h100", { model, recompute: true }, 8),
    ];
    expect(less.memory.temporary).toBeLessThan(0.5 * plain.memory.temporary);
    expect(less.calls("__cudnn$fmhaSoftmax")).toHaveLength(12);
  });

  test("1.5B in bf16 for h100, a shard of several passes", async () => {
    const model = { ...gpt2, nLayer: 48, nHead: 25, nEmbd: 1600 };
    const { memory, calls } = await compileFor("h100", { model, recompute: true }, 4);
    expect(calls("__cudnn$fmhaSoftmaxBackward")).toHaveLength(48);
    expect(memory.argument + memory.output + memory.temporary).toBeLessThan(75 * 2 ** 30);
  });
});
