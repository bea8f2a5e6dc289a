// What a run takes, told before it begins: refused where it cannot fit, with what would; and --dry-run, which leaves no trace.
import { constants } from "node:buffer";
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Logger } from "pino";
import { afterAll, afterEach, expect, test, vi } from "vitest";
import { announceSpeed, checkMemory } from "../../cli/estimate.ts";
import type { Clock } from "../../shared/clock.ts";
import { modelOf } from "../../shared/config.ts";
import { resolveOptions } from "../../shared/resolve.ts";
import { killAll, temporary, text, weft } from "../system/weft.ts";

afterEach(() => vi.restoreAllMocks());
afterAll(killAll);

const GB = 1e9;

async function checked(flags: Record<string, unknown>, freeBytes: number, workers = 2): Promise<string> {
  vi.spyOn(process, "availableMemory").mockReturnValue(freeBytes - GB / 2);
  vi.spyOn(process.memoryUsage, "rss").mockReturnValue(GB / 2);
  const { options } = resolveOptions({
    preset: "gpt2-124m",
    flags: { precision: "float32", engine: "tfjs", backend: "wasm", ...flags },
  });
  return await checkMemory(options, modelOf(options, 50_257), workers);
}

test("what fits is told, what does not is refused with what would", async () => {
  // 124,439,808 parameters: 8 vectors, and shared weights and two gradients.
  const short = { blockSize: 128 };
  expect(await checked(short, 200 * GB)).toMatch(
    /^about 5.60 GB for the coordinator, 2.\d+ GB for each of 2 workers; 200 GB are free$/,
  );
  await expect(checked(short, 9 * GB)).rejects.toThrow(
    /cannot hold gpt2: 12 layers.*, 15 sequences at once: .*9.00 GB are free; it would fit with (--workers 1|--checkpoint-activations)$/,
  );
  await expect(checked({ ...short, batchSize: 480, shards: 1 }, 80 * GB)).rejects.toThrow(
    /480 sequences.*would fit with --shards 32$/,
  );
  await expect(checked(short, 2 * GB)).rejects.toThrow(/2.00 GB are free; take a smaller model or another machine$/);
  await expect(checked({ ...short, memoryLimit: 1 }, 200 * GB)).rejects.toThrow("--memory-limit is 1.07 GB");
});

test("what an engine cannot address is refused however much is free", async () => {
  await expect(checked({}, 200 * GB)).rejects.toThrow(
    /24 GB for each of 2 workers, an engine in WebAssembly addresses 3.76 GB; it would fit with --batch-size 32$/,
  );
  await expect(checked({ nLayer: 48, nEmbd: 1536 }, 200 * GB)).rejects.toThrow(
    "take a smaller model or another machine",
  );
});

test.runIf(constants.MAX_LENGTH === 2 ** 32)(
  "what is longer than an array can be is refused, with what is not",
  async () => {
    const xl = { nLayer: 48, nHead: 25, nEmbd: 1600, engine: "native", localSteps: 4, replicas: 2 };
    await expect(checked(xl, 2000 * GB, 0)).rejects.toThrow(
      /weights and averaged moments are 3 times 1,55\d,\d+,\d+ values, and an array of Node.js .* holds 4,294,967,296; take --inner-state fresh/,
    );
    expect(await checked({ ...xl, innerState: "fresh" }, 2000 * GB, 0)).toMatch(/for the coordinator/);
    await expect(checked({ ...xl, nLayer: 200, innerState: "fresh" }, 2000 * GB, 0)).rejects.toThrow(/smaller model/);
  },
);

test("a coordinator alone answers for itself", async () => {
  expect(await checked({}, 8 * GB, 0)).toBe("about 4.14 GB for the coordinator; 8.00 GB are free");
  await expect(checked({}, 3 * GB, 0)).rejects.toThrow(/4.14 GB for the coordinator, 3.00 GB are free/);
});

/** What is said of a run of 1,000 steps of 100 tokens that was at these steps when it was looked at. */
function said(steps: readonly number[]): string[] {
  const lines: string[] = [];
  let [now, step, isOver] = [0, 0, false];
  let look: () => void = () => {};
  const clock: Clock = {
    now: () => now,
    after: () => ({ cancel() {} }),
    every(ms, act) {
      look = () => {
        now += ms;
        act();
      };
      return {
        cancel() {
          isOver = true;
        },
      };
    },
  };
  const log = { info: (line: string) => void lines.push(`${now / 1000} s: ${line}`) };
  announceSpeed({ status: () => ({ step, steps: 1000, tokensPerStep: 100 }) }, log as unknown as Logger, clock);
  for (step of steps) if (!isOver) look();
  return lines;
}

const from = (first: number, each: number, looks: number) => Array.from({ length: looks }, (_, i) => first + each * i);

test("the time that a run takes is told once it is known", () => {
  // The first step comes late, and one look sees nothing done: neither counts.
  expect(said([0, 0, 0, 0, 1, 3, 5, 7, 7, 9, 11, ...from(13, 2, 400)])).toEqual([
    "22 s: 100 tokens/s: 989 steps more take about 16 min 29 s",
  ]);
  expect(said([1, 500, 999, 1000])).toEqual([]);
  // Steps of 20 s.
  expect(said(Array.from({ length: 80 }, (_, i) => 1 + Math.floor(i / 10)))).toEqual([
    "102 s: 5 tokens/s: 994 steps more take about 5 h 31 min",
  ]);
});

test("an estimate from a busy moment is taken back, once", () => {
  const busy = [1, 2, 3, 4, 5, 6, 7];
  expect(said([...busy, ...from(17, 10, 90)])).toEqual([
    "12 s: 50 tokens/s: 994 steps more take about 33 min 08 s",
    "28 s: 500 tokens/s: 923 steps more take about 3 min 05 s, other than it looked at first",
  ]);
  const slower = [10, 20, 30, 40, 50, 60, 70, 71, 72, 73];
  expect(said([...slower, ...from(74, 1, 200)])).toHaveLength(2);
});

test("--dry-run says it all, and writes nothing", async () => {
  const out = join(temporary(), "run");
  const model = ["--block-size", "8", "--n-layer", "1", "--n-head", "1", "--n-embd", "8", "--batch-size", "4"];
  const run = weft([
    "train",
    ...model,
    "--data",
    text,
    "--steps",
    "30",
    "--warmup-steps",
    "3",
    "--out",
    out,
    "--dry-run",
  ]);
  expect(await run.ended, run.stderr()).toBe(0);
  const said = run.stdout();
  for (const line of [
    /^run: {4}.*run, a new one, to step 30$/m,
    /^data: {3}.*: [\d,]+ tokens to train on, [\d,]+ to validate on; char, \d+ tokens in the vocabulary$/m,
    /^model: {2}gpt2: 1 layers, .*; [\d,]+ parameters$/m,
    /^memory: about .* GB for the coordinator, .* GB for each of 2 workers; .* GB are free$/m,
    /^time: {3}about .* for 30 steps at [\d,]+ tokens\/s/m,
    /^ {2}--warmup-steps +3 +flag$/m,
    /^ {2}--beta1 +0.9 +default$/m,
  ])
    expect(said).toMatch(line);
  expect(existsSync(out)).toBe(false);
});
