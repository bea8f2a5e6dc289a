// Some hundred worlds in every run of the tests, and those that once failed, by name. `npm run simulate` lives in as many
// as there is time for.
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { expect, test } from "vitest";
import { wireFormats } from "../../shared/arithmetic/codec.ts";
import { campaign, withFaults } from "./campaign.ts";
import type { Fault } from "./faults.ts";
import { inRounds, lean, live, lyingPlanOf, type Plan, planOf, referenceDigest, withRelays } from "./world.ts";

test("200 worlds, and 100 with little room where every other worker draws its windows itself", async () => {
  const failed: string[] = [];
  const run = (first: number, count: number, more: string, plan: (seed: number) => Plan) =>
    campaign(
      first,
      count,
      ({ seed, verdict, faults }) =>
        failed.push(`npm run simulate -- --seed ${seed} --faults ${faults}${more}: ${verdict.failures.join("; ")}`),
      plan,
    );
  await run(1, 200, "", planOf);
  await run(201, 100, " --lean", (seed) => lean(planOf(seed)));
  expect(failed).toEqual([]);
});

test("100 worlds in rounds of local steps, and 8 of them with a liar", async () => {
  const failed: string[] = [];
  const run = (count: number, more: string, plan: (seed: number) => Plan) =>
    campaign(
      1,
      count,
      ({ seed, verdict, faults }) =>
        failed.push(
          `npm run simulate -- --local --seed ${seed} --faults ${faults}${more}: ${verdict.failures.join("; ")}`,
        ),
      (seed) => inRounds(plan(seed)),
    );
  await run(100, "", planOf);
  await run(8, " --verify 0.1", (seed) => lyingPlanOf(seed, 0.1));
  expect(failed).toEqual([]);
});

test("units of many timeouts: nobody is asked twice while all go on, and a mute one is found out by its silence", async () => {
  const { options, ...plan } = inRounds(planOf(3));
  const link = { latencyMs: 1, bytesPerMs: 1000 };
  const local = { localSteps: 20, replicas: 4, shards: 4, batchSize: 4, steps: 60, timeout: 1, evalInterval: 0 };
  // A replica takes 40 timeouts: twice what a silent lease is waited for before its connection is closed.
  const workers = Array.from({ length: 3 }, () => ({ unitMs: 2000, link }));
  const long = { ...plan, options: { ...options, ...local, decaySteps: 60 }, workers };
  const calm = await live({ ...long, faults: [] });
  expect(calm).toMatchObject({ failures: [], hedged: 0 });
  // Three rounds, in each of which somebody has two, and an evaluation.
  expect(calm.virtualMs).toBeLessThan(1.02 * 3 * 2 * 20 * 2000 + 14 * 2000);
  const below = withRelays({ ...long, faults: [] }, 1, true);
  expect(
    await live({ ...below, relays: below.relays!.map((relay) => ({ ...relay, killedAt: Number.POSITIVE_INFINITY })) }),
  ).toMatchObject({
    failures: [],
    hedged: 0,
    // Of the first unit, when nobody's speed is known, two of the relay's workers compute copies: it is not lost for that.
    gradients: 60 * 4 + 2 * 20,
  });
  const mute = { kind: "mute", at: 100_000, forMs: 1e9, worker: 1 } as const;
  expect(await live({ ...long, faults: [mute] })).toMatchObject({ failures: [] });
});

test("whoever computes and says so stays, when another was faster with what waited behind that", async () => {
  const { options, ...plan } = inRounds(planOf(3));
  const link = { latencyMs: 1, bytesPerMs: 1000 };
  const local = { localSteps: 20, replicas: 8, shards: 8, batchSize: 8, steps: 40, timeout: 1, evalInterval: 0 };
  // The first gets 30 s of work, and behind it more that the last, ten times as fast, takes over.
  const workers = [3025, 1574, 6502, 315].map((unitMs) => ({ unitMs, link }));
  const verdict = await live({ ...plan, options: { ...options, ...local, decaySteps: 40 }, workers, faults: [] });
  expect(verdict).toMatchObject({ failures: [], left: 0 });
  expect(verdict.hedged).toBeGreaterThan(0);
});

