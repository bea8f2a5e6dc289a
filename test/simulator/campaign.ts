// Many worlds; and a world that fails made as small as it goes.
import type { Fault } from "./faults.ts";
import { live, type Plan, planOf, type Verdict } from "./world.ts";

/** A plan with some of its faults only, as `--faults 0,3` names them. */
export function withFaults(plan: Plan, keep: readonly number[]): Plan {
  return { ...plan, faults: keep.map((i) => plan.faults[i]!) };
}

/** The fewest faults of a failing world with which it still fails. @returns their numbers */
export async function shrink(plan: Plan): Promise<number[]> {
  let keep = plan.faults.map((_, i) => i);
  for (let i = 0; i < keep.length; ) {
    const fewer = keep.filter((_, j) => j !== i);
    if ((await live(withFaults(plan, fewer))).failures.length > 0) keep = fewer;
    else i++;
  }
  return keep;
}

export function describe(plan: Plan): string {
  const { options, workers } = plan;
  const each = workers
    .map(({ unitMs, link }) => `${unitMs.toFixed(0)} ms a unit, ${link.latencyMs} ms away`)
    .join("; ");
  const faults = plan.faults.map(
    ({ kind, at, forMs, worker }: Fault) => `${kind} of ${worker} at ${at} for ${forMs} ms`,
  );
  const liar =
    plan.lie === undefined ? "" : `; the last one lies from ${Math.round(plan.lie.fromMs)} ms on: ${plan.lie.kind}`;
  const { localSteps, replicas, innerState } = options;
  const local = localSteps > 1 ? ` in rounds of ${localSteps} on ${replicas} replicas, ${innerState}` : "";
  return `${options.steps} steps of ${options.shards} shards${local}, timeout ${options.timeout} s; workers: ${each}${liar}; faults: ${faults.join(", ") || "none"}`;
}

export interface Failure {
  readonly seed: number;
  readonly verdict: Verdict;
  /** Of the smallest world that still fails. */
  readonly faults: readonly number[];
}

/**
 * Worlds `first` to `first + count - 1`.
 * @param onFailure hears of each that fails, shrunk
 * @returns virtual milliseconds
 */
export async function campaign(
  first: number,
  count: number,
  onFailure: (failure: Failure) => void,
  planFor: (seed: number) => Plan = planOf,
): Promise<number> {
  let virtualMs = 0;
  for (let seed = first; seed < first + count; seed++) {
    const plan = planFor(seed);
    const verdict = await live(plan);
    virtualMs += verdict.virtualMs;
    if (verdict.failures.length > 0) onFailure({ seed, verdict, faults: await shrink(plan) });
  }
  return virtualMs;
}
