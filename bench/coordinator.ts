// What the coordinator itself can do: the real program as a process, and in this one so many workers over real sockets,
// the real session each, with an engine that answers at once. A character bigram, so that what costs is dealing, the
// wire and the sum, not the model.
import { spawn } from "node:child_process";
import { setMaxListeners } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { pino } from "pino";
import type { RunStatus } from "../coordinator/status.ts";
import { systemClock } from "../shared/clock.ts";
import type { ModelConfig } from "../shared/model.ts";
import { resolveOptions } from "../shared/resolve.ts";
import { dial } from "../shared/wire/web-socket.ts";
import type { Engine } from "../worker/engine/contract.ts";
import { shardByShard } from "../worker/engine/shards.ts";
import { work } from "../worker/worker.ts";

export interface CoordinatorRow {
  readonly workers: number;
  readonly shards: number;
  readonly stepsPerSec: number;
  /** Processor time of the coordinator for a step, in milliseconds. */
  readonly cpuMs: number;
  /** Both ways, a step. */
  readonly bytesPerStep: number;
  readonly residentBytes: number;
}

const measuredMs = 5000;
const ticksPerSec = 100;

/** Answers at once, always the same. */
function instantEngine(model: ModelConfig): Engine {
  const limits = { model, maxRows: 1, threads: 1 };
  return {
    ...{ name: "native", arithmetic: "native avx2 float32", device: "none", model, plannedBytes: 0 },
    setWeights: async () => {},
    gradient: shardByShard(limits, async (_tokens, _targets, _rows, _shard, out) => {
      out.fill(1e-3);
      return 1;
    }),
    losses: async (_tokens: Int32Array, _targets: Int32Array, rows: number) => new Float32Array(rows).fill(1),
    dispose: async () => {},
  } as unknown as Engine;
}

/** @returns processor seconds and resident bytes of a process, as Linux counts them */
function usageOf(pid: number): { cpuSeconds: number; residentBytes: number } {
  const [user, system] = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]!.split(" ").slice(11, 13).map(Number);
  const resident = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))![1];
  return { cpuSeconds: (user! + system!) / ticksPerSec, residentBytes: Number(resident) * 1024 };
}

/** The real program on a text of few characters, from which it ends when it is told to. */
export async function startCoordinator(flags: string, workers: number) {
  const folder = mkdtempSync(join(tmpdir(), "weft-bench-"));
  const text = join(folder, "text.txt");
  writeFileSync(text, "the quick brown fox jumps over the lazy dog\n".repeat(2000));
  const words = `coordinator ${flags} --steps 1000000 --eval-interval 0 --checkpoint-interval 0 --no-shared-memory
    --max-workers ${workers} --port 0 --out ${join(folder, "run")} --data ${text}`;
  const child = spawn(process.execPath, [join(import.meta.dirname, "../cli/weft.js"), ...words.split(/\s+/)], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  const end = () => {
    child.kill("SIGKILL");
    rmSync(folder, { recursive: true, force: true });
  };
  const port = await new Promise<number>((resolve, reject) => {
    createInterface({ input: child.stderr }).on("line", (line) => {
      const listening = /listening on 127\.0\.0\.1:(\d+)/.exec(line);
      if (listening) resolve(Number(listening[1]));
    });
    child.on("exit", (code) => reject(new Error(`the coordinator ended with ${code}`)));
  }).catch((error) => {
    end();
    throw error;
  });
  const status = async () =>
    (await (await fetch(`http://127.0.0.1:${port}/status`, { headers: { connection: "close" } })).json()) as RunStatus;
  return {
    url: `ws://127.0.0.1:${port}`,
    pid: child.pid!,
    status,
    /** The first status as wished. */
    async until(wished: (status: RunStatus) => boolean): Promise<RunStatus> {
      for (;;) {
        const now = await status();
        if (wished(now)) return now;
        await sleep(200);
      }
    },
    end,
  };
}

export async function measureCoordinator(workers: number, shards: number): Promise<CoordinatorRow> {
  const { url, pid, status, until, end } = await startCoordinator(
    `--family bigram --block-size 8 --batch-size ${shards} --shards ${shards}`,
    workers,
  );
  const leave = new AbortController();
  setMaxListeners(workers + 1, leave.signal);
  const log = pino({ level: "silent" });
  const sessions: Promise<unknown>[] = [];
  try {
    const { options } = resolveOptions({ flags: { coordinator: [url], patience: 1e6, timeout: 60 } });
    for (let i = 0; i < workers; i++) {
      await sleep(10); // an address that opens many sockets at once pushes out its own
      sessions.push(
        work(
          { options, threads: 1, name: `w${i}`, token: undefined, log, leave: leave.signal },
          {
            ...{ clock: systemClock, connect: dial, random: Math.random },
            openEngine: async (_name, { model }) => ({ engine: instantEngine(model), why: "" }),
          },
        ),
      );
    }
    const usage = async (now: RunStatus) => ({ ...now, at: performance.now(), ...usageOf(pid) });
    const isHere = ({ state }: RunStatus["workers"][number]) => state === "contributing";
    await until(({ workers: here, step }) => here.filter(isHere).length === workers && step > 0);
    await sleep(measuredMs / 2); // speeds are known and shares are fair
    const before = await usage(await status());
    await sleep(measuredMs);
    const after = await usage(await until(({ step }) => step >= before.step + 3));
    const steps = after.step - before.step;
    return {
      ...{ workers, shards, residentBytes: after.residentBytes },
      stepsPerSec: (1000 * steps) / (after.at - before.at),
      cpuMs: (1000 * (after.cpuSeconds - before.cpuSeconds)) / steps,
      bytesPerStep: (after.bytesIn + after.bytesOut - before.bytesIn - before.bytesOut) / steps,
    };
  } finally {
    leave.abort();
    end();
    await Promise.allSettled(sessions);
  }
}
