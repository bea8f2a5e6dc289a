// `npm run bench`: one command, one set of tables, JSON beside it. Training speed of the engines against nanoGPT's
// model.py on PyTorch in the same run, generation against the memory's read rate, and the streaming arithmetic.
//
//   npm run bench -- --nanogpt DIR [--python PYTHON]... [--rounds 5] [--settings a,b,c] [--threads 1,2]
//                    [--precisions float32,bf16] [--parts training,core,generation,streaming,tokenizer,coordinator,memory,run,gpu] [--json FILE]
//
// `bash scripts/bench-pytorch-setup.sh` makes the Python environments and prints the --python arguments.
import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { dirname, resolve } from "node:path";
import { nativeAddon, nativeStatus } from "../shared/arithmetic/native.ts";
import { type CoordinatorRow, measureCoordinator } from "./coordinator.ts";
import { flagsOf } from "./flags.ts";
import { type GenerationRow, measureGeneration } from "./generation.ts";
import { benchGpu } from "./gpu.ts";
import { type MemoryRow, measureMemory } from "./memory.ts";
import { measurePeak, type PeakRow, readRate } from "./peak.ts";
import { measureRuns, type RunRow } from "./run.ts";
import { settings } from "./settings.ts";
import { measureStreaming, type StreamingRow } from "./streaming.ts";
import { measureTokenizer, type TokenizerRow } from "./tokenizer.ts";
import { measureOneCore, measureTraining, type Peers, type TrainingRow } from "./training.ts";

const values = flagsOf("npm run bench --", {
  nanogpt: { type: "string" },
  python: { type: "string", multiple: true, default: ["/usr/bin/python3"] },
  rounds: { type: "string", default: "5" },
  settings: { type: "string", default: "a,b,c" },
  threads: { type: "string", default: "1,2" },
  precisions: { type: "string", default: "float32,bf16" },
  parts: { type: "string", default: "training,core,generation,streaming,tokenizer,coordinator,run" },
  json: { type: "string", default: "runs/bench.json" },
});
const list = (text: string) => text.split(",");
const parts = new Set(list(values.parts));
const rounds = Number(values.rounds);
const threadCounts = list(values.threads).map(Number);
const precisions = list(values.precisions) as ("float32" | "bf16")[];

if (parts.has("gpu")) {
  await benchGpu([8, 16, 32], values.python[0]!);
  if (parts.size === 1) process.exit(0);
}

const addon = nativeAddon();
if (!addon) {
  console.error(`bench: ${nativeStatus().why}`);
  process.exit(1);
}

const has = (python: string, module: string, remedy: string) => {
  try {
    execFileSync(python, ["-c", `import ${module}`], { stdio: "ignore" });
    return true;
  } catch {
    console.log(`${python} has no ${module}: left out (${remedy})`);
    return false;
  }
};
const hasTorch = (python: string) => has(python, "torch", "bash scripts/bench-pytorch-setup.sh makes one");
const peers: Peers = {
  nanogpt: values.nanogpt && resolve(values.nanogpt),
  pythons: values.nanogpt ? values.python.filter(hasTorch) : [],
};
if (!peers.nanogpt) console.log("no --nanogpt DIR (a checkout of karpathy/nanoGPT): the PyTorch columns are left out");

/** A table in Markdown, numbers to the right. */
function table(title: string, header: readonly string[], rows: readonly (readonly string[])[]): void {
  const widths = header.map((name, i) => Math.max(name.length, ...rows.map((row) => row[i]!.length)));
  const line = (cells: readonly string[]) => `| ${cells.map((cell, i) => cell.padStart(widths[i]!)).join(" | ")} |`;
  console.log(`\n${title}\n`);
  console.log([line(header), line(widths.map((width) => `${"-".repeat(width - 1)}:`)), ...rows.map(line)].join("\n"));
}

const machine = {
  cpu: `${cpus()[0]!.model}, ${cpus().length} cores, ${Math.round(totalmem() / 2 ** 30)} GB`,
  instructionSet: nativeStatus().isa,
  system: `${process.platform} ${release()}, Node ${process.version}`,
  date: new Date().toISOString().slice(0, 16),
  command: `npm run bench -- ${process.argv.slice(2).join(" ")}`,
};
console.log(Object.values(machine).join("\n"));
const result: {
  machine: typeof machine;
  peaks: PeakRow[];
  readGbPerSec: Record<number, number>;
  training: TrainingRow[];
  oneCore: { threads: number; stepMs: number }[];
  generation: GenerationRow[];
  streaming: StreamingRow[];
  tokenizer: TokenizerRow[];
  coordinator: CoordinatorRow[];
  memory: MemoryRow[];
  runs: RunRow[];
} = {
  machine,
  peaks: [],
  readGbPerSec: {},
  training: [],
  oneCore: [],
  generation: [],
  streaming: [],
  tokenizer: [],
  coordinator: [],
  memory: [],
  runs: [],
};

const number = (x: number) => (x >= 100 ? Math.round(x).toLocaleString("en") : x.toPrecision(3));
const percent = (x: number) => `${Math.round(100 * x)}%`;

