// `npm run simulate -- --seed N --worlds N [--faults 0,3] [--verify P] [--local] [--relays N] [--lean]`:
// worlds from a seed on, or one world with some of its faults; with --verify a liar is in each, with --local they train in
// rounds of local steps, with --relays below so many at most, with --lean with little room and data at every other worker.
import { performance } from "node:perf_hooks";
import { flagsOf } from "../../bench/flags.ts";
import { campaign, describe, type Failure, withFaults } from "./campaign.ts";
import { inRounds, lean, live, lyingPlanOf, planOf, withRelays } from "./world.ts";

const values = flagsOf("npm run simulate --", {
  seed: { type: "string", default: "1" },
  worlds: { type: "string", default: "1000" },
  faults: { type: "string" },
  verify: { type: "string" },
  local: { type: "boolean", default: false },
  relays: { type: "string", default: "0" },
  lean: { type: "boolean", default: false },
});
const [seed, worlds] = [Number(values.seed), Number(values.worlds)];
if (!Number.isInteger(seed) || !Number.isInteger(worlds) || worlds < 1) {
  console.error("simulate: --seed and --worlds take whole numbers");
  process.exit(1);
}

const verify = values.verify === undefined ? undefined : Number(values.verify);
const planFor = (of: number) => {
  const plan = verify === undefined ? planOf(of) : lyingPlanOf(of, verify);
  const local = values.local ? inRounds(plan) : plan;
  const below = withRelays(local, of % (Number(values.relays) + 1));
  return values.lean ? lean(below) : below;
};
const again = `${verify === undefined ? "" : ` --verify ${verify}`}${values.local ? " --local" : ""}${values.relays === "0" ? "" : ` --relays ${values.relays}`}${values.lean ? " --lean" : ""}`;

if (values.faults !== undefined || worlds === 1) {
  const whole = planFor(seed);
  const plan =
    values.faults === undefined ? whole : withFaults(whole, values.faults.split(",").filter(Boolean).map(Number));
  const verdict = await live(plan);
  console.log(`world ${seed}: ${describe(plan)}`);
  console.log(`${verdict.steps} steps in ${(verdict.virtualMs / 1000).toFixed(1)} virtual seconds`);
  for (const failure of verdict.failures) console.log(`FAILED: ${failure}`);
  process.exitCode = verdict.failures.length > 0 ? 1 : 0;
} else {
  const started = performance.now();
  let failed = 0;
  const onFailure = (failure: Failure): void => {
    failed++;
    console.log(`world ${failure.seed} FAILED: ${failure.verdict.failures.join("; ")}`);
    console.log(`  ${describe(withFaults(planFor(failure.seed), failure.faults))}`);
    console.log(`  npm run simulate -- --seed ${failure.seed} --faults ${failure.faults.join(",")}${again}`);
  };
  const virtualMs = await campaign(seed, worlds, onFailure, planFor);
  const seconds = (performance.now() - started) / 1000;
  console.log(
    `${worlds} worlds, ${failed} failed; ${((60 * worlds) / seconds).toFixed(0)} worlds a minute, ${(virtualMs / 3.6e6).toFixed(1)} virtual hours`,
  );
  process.exitCode = failed > 0 ? 1 : 0;
}
