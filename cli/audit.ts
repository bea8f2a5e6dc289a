// `weft audit`: what a run's folder proves, steps computed again, what a worker gave, and the repair of what is left.
import { performance } from "node:perf_hooks";
import { Command } from "commander";
import {
  type Audit,
  auditRun,
  contributionsOf,
  type Finding,
  readLines,
  stepsName,
} from "../coordinator/proof/audit.ts";
import { repairRun } from "../coordinator/proof/repair.ts";
import { ConfigError } from "../shared/errors.ts";
import { flagAndHelp } from "./options.ts";
import { type Replay, replay } from "./replay.ts";
import { onOneLine, tell } from "./terminal.ts";

interface AuditFlags {
  replay?: string;
  data?: string;
  threads?: string;
  worker?: string;
  repair: boolean;
  json: boolean;
}

export function auditCommand(): Command {
  return new Command("audit")
    .description(
      "prove a run: its ledger's chain, every shard of every step once, its checkpoints; exit status 1 if not",
    )
    .argument("<RUN>", "folder of a run")
    .option("--replay <STEPS>", "compute these steps once more on this machine, such as 40-45, and compare")
    .option(...flagAndHelp("data", "with --replay: where the data lies now"))
    .option(...flagAndHelp("threads", "with --replay: threads; the bits do not depend on them"))
    .option("--worker <NAME>", "what this worker gave")
    .option("--repair", "make the ledger and the markers whole again, keeping all that is proven", false)
    .option(...flagAndHelp("json"), false)
    .action(async (directory: string, flags: AuditFlags) => {
      const began = performance.now();
      const span = spanOfSteps(flags.replay);
      const repaired = flags.repair ? await repairRun(directory) : undefined;
      const audit = await auditRun(directory);
      const given = flags.worker === undefined ? undefined : await contributions(directory, flags.worker, audit);
      const again = span && (await replay(directory, { ...span, data: flags.data, threads: flags.threads }));
      const findings = [...audit.findings, ...(again?.findings ?? [])];
      const seconds = (performance.now() - began) / 1000;
      if (flags.json) {
        const report = {
          ok: findings.length === 0,
          ...audit,
          findings,
          repaired,
          worker: given,
          replay: again,
          seconds,
        };
        tell(JSON.stringify(report, null, 2));
      } else for (const line of linesOf(audit, findings, { repaired, given, again, seconds })) tell(onOneLine(line));
      if (findings.length > 0) process.exitCode = 1;
    });
}

function spanOfSteps(text: string | undefined): { first: number; last: number } | undefined {
  if (text === undefined) return undefined;
  const [, first, last = first] = /^(\d{1,9})(?:-(\d{1,9}))?$/.exec(text) ?? [];
  if (first === undefined || Number(first) < 1 || Number(last) < Number(first))
    throw new ConfigError(`audit: --replay must be a step or a range of them such as 40-45, got "${text}"`);
  return { first: Number(first), last: Number(last) };
}

async function contributions(directory: string, worker: string, { workers }: Audit) {
  if (!Object.hasOwn(workers, worker))
    throw new ConfigError(
      `audit: no worker ${worker} stands in the ledger; there are: ${Object.keys(workers).join(", ") || "none"}`,
    );
  return { name: worker, shards: workers[worker]!, steps: contributionsOf((await readLines(directory)) ?? [], worker) };
}

const count = (n: number): string => n.toLocaleString("en");

function* linesOf(
  audit: Audit,
  findings: readonly Finding[],
  more: {
    repaired: readonly string[] | undefined;
    given: Awaited<ReturnType<typeof contributions>> | undefined;
    again: Replay | undefined;
    seconds: number;
  },
): Generator<string> {
  for (const line of more.repaired ?? []) yield `repaired: ${line}`;
  if (more.repaired?.length === 0) yield "repaired: nothing had to be";
  const { firstStep, lastStep, provenUpTo, shards, confirmed, undone, workers, checkpoints } = audit;
  if (firstStep === null) yield "ledger: no step";
  else
    yield `ledger: steps ${firstStep} to ${lastStep} in ${count(audit.lines)} lines, ${count(shards)} shards of ${Object.keys(workers).length} workers; its head is known by a checkpoint up to step ${provenUpTo}`;
  if (confirmed > 0) yield `confirmed: ${count(confirmed)} shards were given alike by two workers before they counted`;
  for (const { from, to, workers: who, why } of undone)
    yield `taken back: steps ${to + 1} to ${from}, for answers of ${who.join(", ")}: it ${why}`;
  const whole = checkpoints.filter((checkpoint) => checkpoint.whole);
  yield `checkpoints: ${whole.length} of ${checkpoints.length} whole: ${whole.map(({ step }) => step).join(", ") || "none"}`;
  if (more.given) {
    const { name, shards: own, steps } = more.given;
    const inSteps = steps.reduce((sum, { steps }) => sum + steps, 0);
    const percent = ((100 * own) / Math.max(1, shards)).toFixed(1);
    yield `worker ${name}: ${count(own)} of ${count(shards)} shards (${percent} %) in ${count(inSteps)} steps`;
    for (const each of steps)
      yield `  ${stepsName(each)}: shards ${each.shards.join(", ")}${each.undone ? ", taken back" : ""}`;
  }
  if (more.again) {
    const { from, steps } = more.again;
    const count = (some: typeof steps) => some.reduce((sum, each) => sum + each.steps, 0);
    const same = count(steps.filter(({ expected, came }) => expected === came));
    yield `replay from ${from ?? "the beginning"}: ${same} of ${count(steps)} steps come out with the same digest`;
  }
  for (const { where, what } of findings) yield `wrong: ${where}: ${what}`;
  yield findings.length === 0
    ? `proven in ${more.seconds.toFixed(2)} s`
    : `${findings.length} ${findings.length === 1 ? "thing does" : "things do"} not fit`;
}
