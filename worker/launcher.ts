// `weft worker --gpus all`: one worker process for all GPUs where the engine drives them together, else one for each (or
// several for the CPU), each seeing its own device only, near its own memory, with its share of the cores.
// Crashed ones are started again, all end together.
import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import type { Options } from "../shared/config.ts";
import { ConfigError, EngineError, Interrupted, UnfitError } from "../shared/errors.ts";
import { logLine } from "../shared/json.ts";
import type { Gpu } from "./gpus.ts";

/** One process that is kept running. */
export interface Slot {
  /** Prefix of its log lines and end of its worker's name: "gpu0", "cpu1". */
  readonly label: string;
  /** What it stands for, for people. */
  readonly about: string;
  /** Added to the launcher's own environment. */
  readonly environment: Readonly<Record<string, string>>;
  /** Put before the command: binds it to its cores and memory; empty where nothing is to bind or to bind with. */
  readonly prefix: readonly string[];
  readonly threads: number;
  readonly device: "cpu" | "gpu";
}

export interface Machine {
  readonly cores: number;
  /** Numbers of the cores that this process may use, ascending; empty where the system does not tell. */
  readonly coreNumbers: readonly number[];
  /** Nodes of memory and cores, such as [0, 1]. */
  readonly numaNodes: readonly number[];
  readonly hasNumactl: boolean;
  readonly hasTaskset: boolean;
}

/**
 * Who runs where? Pure.
 * @param processes for the CPU; with GPUs there is one for each of them
 * @param together  one process drives all GPUs: the xla engine
 */
export function planSlots(gpus: readonly Gpu[], processes: number, machine: Machine, together = false): Slot[] {
  const count = gpus.length > 0 ? gpus.length : processes;
  const threads = Math.max(1, Math.floor(machine.cores / count));
  const hasNodes = machine.hasNumactl && machine.numaNodes.length > 1;
  const bindToNode = (node: number | undefined): string[] =>
    node === undefined || !hasNodes ? [] : ["numactl", `--cpunodebind=${node}`, `--preferred=${node}`];
  // Left to itself the system has two processes on one core for a good part of every step, and none on the other.
  const bindToShare = (i: number): string[] => {
    const total = machine.coreNumbers.length;
    if (!machine.hasTaskset || processes < 2 || processes > total) return [];
    const [first, end] = [Math.floor((i * total) / processes), Math.floor(((i + 1) * total) / processes)];
    return ["taskset", "-c", machine.coreNumbers.slice(first, end).join(",")];
  };
  if (gpus.length > 1 && together)
    return [
      {
        label: "gpus",
        about: `GPUs ${gpus.map(({ index, name }) => `${index}: ${name}`).join(", ")}`,
        environment: {
          CUDA_VISIBLE_DEVICES: gpus.map(({ index }) => index).join(","),
          CUDA_DEVICE_ORDER: "PCI_BUS_ID",
        },
        prefix: [],
        threads: machine.cores,
        device: "gpu",
      },
    ];
  if (gpus.length > 0)
    return gpus.map(({ index, name, memoryMiB, driver, numaNode, slice }) => ({
      label: `gpu${index}`,
      about: `GPU ${index}: ${name}, ${memoryMiB} MiB, driver ${driver}${numaNode === undefined ? "" : `, NUMA node ${numaNode}`}`,
      environment: {
        CUDA_VISIBLE_DEVICES: slice ?? String(index),
        // CUDA counts the fastest GPU as its first unless told to count as nvidia-smi does.
        CUDA_DEVICE_ORDER: "PCI_BUS_ID",
        TF_FORCE_GPU_ALLOW_GROWTH: "true",
      },
      prefix: bindToNode(numaNode),
      threads,
      device: "gpu",
    }));
  return Array.from({ length: processes }, (_, i) => ({
    label: `cpu${i}`,
    about: `CPU process ${i} of ${processes}, ${threads} ${threads === 1 ? "thread" : "threads"}`,
    environment: { CUDA_VISIBLE_DEVICES: "-1" },
    prefix: hasNodes ? bindToNode(machine.numaNodes[i % machine.numaNodes.length]) : bindToShare(i),
    threads,
    device: "cpu",
  }));
}

/** Why processes so asked for cannot compute on the device that was asked for too; undefined where they can. Pure. */
export function whyNotOnDevice({
  device,
  gpus,
  processes,
}: Pick<Options, "device" | "gpus" | "processes">): string | undefined {
  const areOnCpu = gpus === "" || gpus === "none";
  if (device === "gpu" && areOnCpu)
    return `--device gpu, but ${gpus === "" ? `--processes ${processes}` : "--gpus none"} computes on the CPU; take --gpus all, or leave --device out`;
  if (device === "cpu" && !areOnCpu) return `--device cpu, but --gpus ${gpus} computes on GPUs; leave one of them out`;
  return undefined;
}

/** When to start a process again, and when to give up. Pure. */
export function nextStart(failures: number, livedMs: number): { failures: number; waitMs: number } | "give up" {
  const count = livedMs >= settledMs ? 1 : failures + 1;
  return count > mostFailures ? "give up" : { failures: count, waitMs: Math.min(500 * 2 ** count, 30_000) };
}