test.each([
  [1, "ends in the honest digest, or nobody was there to ask and the ledger says so"],
  [0.1, "goes back when the liar is found, and ends in the honest digest"],
] as [number, string][])("with a liar and --verify %d each of 25 worlds %s", async (verify) => {
  const failed: string[] = [];
  await campaign(
    1,
    25,
    ({ seed, verdict, faults }) =>
      failed.push(
        `npm run simulate -- --seed ${seed} --faults ${faults} --verify ${verify}: ${verdict.failures.join("; ")}`,
      ),
    (seed) => lyingPlanOf(seed, verify),
  );
  expect(failed).toEqual([]);
});

test("worlds with relays one and two deep, which are killed", async () => {
  const failed: string[] = [];
  for (let seed = 1; seed <= 100; seed++) {
    const { failures } = await live(withRelays(planOf(seed), 1 + (seed % 2)));
    if (failures.length > 0) failed.push(`world ${seed}: ${failures.join("; ")}`);
  }
  expect(failed).toEqual([]);
});

test("workers of a relay that died go on with the next coordinator, and come back to it when it is back", async () => {
  const { options, workers } = planOf(5);
  const two = [0, 1].map(() => ({ ...workers[0]!, unitMs: 500 }));
  const settings = {
    ...options,
    steps: 100,
    decaySteps: 100,
    shards: 4,
    batchSize: 4,
    evalInterval: 0,
    evalSampleTokens: 0,
  };
  const plan = withRelays({ seed: 5, options: settings, workers: two, faults: [] }, 1, true);
  const {
    failures,
    workers: helpers,
    last,
  } = await live({
    ...plan,
    relays: plan.relays!.map((relay) => ({ ...relay, killedAt: 10_000 })),
  });
  expect(failures).toEqual([]);
  expect(helpers).toEqual(new Set(["r0", "w0", "w1"]));
  expect(last).toEqual(new Set(["r0"]));
});

test("relays that name each other first do not wait for each other", async () => {
  const { options, workers } = planOf(5);
  const link = { latencyMs: 1, bytesPerMs: 1000 };
  const about = { steps: 400, decaySteps: 400, shards: 4, batchSize: 4, evalInterval: 0, evalSampleTokens: 0 };
  // They look for better addresses every 30 s: the run takes minutes.
  const both = [0, 0].map((below) => ({ ...workers[0]!, unitMs: 200, below }));
  // One is later by more than a knock takes: else each would find the other on its way.
  const relays = [
    { link, first: 1, killedAt: Number.POSITIVE_INFINITY },
    { link: { ...link, latencyMs: 800 }, first: 0, killedAt: Number.POSITIVE_INFINITY },
  ];
  const plan = { seed: 5, options: { ...options, ...about }, workers: both, faults: [], relays };
  const { failures, virtualMs, workers: helpers } = await live(plan);
  expect(failures).toEqual([]);
  expect(helpers.size).toBeGreaterThan(0);
  expect(virtualMs).toBeLessThan(400 * 4 * 200 + 400 * 4 * 800);
});

test.each(wireFormats.flatMap((wire) => [[wire, 1, 4] as const, [wire, 20, 4] as const, [wire, 20, 8] as const]))(
  "%s, H %d, R %d: one digest for 1, 2, 3 and 5 workers below no relay, one and two, whoever is killed",
  async (wire, localSteps, replicas) => {
    const { options, workers } = planOf(5);
    const steps = localSteps === 1 ? 6 : 50;
    const about = { wire, localSteps, replicas, steps, decaySteps: steps, shards: 8, batchSize: 8 };
    const settings = { ...options, ...about, evalInterval: 0, evalSampleTokens: 0, checkpointInterval: localSteps };
    for (const count of [1, 2, 3, 5])
      for (const depth of [0, 1, 2]) {
        const few = Array.from({ length: count }, (_, i) => ({ ...workers[0]!, unitMs: 10 + 7 * i }));
        const plan = { seed: 5, options: settings, workers: few, faults: [] };
        const spanMs = (steps * 8 * 10) / count;
        const below = (killedAt: number, honestBelow: boolean): Plan => {
          const relayed = withRelays(count % 2 === 0 ? plan : lean(plan), depth, honestBelow);
          return { ...relayed, relays: relayed.relays!.map((relay) => ({ ...relay, killedAt })) };
        };
        const calm = await live(below(Number.POSITIVE_INFINITY, true));
        expect(calm.failures, `${count} workers, ${depth} relays`).toEqual([]);
        if (depth > 0) expect(calm.workers).toEqual(new Set(["r0"]));
        const faults: Fault[] = [{ kind: "kill", at: 0.6 * spanMs, forMs: 100, worker: 0 }];
        if (count > 1) faults.push({ kind: "crash", at: 0.3 * spanMs, forMs: 200, worker: count - 1 });
        const killed = await live({ ...below(0.2 * spanMs, false), faults });
        expect(killed.failures, `${count} workers, ${depth} relays, all of them killed`).toEqual([]);
      }
  },
);

