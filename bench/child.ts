// A contestant in a process of its own: started once, then asked for work line by line, idle (and asleep) in between.
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { createInterface } from "node:readline";

/** The OpenBLAS kernels that this CPU's instructions allow. */
function openblasCore(): string | undefined {
  const cpu = existsSync("/proc/cpuinfo") ? readFileSync("/proc/cpuinfo", "utf8") : "";
  const cores = { avx512_bf16: "Cooperlake", avx512dq: "SkylakeX", avx2: "Haswell" };
  return Object.entries(cores).find(([feature]) => cpu.includes(` ${feature} `))?.[1];
}

/**
 * Equal terms for everyone: so many threads, idle threads that sleep, and the kernels made for this CPU, whatever the
 * shell says. Debian's PyTorch mixes two spinning pools and is up to 1.7 times slower without the first; an OpenBLAS
 * that is older than the CPU, or told to be careful, takes slow kernels: 33 instead of 150 GFLOP/s on Emerald Rapids,
 * 121 instead of 260 on Zen 5.
 */
export function fairEnvironment(threads: number): NodeJS.ProcessEnv {
  const count = String(threads);
  return {
    ...process.env,
    OPENBLAS_CORETYPE: openblasCore(),
    OPENBLAS_L2_SIZE: undefined,
    OMP_NUM_THREADS: count,
    OPENBLAS_NUM_THREADS: count,
    MKL_NUM_THREADS: count,
    OMP_WAIT_POLICY: "PASSIVE",
  };
}

export class Child {
  readonly #process: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  /** What it said when it was ready: its name and versions. */
  readonly ready: string;

  private constructor(process: ChildProcess, lines: AsyncIterator<string>, ready: string) {
    this.#process = process;
    this.#lines = lines;
    this.ready = ready;
  }

  static async start(command: string, args: readonly string[], threads: number): Promise<Child> {
    const child = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"], env: fairEnvironment(threads) });
    const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
    const { ready } = await answerOf<{ ready: string }>(lines, `${command} ${args[0]}`);
    return new Child(child, lines, ready);
  }

  async ask<T>(question: object): Promise<T> {
    this.#process.stdin!.write(`${JSON.stringify(question)}\n`);
    return await answerOf<T>(this.#lines, this.ready);
  }

  stop(): void {
    this.#process.stdin!.end();
  }
}

async function answerOf<T>(lines: AsyncIterator<string>, who: string): Promise<T> {
  const { value, done } = await lines.next();
  if (done) throw new Error(`${who} ended before it answered; its message is above`);
  return JSON.parse(value);
}