/** A process that lived so long had started well: its failure is a new one. */
const settledMs = 60_000;
/** What a process ends with that would end like this every time: EX_CONFIG of sysexits.h. */
const hopeless = 78;
/** Failures in a row at the start after which waiting is of no use. */
const mostFailures = 5;

export interface LaunchOptions {
  readonly slots: readonly Slot[];
  /** Program and arguments of one slot's process. */
  readonly command: (slot: Slot) => readonly [string, ...string[]];
  /** Aborted once: all are asked to end (SIGTERM) and waited for. */
  readonly stop: AbortSignal;
  /** Aborted: all are killed. */
  readonly kill: AbortSignal;
  readonly log: (line: string) => void;
  readonly wait?: (ms: number, signal: AbortSignal) => Promise<unknown>;
}

/**
 * Run every slot until its process ends by itself with status 0 or all are stopped.
 * @throws EngineError once a process failed too often, after the others have been stopped
 */
export async function launch(options: LaunchOptions): Promise<void> {
  const failed = new AbortController();
  const stop = AbortSignal.any([options.stop, failed.signal]);
  const results = await Promise.allSettled(
    options.slots.map((slot) =>
      keepRunning(slot, { ...options, stop }).catch((error) => {
        failed.abort();
        throw error;
      }),
    ),
  );
  for (const result of results) if (result.status === "rejected") throw result.reason;
}

async function keepRunning(slot: Slot, options: LaunchOptions): Promise<void> {
  const { log, stop, wait = (ms, signal) => sleep(ms, undefined, { signal }).catch(() => {}) } = options;
  log(`[${slot.label}] ${slot.about}`);
  for (let failures = 0; !stop.aborted; ) {
    const startedAt = performance.now();
    const end = await runOnce(slot, options);
    if (end.status === 0 || stop.aborted) return;
    const next = nextStart(failures, performance.now() - startedAt);
    const what = `${slot.label} ended with ${end.status}${end.lastLine === "" ? "" : `: ${end.lastLine}`}`;
    if (end.status === hopeless) throw new UnfitError(what);
    if (next === "give up") throw new EngineError(`${what}; it failed ${failures + 1} times in a row at the start`);
    failures = next.failures;
    log(`[${slot.label}] ${what}; starting it again in ${next.waitMs / 1000} s`);
    await wait(next.waitMs, stop);
  }
}

async function runOnce(
  slot: Slot,
  { command, stop, kill, log }: LaunchOptions,
): Promise<{ status: number | string; lastLine: string }> {
  const [program, ...rest] = [...slot.prefix, ...command(slot)] as [string, ...string[]];
  const child = spawn(program, rest, {
    env: { ...process.env, ...slot.environment },
    stdio: ["ignore", "pipe", "pipe", "ipc"],
    // Its own group: Ctrl-C on the terminal reaches the launcher alone, which then asks each process once.
    detached: true,
  });
  let lastLine = "";
  for (const output of [child.stdout!, child.stderr!])
    createInterface({ input: output }).on("line", (line) => {
      lastLine = reasonIn(line) ?? lastLine;
      log(`[${slot.label}] ${line}`);
    });
  const onStop = (): void => void child.kill("SIGTERM");
  const onKill = (): void => void child.kill("SIGKILL");
  stop.addEventListener("abort", onStop, { once: true });
  kill.addEventListener("abort", onKill, { once: true });
  if (stop.aborted) onStop();
  if (kill.aborted) onKill();
  try {
    return { status: await ended(child), lastLine };
  } finally {
    stop.removeEventListener("abort", onStop);
    kill.removeEventListener("abort", onKill);
  }
}

/** What a line says of why its process ends: a warning of its log, or what is no line of a log. */
export function reasonIn(line: string): string | undefined {
  const { level, msg } = logLine(line.trim()) ?? {};
  const text = level === undefined ? line.trim() : Number(level) >= 40 ? String(msg) : "";
  return text === "" ? undefined : text.slice(0, 300);
}

/** Its status or signal, once its output has been read to the end. */
function ended(child: ChildProcess): Promise<number | string> {
  return new Promise((resolve, reject) => {
    child.once("error", (error) =>
      reject(new EngineError(`cannot start a worker: ${error.message}`, { cause: error })),
    );
    child.once("close", (status, signal) => resolve(signal ?? status!));
  });
}

/** In a launched process: say by its exit status whether another one in its place could do better. */
export function endBecauseOf(error: unknown): void {
  const canMend = (error as Error).cause instanceof Interrupted;
  if (process.channel && (error instanceof ConfigError || error instanceof UnfitError) && !canMend)
    process.exitCode = hopeless;
}

/** In a launched process: end as on SIGTERM when the launcher is gone, however it went. */
export function endWithLauncher(): void {
  if (!process.channel) return;
  process.channel.unref();
  process.once("disconnect", () => process.kill(process.pid, "SIGTERM"));
}
