// A real run on this machine, as a person starts it: a coordinator that wants a token, and two worker processes. They
// compute in WebAssembly, which every machine has and which is slow enough to be watched.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { type RunStatus, statusSchema } from "../../coordinator/status.ts";

export const token = "a-token-for-the-system-tests";
const program = join(import.meta.dirname, "../../dist/cli/weft.js");
const lines = ["The warp is held, the weft goes to and fro,", "and thread by thread the figure starts to show.", ""];

export interface RealRun extends AsyncDisposable {
  /** 127.0.0.1 and a port. */
  readonly address: string;
  readonly folder: string;
  readonly steps: number;
  /** Start the workers. */
  begin(): void;
  get(path: string): Promise<Response>;
  status(): Promise<RunStatus>;
  /** Ask every 200 ms until the status is as wished. @throws Error when a process of the run has ended */
  until(wished: (status: RunStatus) => boolean): Promise<RunStatus>;
}

/** A small GPT on a made-up text, evaluated and saved every fifth of the way. It waits for begin(). */
export async function startRun(steps: number): Promise<RealRun> {
  const folder = mkdtempSync(join(tmpdir(), "weft-system-"));
  writeFileSync(join(folder, "text.txt"), lines.join("\n").repeat(200));
  const shape = { "block-size": 32, "n-layer": 2, "n-head": 2, "n-embd": 64, "batch-size": 8, shards: 4 };
  const every = { "eval-interval": steps / 5, "eval-windows": 32, "checkpoint-interval": steps / 5 };
  const options = { data: join(folder, "text.txt"), out: join(folder, "run"), port: 0, steps, ...shape, ...every };
  const processes: ChildProcess[] = [];
  const said: string[] = [];
  const start = (...words: string[]): ChildProcess => {
    const child = spawn(process.execPath, [program, ...words], {
      env: { ...process.env, WEFT_TOKEN: token },
      stdio: ["ignore", "ignore", "pipe"],
    });
    processes.push(child);
    createInterface({ input: child.stderr! }).on("line", (line) => said.push(line));
    return child;
  };
  const stop = async (): Promise<void> => {
    for (const child of processes.reverse()) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const ended = once(child, "close");
      child.kill("SIGTERM");
      await ended;
    }
    rmSync(folder, { recursive: true });
  };
  const failed = (): boolean => processes.some(({ exitCode, signalCode }) => (exitCode ?? signalCode ?? 0) !== 0);

  const flags = Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)]);
  const coordinator = start("coordinator", ...flags);
  let address: string | undefined;
  while (!address) {
    if (coordinator.exitCode !== null) throw new Error(`the coordinator ended:\n${said.join("\n")}`);
    await sleep(100);
    address = /listening on (127\.0\.0\.1:\d+)/.exec(said.join("\n"))?.[1];
  }
  const get = (path: string) => fetch(`http://${address}${path}`, { headers: { authorization: `Bearer ${token}` } });
  const status = async () => statusSchema.parse(await (await get("/status")).json());
  return {
    address,
    folder,
    steps,
    begin: () => {
      const who = ["--processes", "2", "--engine", "tfjs", "--backend", "wasm"];
      start("worker", ...who, "--coordinator", `ws://${address}`);
    },
    get,
    status,
    until: async (wished) => {
      for (;;) {
        const now = await status();
        if (wished(now)) return now;
        if (failed()) throw new Error(`a process of the run has failed:\n${said.join("\n")}`);
        await sleep(200);
      }
    },
    [Symbol.asyncDispose]: stop,
  };
}
