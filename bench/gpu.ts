// `--parts gpu`: GPT-2 124M in bf16 on the xla engine: speed, what a step is made of, bits across calls, engines and runs;
// then the same model in PyTorch (gpt2.py). Every measurement is a process of its own, so that none holds the GPU's memory
// while another runs. With a plugin of XLA and nothing else of Weft's installed (scripts/pack-gpu-bench.sh), so this
// imports no other engine.
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { scalarOps } from "../shared/arithmetic/vector.ts";
import { messageOf } from "../shared/errors.ts";
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
  /** Of the gradient; "differ" where two calls, or another engine of the process, gave other bits. */
  readonly digest: string;
  readonly device: string;
  readonly arithmetic: string;
}

/** Where a table is made: on a CPU a small model shows that the bench runs, and nothing else. */
export type BenchDevice = "gpu" | "cpu";

const gpt2: ModelConfig = {
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

const models: Readonly<Record<BenchDevice, ModelConfig>> = {
  gpu: gpt2,
  cpu: { ...gpt2, vocabSize: 512, blockSize: 64, nLayer: 2, nHead: 2, nEmbd: 64 },
};
/** Steps that are measured. */
const steps = 10;
/** Leases whose shards the device computes without a pause: what one has more than the other is computing alone. */
const [short, long] = [4, 16];

export async function measureGpu(rows: number, on: BenchDevice): Promise<GpuRow> {
  const model = models[on];
  const options: EngineOptions = { model, maxRows: rows, precision: "bf16", threads: 1, device: on };
  const weights = quickWeights(model);
  const out = new Float32Array(weights.length);
  const ids = Int32Array.from({ length: long * rows * model.blockSize }, (_, i) => (i * 7919) % model.vocabSize);
  const shards = async (engine: Engine, count: number, step: number): Promise<number> => {
    const part = ids.subarray(0, count * rows * model.blockSize);
    const started = performance.now();
    await engine.gradient(part, part, rows, { seed: 1, step, first: 0, count }, out);
    return performance.now() - started;
  };
  const opened = performance.now();
  const engine = await xla.create(options);
  const openSeconds = (performance.now() - opened) / 1000;
  const times = { up: [] as number[], one: [] as number[], short: [] as number[], long: [] as number[] };
  const digests = new Set<string>();
  for (let step = 0; step < steps + 2; step++) {
    const started = performance.now();
    await engine.setWeights(weights);
    const uploaded = performance.now() - started;
    const single = await shards(engine, 1, step);
    digests.add(scalarOps.digest(out));
    const few = await shards(engine, short, step);
    const many = await shards(engine, long, step);
    if (step < 2) continue; // what is first is slower
    times.up.push(uploaded);
    times.one.push(single);
    times.short.push(few);
    times.long.push(many);
  }
  const { arithmetic, device, plannedBytes } = engine;
  await engine.dispose();
  const again = await xla.create(options);
  await again.setWeights(weights);
  await shards(again, 1, 0);
  digests.add(scalarOps.digest(out));
  await again.dispose();
  const computeMs = Math.max(0.001, (median(times.long) - median(times.short)) / (long - short));
  const tokensPerSec = (rows * model.blockSize) / (computeMs / 1000);
  const teraflops = (tokensPerSec * flopsPerToken(model)) / 1e12;
  const peak = peaks.find(([kind]) => kind.test(device))?.[1];
  return {
    ...{ device, arithmetic, rows, openSeconds, upMs: median(times.up), computeMs },
    ...{ downMs: Math.max(0, median(times.one) - computeMs), tokensPerSec, teraflops },
    ofPeak: peak && teraflops / peak,
    plannedBytes,
    digest: digests.size === 1 ? [...digests][0]! : "differ",
  };
}

/** What gpt2.py says of one measurement. */
interface PeerRow {
  readonly peer: string;
  readonly rows: number;
  readonly ms: number;
  readonly peakBytes: number;
}

const number = (x: number): string => (x >= 100 ? Math.round(x).toLocaleString("en") : x.toPrecision(3));
const megabytes = (bytes: number): string => Math.round(bytes / 2 ** 20).toLocaleString("en");
const line = (cells: readonly string[]): void => console.log(`| ${cells.join(" | ")} |`);
function heading(...cells: string[]): void {
  console.log("");
  line(cells);
  line(cells.map(() => "---:"));
}

const run = promisify(execFile);

/** What a program prints as lines of JSON. @throws with the last line of its complaint */
async function answerOf<T>(program: string, args: readonly string[]): Promise<T[]> {
  try {
    const { stdout } = await run(program, [...args], { timeout: 240_000, maxBuffer: 2 ** 24 });
    return stdout.split("\n").flatMap((text) => (text.startsWith("{") ? [JSON.parse(text) as T] : []));
  } catch (error) {
    const { stderr = "", killed = false } = error as { stderr?: string; killed?: boolean };
    throw new Error(killed ? "no answer within 240 s" : (stderr.trim().split("\n").at(-1) ?? messageOf(error)));
  }
}

/** Both runs of a measurement; the second finds its programs in the cache. */
async function twoRuns(rows: number, on: BenchDevice): Promise<[GpuRow, GpuRow]> {
  const args = [join(import.meta.dirname, "gpu-main.js"), "--measure", String(rows), "--device", on];
  const [first] = await answerOf<GpuRow>(process.execPath, args);
  const [second] = await answerOf<GpuRow>(process.execPath, args);
  return [first!, second!];
}

/**
 * The tables, in Markdown.
 * @param python one with PyTorch; "": none
 */
export async function benchGpu(rowCounts: readonly number[], python: string, on: BenchDevice = "gpu"): Promise<void> {
  const { usable, why } = await xla.probe({ device: on });
  if (!usable) throw new Error(`bench: ${why}`);
  const name = on === "gpu" ? "GPT-2 124M" : "a small model, only to try the bench";
  console.log(`${name}, bf16, T ${models[on].blockSize}, a shard of a long lease on one device: forward and backward`);
  heading(
    "sequences",
    "open s",
    "again s",
    "up ms",
    "compute ms",
    "down ms",
    "tokens/s",
    "TFLOP/s",
    "of peak",
    "MB",
    "bits",
  );
  const speeds = new Map<number, number>();
  const notes = new Set<string>();
  for (const rows of rowCounts) {
    try {
      const [first, second] = await twoRuns(rows, on);
      const { upMs, computeMs, downMs, tokensPerSec, teraflops, ofPeak, plannedBytes, digest } = second;
      speeds.set(rows, tokensPerSec);
      notes.add(`${second.device}; ${second.arithmetic}`);
      const share = ofPeak === undefined ? "?" : `${Math.round(100 * ofPeak)}%`;
      const numbers = [first.openSeconds, second.openSeconds, upMs, computeMs, downMs, tokensPerSec, teraflops];
      const bits = first.digest === digest && digest !== "differ" ? digest.slice(0, 8) : "DIFFER";
      line([String(rows), ...numbers.map(number), share, megabytes(plannedBytes), bits]);
    } catch (error) {
      line([String(rows), messageOf(error)]);
    }
  }
  for (const note of notes) console.log(`\n${note}`);
  if (python === "") return;
  heading("PyTorch", "sequences", "ms", "tokens/s", "Weft is", "MB");
  const tasks = ["eager", "compiled"].flatMap((how) => [...speeds].map(([rows, speed]) => ({ how, rows, speed })));
  for (const { how, rows, speed } of tasks) {
    const asked = JSON.stringify({ model: models[on], rows, steps, how, device: on === "gpu" ? "cuda" : "cpu" });
    try {
      const [row] = await answerOf<PeerRow>(python, [join(import.meta.dirname, "../../bench/gpt2.py"), asked]);
      const { peer, ms, peakBytes } = row!;
      const tokensPerSec = (rows * models[on].blockSize) / (ms / 1000);
      const ratio = `${(speed / tokensPerSec).toFixed(2)}x`;
      line([peer, String(rows), number(ms), number(tokensPerSec), ratio, megabytes(peakBytes)]);
    } catch (error) {
      line([how, String(rows), messageOf(error)]);
    }
  }
}