test.each([1, 20])(
  "64 workers, %d local steps: a coordinator holds no more gradients than it has room for",
  async (localSteps) => {
    const { options } = planOf(7);
    const many = { shards: 64, batchSize: 64, replicas: 64, localSteps, steps: 3 * localSteps, timeout: 5 };
    // All are done at once, in any order; a vector takes the wire as long as a unit takes a worker.
    const crew = Array.from({ length: 64 }, (_, i) => ({
      unitMs: 20 + ((i * 37) % 64) / 8,
      link: { latencyMs: 1, bytesPerMs: 100 },
    }));
    const settings = { ...options, ...many, decaySteps: many.steps, evalInterval: 0, evalSampleTokens: 0 };
    const plan: Plan = { seed: 7, options: settings, workers: crew, faults: [], roomBytes: 0 };
    const bounded = await live(plan);
    expect(bounded.failures).toEqual([]);
    // One for each level of the tree, one more that comes, and two.
    expect(bounded.peak).toBeLessThanOrEqual(9);
    // Nothing else keeps them from coming all at once.
    expect((await live({ ...plan, roomBytes: 2 ** 30 })).peak).toBeGreaterThan(32);
  },
);

test("one worker, many shards and the least room: what it has computed is never given up for what it has behind it", async () => {
  const { options } = planOf(7);
  const one = { shards: 32, batchSize: 32, localSteps: 1, steps: 3, timeout: 5, evalInterval: 0, evalSampleTokens: 0 };
  const workers = [{ unitMs: 40, link: { latencyMs: 1, bytesPerMs: 10_000 } }];
  const settings = { ...options, ...one, decaySteps: 3 };
  const verdict = await live({ seed: 7, options: settings, workers, faults: [], roomBytes: 0 });
  expect(verdict.failures).toEqual([]);
  expect(verdict.virtualMs).toBeLessThan(1.5 * 3 * 32 * 40);
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
  [132164, [2, 4, 5, 6, 7], "two on probation copied each other's leases, the honest one was never asked"],
  [6474, [0], "windows that never came blocked the leases after them until the coordinator's last patience"],
] as [number, number[], string][])("world %i with faults %j: %s", async (seed, faults) => {
  expect(await live(withFaults(planOf(seed), faults))).toMatchObject({ failures: [] });
});

test.each<[string, () => Plan]>([
  [
    "two gave the same loss of 1.7e308, and outvoted the honest one",
    () => withFaults(lean(lyingPlanOf(6001406, 0.3)), [0, 1]),
  ],
  [
    "a local step took longer than the last patience, and nothing was heard before its end: no step ever",
    () => inRounds(lyingPlanOf(6100153, 0.3)),
  ],
  [
    "two who differed stopped the run while a slower third was at it: no step ever",
    () => inRounds(lyingPlanOf(6300399, 0.3)),
  ],
])("worlds with liars: %s", async (_, plan) => {
  expect(await live(plan())).toMatchObject({ failures: [] });
});

test("a relay passes on the signs of work within a local step", async () => {
  const { failures, virtualMs } = await live(withRelays(inRounds(lyingPlanOf(6100153, 0.3)), 1));
  expect(failures).toEqual([]);
  // 2,158 s where it told of whole steps alone, and was closed for its silence.
  expect(virtualMs).toBeLessThan(1_500_000);
});

test("a world is the same each time, whatever the machine does", async () => {
  for (const seed of [5, 17, 29]) expect(await live(planOf(seed))).toEqual(await live(planOf(seed)));
});

