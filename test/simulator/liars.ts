// `npm run simulate:liars`: what --verify finds, and what it costs. One liar among honest workers of the same speed, in
// virtual time: after how many steps it is found, whether the run ends in the honest digest, what of the throughput stays.
// Its output is the table of docs/second-opinions.md.

import { flagsOf } from "../../bench/flags.ts";
import { type Lie, lies } from "../../cli/liar.ts";
import { live, optionsOf, type Plan, type Verdict } from "./world.ts";

const values = flagsOf("npm run simulate:liars --", { seeds: { type: "string", default: "8" } });
const seeds = Array.from({ length: Number(values.seeds) }, (_, i) => i + 1);

const steps = 100;
const unitMs = 20;
const sizes = [
  { workers: 3, shards: 16 },
  { workers: 8, shards: 32 },
] as const;
const shares = [0.02, 0.1, 1] as const;

interface Case {
  readonly workers: number;
  readonly shards: number;
  readonly verify: number;
  readonly kind?: Lie;
  /** Steps for which the liar is honest. */
  readonly trustedFor?: number;
}

function planOf({ workers, shards, verify, kind, trustedFor = 0 }: Case, seed: number): Plan {
  const often = { evalInterval: 10, checkpointInterval: 20 };
  const options = optionsOf({ shards, batchSize: shards, steps, seed, timeout: 5, verify, ...often });
  const link = { latencyMs: 1, bytesPerMs: 1000 };
  const fromMs = (trustedFor * shards * unitMs * (1 + verify)) / workers;
  return {
    ...{ seed, options, faults: [], workers: Array.from({ length: workers }, () => ({ unitMs, link })) },
    ...(kind && { lie: { kind, fromMs } }),
  };
}

async function livesOf(each: Case): Promise<Verdict[]> {
  const verdicts: Verdict[] = [];
  for (const seed of seeds) verdicts.push(await live(planOf(each, seed)));
  const failed = verdicts.flatMap(({ failures }) => failures);
  if (failed.length > 0) throw new Error(`${JSON.stringify(each)}: ${failed.join("; ")}`);
  return verdicts;
}

const mean = (numbers: readonly number[]): number => numbers.reduce((sum, x) => sum + x, 0) / numbers.length;
const percent = (share: number): string => `${Math.round(100 * share)} %`;

/** "8 of 8, after 3 steps (at most 9)" */
function found(verdicts: readonly Verdict[]): string {
  const lied = verdicts.flatMap(({ lie }) => (lie ? [lie] : []));
  if (lied.length === 0) return "gave nothing wrong";
  const after = lied.flatMap(({ began, found }) => (found === undefined ? [] : [found - began])).sort((a, b) => a - b);
  if (after.length === 0) return `0 of ${lied.length}`;
  const middle = after[Math.floor(after.length / 2)]!;
  return `${after.length} of ${lied.length}, after ${middle} (${after.at(-1)})`;
}

console.log(
  "| workers | --verify | throughput kept | lie | found from its first answer on | found after 10 honest steps | honest digest where found | throughput kept with the liar |",
);
console.log("| --- | --- | --- | --- | --- | --- | --- | --- |");
for (const size of sizes) {
  const plain = mean((await livesOf({ ...size, verify: 0 })).map(({ virtualMs }) => virtualMs));
  for (const verify of shares) {
    const honest = mean((await livesOf({ ...size, verify })).map(({ virtualMs }) => virtualMs));
    for (const kind of lies) {
      const first = await livesOf({ ...size, verify, kind });
      const trusted = await livesOf({ ...size, verify, kind, trustedFor: 10 });
      const both = [...first, ...trusted].filter(({ lie }) => lie?.found !== undefined);
      const right = both.filter(({ isRight }) => isRight).length;
      const kept = plain / mean(trusted.map(({ virtualMs }) => virtualMs));
      console.log(
        `| ${size.workers} | ${verify} | ${percent(plain / honest)} | ${kind} | ${found(first)} | ${found(trusted)} | ${right} of ${both.length} | ${percent(kept)} |`,
      );
    }
  }
}
