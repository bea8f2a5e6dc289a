// Some hundred worlds in every run of the tests, and those that once failed, by name. `npm run simulate` lives in as many
// as there is time for.
import { expect, test } from "vitest";
import { campaign, withFaults } from "./campaign.ts";
import { live, planOf, referenceDigest } from "./world.ts";

test("300 worlds", async () => {
  const failed: string[] = [];
  await campaign(1, 300, ({ seed, verdict, faults }) =>
    failed.push(`npm run simulate -- --seed ${seed} --faults ${faults}: ${verdict.failures.join("; ")}`),
  );
  expect(failed).toEqual([]);
});

/** Each was found by a campaign; what it found is gone since. */
test.each([
  [1410, [1], "a worker gave what cannot count twice while the honest one was still on its way in: the run ended"],
  [1758, [0, 1], "two gave what cannot count while the honest one was on its way in: the run ended"],
  [3071, [0, 1], "the honest one was between two connections: the run ended"],
  [
    2359,
    [1, 2, 4, 6, 7],
    "the only trusted worker was not to be asked, the honest one was on probation: it waited for ever",
  ],
  [8342, [0, 2], "the same, after a connection that was dead on one side"],
  [7045, [1, 2, 3, 4, 7, 8], "the same, after delays and messages out of order"],
  [6474, [0], "windows that never came blocked the leases after them until the coordinator's last patience"],
] as [number, number[], string][])("world %i with faults %j: %s", async (seed, faults) => {
  expect(await live(withFaults(planOf(seed), faults))).toMatchObject({ failures: [] });
});

test("a world is the same each time, whatever the machine does", async () => {
  for (const seed of [5, 17, 29]) expect(await live(planOf(seed))).toEqual(await live(planOf(seed)));
});

test("the reference depends on every step and shard", () => {
  const plan = planOf(3);
  const digest = referenceDigest(plan);
  const fewer = { ...plan, options: { ...plan.options, steps: plan.options.steps - 1 } };
  const other = { ...plan, options: { ...plan.options, seed: 4 } };
  expect(new Set([digest, referenceDigest(fewer), referenceDigest(other)]).size).toBe(3);
});