test("20,000 steps leave no memory behind", async () => {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  const heaps: number[] = [];
  const onStep = (step: number) => {
    if (step % 4000 !== 0) return;
    collect();
    heaps.push(process.memoryUsage().heapUsed);
  };
  const { options, workers } = planOf(7);
  const long = { ...options, steps: 20_000, decaySteps: 20_000, evalInterval: 0, checkpointInterval: 0, shards: 4 };
  const plan = { seed: 7, options: { ...long, batchSize: 4 }, workers: workers.slice(0, 2), faults: [], onStep };
  expect(await live(plan)).toMatchObject({ failures: [] });
  // It once grew by 1.5 MiB a thousand steps: 24 MiB here.
  expect(heaps.at(-1)! - heaps[0]!).toBeLessThan(2 * 2 ** 20);
});

test("the reference depends on every step and shard", () => {
  const plan = planOf(3);
  const digest = referenceDigest(plan);
  const fewer = { ...plan, options: { ...plan.options, steps: plan.options.steps - 1 } };
  const other = { ...plan, options: { ...plan.options, seed: 4 } };
  expect(new Set([digest, referenceDigest(fewer), referenceDigest(other)]).size).toBe(3);
});

/** Three workers, four replicas, three rounds of 20 steps that take two seconds each. */
function slowRounds() {
  const { options, ...plan } = inRounds(planOf(3));
  const local = { localSteps: 20, replicas: 4, shards: 4, batchSize: 4, steps: 60, timeout: 1, evalInterval: 0 };
  const workers = Array.from({ length: 3 }, () => ({ unitMs: 2000, link: { latencyMs: 1, bytesPerMs: 1000 } }));
  return { ...plan, options: { ...options, ...local, decaySteps: 60 }, workers };
}

test("who is asked to leave in the middle of a replica and killed soon after loses none of its steps", async () => {
  const { options, ...plan } = slowRounds();
  // In the middle of a replica of each round; each is killed five seconds later.
  const faults = [25_000, 95_000, 175_000].flatMap((at, i) => [
    { kind: "leave", at, forMs: 1e9, worker: 1 + (i % 2) } as const,
    { kind: "crash", at: at + 5000, forMs: 1000, worker: 1 + (i % 2) } as const,
  ]);
  for (const innerState of ["averaged", "fresh"] as const)
    for (const wire of ["float32", "int8"] as const) {
      const long = { ...plan, options: { ...options, innerState, wire }, faults };
      expect(await live(long)).toMatchObject({ failures: [], takenOver: 3, gradients: 60 * 4 });
      // A relay's workers hand over to each other. The first unit is computed three times there, whoever leaves.
      const below = withRelays(long, 1, true);
      const relays = below.relays!.map((relay) => ({ ...relay, killedAt: Number.POSITIVE_INFINITY }));
      const later = faults.slice(2, 4).map((fault) => ({ ...fault, at: fault.at + 130_000 }));
      expect(await live({ ...below, relays, faults: later })).toMatchObject({
        failures: [],
        gradients: 60 * 4 + 2 * 20,
      });
    }
});

test("however little room there is, one state has its own; who finds none finishes its replica", async () => {
  for (const innerState of ["averaged", "fresh"] as const) {
    const { options, ...plan } = slowRounds();
    // Both at once, or the second when it may have taken over from the first.
    for (const again of [25_000, 60_000]) {
      const leave = (at: number, worker: number) => ({ kind: "leave", at, forMs: 1e9, worker }) as const;
      const faults = [leave(25_000, 1), leave(again, 2)];
      const cramped = { ...plan, options: { ...options, innerState }, faults, roomBytes: 0 };
      expect(await live(cramped)).toMatchObject({ failures: [], takenOver: 1, gradients: 60 * 4 });
      const below = withRelays(cramped, 1, true);
      const relays = below.relays!.map((relay) => ({ ...relay, killedAt: Number.POSITIVE_INFINITY }));
      const later = faults.map((fault) => ({ ...fault, at: fault.at + 205_000 }));
      expect(await live({ ...below, relays, faults: later })).toMatchObject({
        failures: [],
        gradients: 60 * 4 + 2 * 20,
      });
    }
  }
});