if (parts.has("training")) {
  result.peaks = await measurePeak(threadCounts, precisions, peers);
  table(
    "Matrix product of 1,536 x 1,536, the best of several: the peak that the next table's shares are of",
    ["precision", "threads", "by", "GFLOP/s"],
    result.peaks.map((p) => [p.precision, String(p.threads), p.who, number(p.gflops)]),
  );
  const peakOf = (precision: string, threads: number) =>
    Math.max(...result.peaks.filter((p) => p.precision === precision && p.threads === threads).map((p) => p.gflops));
  for (const setting of settings.filter(({ name }) => list(values.settings).includes(name)))
    for (const precision of precisions)
      for (const threads of threadCounts)
        result.training.push(...(await measureTraining(setting, precision, threads, rounds, peers)));
  const nativeOf = (row: TrainingRow) =>
    result.training.find(
      (other) =>
        other.contestant.startsWith("native") &&
        other.setting === row.setting &&
        other.precision === row.precision &&
        other.threads === row.threads,
    )!;
  table(
    "Training: weights in, forward, backward (the gradient), clip, AdamW; medians of runs in turns; shares of the matmul peak",
    ["setting", "precision", "threads", "contestant", "tokens/s", "native is", "of peak", "gradient alone", "memory"],
    result.training.map((row) => [
      row.setting,
      row.precision,
      String(row.threads),
      row.contestant,
      number(row.tokensPerSec),
      `${(nativeOf(row).tokensPerSec / row.tokensPerSec).toFixed(2)}x`,
      percent(row.gflops / peakOf(row.computes, row.threads)),
      percent(row.gradientGflops / peakOf(row.computes, row.threads)),
      `${Math.round(row.peakBytes / 2 ** 20)} MB`,
    ]),
  );
}

if (parts.has("core") && process.platform === "linux") {
  result.oneCore = await measureOneCore(rounds);
  table(
    "Setting a in float32 on one core (taskset -c 0)",
    ["threads", "ms a step", "of one thread's"],
    result.oneCore.map((row) => [
      String(row.threads),
      number(row.stepMs),
      percent(row.stepMs / result.oneCore[0]!.stepMs),
    ]),
  );
}

if (parts.has("generation")) {
  for (const threads of threadCounts) {
    result.readGbPerSec[threads] = readRate(threads);
    for (const precision of precisions)
      for (const rows of [1, 8])
        result.generation.push(await measureGeneration(precision, threads, rows, result.readGbPerSec[threads]!));
  }
  table(
    "Generation with setting c; the limit is the memory's read rate over the bytes of the weights, for one sequence",
    ["precision", "threads", "sequences", "tokens/s", "limit", "of limit", "read GB/s"],
    result.generation.map((row) => [
      row.precision,
      String(row.threads),
      String(row.rows),
      number(row.tokensPerSec),
      number(row.limit),
      percent(row.tokensPerSec / row.limit),
      number(result.readGbPerSec[row.threads]!),
    ]),
  );
}

if (parts.has("streaming")) {
  result.streaming = measureStreaming(addon, threadCounts, 7);
  table(
    "Streaming over 124,439,808 floats",
    ["operation", "by", "threads", "ms", "GB/s"],
    result.streaming.map((row) => [row.operation, row.who, String(row.threads), number(row.ms), number(row.gbPerSec)]),
  );
}

if (parts.has("tokenizer")) {
  const pythons = values.python.filter((python) => has(python, "tiktoken", "pip install tiktoken into it"));
  result.tokenizer = await measureTokenizer(threadCounts, rounds, pythons);
  const weftAt = (row: TokenizerRow) =>
    result.tokenizer.find(
      ({ who, text, threads }) => who.startsWith("Weft") && text === row.text && threads === row.threads,
    )!;
  table(
    "GPT-2's tokenizer on the second half of a text, after the first; medians of runs in turns",
    ["text", "threads", "by", "tokens/s", "MB/s", "Weft is", "tokens a second of CPU", "Weft is"],
    result.tokenizer.map((row) => [
      row.text,
      String(row.threads),
      row.who,
      number(row.tokensPerSec),
      row.mbPerSec.toFixed(1),
      `${(weftAt(row).tokensPerSec / row.tokensPerSec).toFixed(2)}x`,
      number(row.tokensPerCpuSec),
      `${(weftAt(row).tokensPerCpuSec / row.tokensPerCpuSec).toFixed(2)}x`,
    ]),
  );
}

if (parts.has("coordinator") && process.platform === "linux") {
  for (const [workers, shards] of [...[1, 2, 16, 48].map((n) => [n, 64]), ...[64, 256, 1024].map((n) => [n, 1024])])
    result.coordinator.push(await measureCoordinator(workers!, shards!));
  table(
    "The coordinator alone: workers that answer at once, over sockets of this machine; a character bigram",
    ["workers", "shards", "steps/s", "its CPU, ms a step", "KB a step", "its memory"],
    result.coordinator.map((row) => [
      String(row.workers),
      String(row.shards),
      number(row.stepsPerSec),
      number(row.cpuMs),
      number(row.bytesPerStep / 1000),
      `${Math.round(row.residentBytes / 2 ** 20)} MB`,
    ]),
  );
}

if (parts.has("memory") && process.platform === "linux") {
  for (const wire of ["float32", "int8"] as const) result.memory.push(await measureMemory(64, wire));
  table(
    "Memory of the coordinator: workers of a large model whose answers set out together, two steps",
    ["workers", "parameters", "wire", "seconds", "its memory"],
    result.memory.map((row) => [
      String(row.workers),
      row.parameters.toLocaleString("en"),
      row.wire,
      number(row.seconds),
      `${(row.residentBytes / 1e9).toFixed(1)} GB`,
    ]),
  );
}

if (parts.has("run") && peers.nanogpt) {
  result.runs = await measureRuns(peers, Math.min(rounds, 3));
  table(
    "End to end: setting a, steps 100 to 500 of the whole program, two cores; medians of runs in turns",
    ["program", "tokens/s", "Weft is"],
    result.runs.map((row) => [
      row.who,
      number(row.tokensPerSec),
      `${(result.runs[0]!.tokensPerSec / row.tokensPerSec).toFixed(2)}x`,
    ]),
  );
}

mkdirSync(dirname(values.json), { recursive: true });
writeFileSync(values.json, `${JSON.stringify(result, null, 2)}\n`);
console.log(`\nwritten to ${values.json}`);
