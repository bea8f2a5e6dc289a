// Training steps of every contestant on one setting, in turns A B C A B C, so that whatever else the machine does hits
// all alike; medians and ratios of the same run.
import { join } from "node:path";
import { inSoftware, webgpu } from "../worker/engine/tfjs/webgpu.ts";
import { xla } from "../worker/engine/xla/kind.ts";
import { findAddon } from "../worker/install/build.ts";
import { Child } from "./child.ts";
import type { Contest } from "./contestant.ts";
import { flopsPerToken, type Setting, tokensOf } from "./settings.ts";

export interface TrainingRow {
  readonly setting: string;
  readonly precision: Contest["precision"];
  readonly threads: number;
  readonly contestant: string;
  /** Of the contestant: float32 for the PyTorch that bf16 is measured against, too. */
  readonly computes: Contest["precision"];
  readonly tokensPerSec: number;
  readonly gflops: number;
  /** Of forward and backward alone. */
  readonly gradientGflops: number;
  readonly peakBytes: number;
  readonly stepMs: number;
}

/** Folder of the sources: bench/ of the package, whose dist/bench/ this file runs in. */
export const sources = join(import.meta.dirname, "../../bench");

export interface Peers {
  readonly nanogpt: string | undefined;
  /** Python interpreters that have PyTorch. */
  readonly pythons: readonly string[];
}

interface Answer {
  readonly seconds: number[];
  readonly gradientSeconds: number[];
  readonly peakBytes: number;
}

/** Of one step. */
const gflopOf = (setting: Setting) => (flopsPerToken(setting) * tokensOf(setting)) / 1e9;

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

export function startPyTorch(
  python: string,
  peers: Peers,
  setting: Setting,
  threads: number,
  precision: Contest["precision"],
) {
  const contest = JSON.stringify({ ...setting, threads, precision });
  return Child.start(python, [join(sources, "nanogpt.py"), peers.nanogpt!, contest], threads);
}

function startEngine(contest: Contest): Promise<Child> {
  return Child.start(
    process.execPath,
    [join(import.meta.dirname, "contestant.js"), JSON.stringify(contest)],
    contest.threads,
  );
}

/**
 * Milliseconds of a step of setting a when one core has to do: the cost of more threads than cores, which is what
 * several workers on one machine are to each other. Linux only (taskset).
 */
export async function measureOneCore(rounds: number): Promise<{ threads: number; stepMs: number }[]> {
  const children: { threads: number; child: Child; seconds: number[] }[] = [];
  try {
    for (const threads of [1, 2]) {
      const contest: Contest = { setting: "a", engine: "native", precision: "float32", threads };
      const program = [process.execPath, join(import.meta.dirname, "contestant.js"), JSON.stringify(contest)];
      children.push({ threads, child: await Child.start("taskset", ["-c", "0", ...program], threads), seconds: [] });
    }
    for (let round = 0; round < rounds; round++)
      for (const { child, seconds } of children)
        seconds.push(...(await child.ask<{ seconds: number[] }>({ steps: 10 })).seconds);
    return children.map(({ threads, seconds }) => ({ threads, stepMs: median(seconds) * 1e3 }));
  } finally {
    for (const { child } of children) child.stop();
  }
}

/** A step of setting a takes a driver in software 13 s; one of b would take minutes. */
async function webgpuCompetes({ name, model, rows }: Setting, precision: Contest["precision"], threads: number) {
  const { usable } = await webgpu.probe({ model, maxRows: rows, precision, threads, device: "auto" });
  return usable && (name === "a" || !(await inSoftware()));
}

/**
 * The medians of one cell of the table: a setting, a precision and a number of threads, for every contestant; bf16 also
 * against PyTorch in float32.
 */
export async function measureTraining(
  setting: Setting,
  precision: Contest["precision"],
  threads: number,
  rounds: number,
  peers: Peers,
): Promise<TrainingRow[]> {
  const children: Child[] = [];
  const inFloat32 = new Set<Child>();
  try {
    const contest = { setting: setting.name, precision, threads };
    children.push(await startEngine({ ...contest, engine: "native" }));
    for (const python of peers.pythons) {
      children.push(await startPyTorch(python, peers, setting, threads, precision));
      if (precision === "float32") continue;
      const child = await startPyTorch(python, peers, setting, threads, "float32");
      inFloat32.add(child);
      children.push(child);
    }
    if (precision === "float32") children.push(await startEngine({ ...contest, engine: "tfjs", backend: "wasm" }));
    if (findAddon(false)) children.push(await startEngine({ ...contest, engine: "tfjs", backend: "tensorflow" }));
    if ((await xla.probe({ device: "cpu" })).usable) children.push(await startEngine({ ...contest, engine: "xla" }));
    if (await webgpuCompetes(setting, precision, threads))
      children.push(await startEngine({ ...contest, engine: "tfjs", backend: "webgpu" }));

    const seconds: number[][] = children.map(() => []);
    const gradientSeconds: number[][] = children.map(() => []);
    const peakBytes: number[] = children.map(() => 0);
    const steps: number[] = [];
    for (let round = 0; round < rounds; round++)
      for (const [i, child] of children.entries()) {
        const answer = await child.ask<Answer>({ steps: steps[i] ?? 1 });
        seconds[i]!.push(...answer.seconds);
        gradientSeconds[i]!.push(...answer.gradientSeconds);
        peakBytes[i] = answer.peakBytes;
        steps[i] ??= Math.max(1, Math.min(100, Math.round(1 / answer.seconds[0]!)));
      }
    return children.map((child, i) => {
      const step = median(seconds[i]!);
      const tokensPerSec = tokensOf(setting) / step;
      return {
        setting: setting.name,
        precision,
        threads,
        contestant: child.ready,
        computes: inFloat32.has(child) ? "float32" : precision,
        tokensPerSec,
        gflops: gflopOf(setting) / step,
        gradientGflops: gflopOf(setting) / median(gradientSeconds[i]!),
        peakBytes: peakBytes[i]!,
        stepMs: step * 1e3,
      };
    });
  } finally {
    for (const child of children) child.stop();
  }
}
