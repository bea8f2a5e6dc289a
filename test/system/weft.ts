// Real processes of the compiled program, for tests of the whole: start one, wait for what it logs, signal it.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const program = join(import.meta.dirname, "../../dist/cli/weft.js");

export const temporary = (): string => mkdtempSync(join(tmpdir(), "weft-system-"));

/** Where it runs: what lies in the checkout, such as somebody's runs, is no part of a test. */
const elsewhere = temporary();

export interface LogLine {
  msg: string;
  step?: number;
  [field: string]: unknown;
}

export interface Running {
  readonly child: ChildProcess;
  readonly log: LogLine[];
  /** What it wrote to standard output so far. */
  stdout(): string;
  /** What it wrote to standard error so far. */
  stderr(): string;
  /** The first line, so far or to come, for which this holds. @throws when the process ends without it */
  until(holds: (line: LogLine) => boolean): Promise<LogLine>;
  /** Its exit status or signal. */
  readonly ended: Promise<number | string>;
}

/** Started processes that a failing test may leave behind. */
const running = new Set<ChildProcess>();

export function killAll(): void {
  for (const child of running) child.kill("SIGKILL");
}

export function weft(args: readonly string[], environment: Record<string, string> = {}): Running {
  const child = spawn(process.execPath, [program, ...args], {
    cwd: elsewhere,
    env: { ...process.env, ...environment },
  });
  running.add(child);
  const log: LogLine[] = [];
  let [out, err] = ["", ""];
  const waiting = new Set<() => void>();
  child.stdout.on("data", (data) => {
    out += data;
  });
  createInterface({ input: child.stderr }).on("line", (line) => {
    err += `${line}\n`;
    if (line.startsWith("{")) log.push(JSON.parse(line));
    for (const look of waiting) look();
  });
  let done = false;
  const ended = new Promise<number | string>((resolve) => {
    child.on("close", (code, signal) => {
      done = true;
      running.delete(child);
      resolve(code ?? signal ?? "nothing");
      for (const look of waiting) look();
    });
  });
  const until = (holds: (line: LogLine) => boolean) =>
    new Promise<LogLine>((resolve, reject) => {
      const look = () => {
        const found = log.find(holds);
        if (!found && !done) return;
        waiting.delete(look);
        if (found) resolve(found);
        else reject(new Error(`weft ${args.join(" ")} ended without the awaited line; it said:\n${err}${out}`));
      };
      waiting.add(look);
      look();
    });
  return { child, log, ended, until, stdout: () => out, stderr: () => err };
}

/** A coordinator on a free port, and the address for its workers. */
export async function coordinator(args: readonly string[]) {
  const process = weft(["coordinator", "--port", "0", "--no-stay", ...args]);
  const { msg } = await process.until((line) => line.msg.startsWith("listening on "));
  return { ...process, url: `ws://${/listening on (\S+):/.exec(msg)![1]}` };
}

/** One that nobody listens on now. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

/** Start workers one after another, each held where it has joined, and let them go together: all of them compute. */
export async function together(run: Running, start: readonly (() => Running)[]): Promise<Running[]> {
  const workers: Running[] = [];
  const joined = () => run.log.filter(({ msg }) => /^worker \S+ joined/.test(msg)).length;
  for (const one of start) {
    workers.push(one());
    await run.until(() => joined() === workers.length);
    workers.at(-1)!.child.kill("SIGSTOP");
  }
  for (const { child } of workers) child.kill("SIGCONT");
  return workers;
}

export const atStep = (step: number) => (line: LogLine) => line.msg === "step" && line.step! >= step;

/** A text to train on that needs no file of anyone else. */
export const text = join(import.meta.dirname, "../../shared/config.ts");

export interface LedgerLine {
  step: number;
  /** Done together, where more than one. */
  steps?: number;
  lossNats: number;
  weights: string;
  parts: { shards: string; worker: string; leases: number; second?: string }[];
}

export function ledgerOf(directory: string): LedgerLine[] {
  return readFileSync(join(directory, "ledger.jsonl"), "utf8")
    .split("\n")
    .slice(0, -1)
    .map((line) => JSON.parse(line));
}

/** Digest of the weights after the last step. */
export const digestOf = (directory: string): string => ledgerOf(directory).at(-1)!.weights;
