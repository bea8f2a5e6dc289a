// `--parts gpu`: GPT-2 124M in bf16 on the xla engine: speed, what a step is made of, bits across calls and engines.
// With a plugin of XLA and nothing else of Weft's installed (scripts/pack-gpu-bench.sh), so this imports no other engine.
import { scalarOps } from "../shared/arithmetic/vector.ts";
import type { ModelConfig } from "../shared/model.ts";
import type { Engine, EngineOptions } from "../worker/engine/contract.ts";
import { xla } from "../worker/engine/xla/kind.ts";
import { quickWeights } from "./settings.ts";

export interface GpuRow {
  readonly rows: number;
  /** Opening the engine: the program compiled, or read from the cache. */
  readonly openSeconds: number;
  /** Weights to the device, one shard on it, its gradient back. */
  readonly upMs: number;
  readonly computeMs: number;
  readonly downMs: number;
  readonly tokensPerSec: number;
  readonly teraflops: number;
  /** Of the chip's dense bf16 peak; undefined for a chip that is not in the list. */
  readonly ofPeak: number | undefined;
  readonly plannedBytes: number;
  /** Whether two calls, and another engine, gave the same bits. */
  readonly sameBits: boolean;
}

export const gpt2: ModelConfig = {
  family: "gpt2",
  vocabSize: 50_257,
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

/** Dense bf16 with float32 sums, TFLOP/s, by NVIDIA's data sheets. */
const peaks: readonly (readonly [RegExp, number])[] = [
  [/H200|H100.*(HBM3|SXM)/, 989],
  [/H100/, 756],
  [/B200/, 2250],
  [/A100/, 312],
  [/L40S/, 362],
  [/RTX 4090/, 165],
];

/** Forward and backward of a token, as nanoGPT counts them: 6 a weight (positions aside) and 12 L C T. */
function flopsPerToken({ nLayer: L, nEmbd: C, blockSize: T, vocabSize: V }: ModelConfig): number {
  return 6 * (12 * L * C * C + V * C) + 12 * L * C * T;
}

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[values.length >> 1]!;
}

/** @param model other than GPT-2 only to try the bench itself */
export async function measureGpu(
  rows: number,
  steps: number,
  device: "gpu" | "cpu" = "gpu",
  model: ModelConfig = gpt2,
): Promise<GpuRow & { device: string; arithmetic: string }> {
  const options: EngineOptions = { model, maxRows: rows, precision: "bf16", threads: 1, device };
  const weights = quickWeights(model);
  const out = new Float32Array(weights.length);
  // Three shards: one alone, and two as one lease; the difference is what the device computes.
  const ids = Int32Array.from({ length: 2 * rows * model.blockSize }, (_, i) => (i * 7919) % model.vocabSize);
  const shards = async (engine: Engine, count: number, step: number): Promise<number> => {
    const part = ids.subarray(0, count * rows * model.blockSize);
    const started = performance.now();
    await engine.gradient(part, part, rows, { seed: 1, step, first: 0, count }, out);
    return performance.now() - started;
  };
  const opened = performance.now();
  const engine = await xla.create(options);
  const openSeconds = (performance.now() - opened) / 1000;
  const [up, one, two]: [number[], number[], number[]] = [[], [], []];
  const digests = new Set<string>();
  for (let step = 0; step < steps + 2; step++) {
    const started = performance.now();
    await engine.setWeights(weights);
    const uploaded = performance.now() - started;
    const single = await shards(engine, 1, step);
    digests.add(scalarOps.digest(out));
    const double = await shards(engine, 2, step);
    if (step < 2) continue; // what is first is slower
    up.push(uploaded);
    one.push(single);
    two.push(double);
  }
  const { arithmetic, device: name, plannedBytes } = engine;
  await engine.dispose();
  const again = await xla.create(options);
  await again.setWeights(weights);
  await shards(again, 1, 0);
  digests.add(scalarOps.digest(out));
  await again.dispose();
  const computeMs = Math.max(0.001, median(two) - median(one));
  const tokensPerSec = (rows * model.blockSize) / (computeMs / 1000);
  const teraflops = (tokensPerSec * flopsPerToken(model)) / 1e12;
  const peak = peaks.find(([kind]) => kind.test(name))?.[1];
  return {
    ...{ device: name, arithmetic, rows, openSeconds, upMs: median(up), computeMs },
    ...{ downMs: Math.max(0, median(one) - computeMs), tokensPerSec, teraflops },
    ofPeak: peak && teraflops / peak,
    plannedBytes,
    sameBits: digests.size === 1,
  };
}

const number = (x: number): string => (x >= 100 ? Math.round(x).toLocaleString("en") : x.toPrecision(3));

/** The table, in Markdown. */
export async function benchGpu(rowCounts: readonly number[], steps = 20): Promise<void> {
  const { usable, why } = await xla.probe({ device: "gpu" });
  if (!usable) throw new Error(`bench: ${why}`);
  const cells = [
    "sequences",
    "open s",
    "up ms",
    "compute ms",
    "down ms",
    "tokens/s",
    "TFLOP/s",
    "of peak",
    "MB",
    "bits",
  ];
  let header = true;
  for (const rows of rowCounts) {
    const row = await measureGpu(rows, steps);
    if (header) {
      console.log(`\nGPT-2 124M, bf16, T 1024, one shard on one device: ${row.device}; ${row.arithmetic}\n`);
      console.log(`| ${cells.join(" | ")} |\n| ${cells.map(() => "---:").join(" | ")} |`);
      header = false;
    }
    const { openSeconds, upMs, computeMs, downMs, tokensPerSec, teraflops, ofPeak, plannedBytes, sameBits } = row;
    const share = ofPeak === undefined ? "?" : `${Math.round(100 * ofPeak)}%`;
    const numbers = [rows, openSeconds, upMs, computeMs, downMs, tokensPerSec, teraflops].map(number);
    const megabytes = Math.round(plannedBytes / 2 ** 20).toLocaleString("en");
    console.log(`| ${[...numbers, share, megabytes, sameBits ? "same" : "DIFFER"].join(" | ")} |`);
  }
}
