// A run's proof: what is whole passes, every changed byte is found and named, steps come out again with the same digest,
// and a repair keeps all that is proven.
import { cp, mkdtemp, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { auditRun } from "../../../coordinator/proof/audit.ts";
import { repairRun } from "../../../coordinator/proof/repair.ts";
import { digestOf, killAll, ledgerOf, text, weft } from "../../system/weft.ts";

let folder: string;
let run: string;
const steps = 60;
const args = [
  ...["train", "--data", text, "--block-size", "8", "--n-layer", "1", "--n-head", "1", "--n-embd", "8", "--port", "0"],
  ...["--steps", `${steps}`, "--batch-size", "4", "--shards", "4", "--eval-windows", "4", "--eval-interval", "0"],
  ...["--checkpoint-interval", "20", "--keep-checkpoints", "9", "--sample-tokens", "0", "--workers", "2"],
];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "weft-audit-"));
  run = join(folder, "run");
  const trained = weft([...args, "--out", run]);
  expect(await trained.ended, trained.stderr()).toBe(0);
});
afterAll(async () => {
  killAll();
  await rm(folder, { recursive: true });
});

let copies = 0;
async function copyOfRun(): Promise<string> {
  const copy = join(folder, `copy-${++copies}`);
  await cp(run, copy, { recursive: true });
  return copy;
}

/** Every file that proves something, with its length. */
async function provenFiles(): Promise<[string, number][]> {
  const names = await readdir(run, { recursive: true, withFileTypes: true });
  const files = names.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const inside = files
    .map((path) => path.slice(run.length + 1))
    .filter((name) => !/^(history\.json|\.lock)$/.test(name));
  return await Promise.all(
    inside.map(async (name): Promise<[string, number]> => [name, (await readFile(join(run, name))).length]),
  );
}

test("a whole run is proven: its chain, every shard of every step, its checkpoints", async () => {
  const audit = await auditRun(run);
  expect(audit.findings).toEqual([]);
  expect(audit).toMatchObject({ lines: steps, firstStep: 1, lastStep: steps, shards: 4 * steps, provenUpTo: steps });
  expect(audit.checkpoints.map(({ step, whole }) => [step, whole])).toEqual([20, 40, 60].map((step) => [step, true]));
  expect(Object.values(audit.workers).reduce((sum, shards) => sum + shards, 0)).toBe(4 * steps);
});

test("one changed bit anywhere is found, in the file where it is", async () => {
  const files = await provenFiles();
  const where = fc
    .constantFrom(...files)
    .chain(([name, length]) => fc.tuple(fc.constant(name), fc.nat(length - 1), fc.nat(7)));
  const copy = await copyOfRun();
  await fc.assert(
    fc.asyncProperty(where, async ([name, position, bit]) => {
      const path = join(copy, name);
      const bytes = await readFile(path);
      bytes[position]! ^= 1 << bit;
      await writeFile(path, bytes);
      const { findings } = await auditRun(copy);
      bytes[position]! ^= 1 << bit;
      await writeFile(path, bytes);
      const named = findings.map((finding) => finding.where).join("\n");
      const inCheckpoint = name.split("/")[0]!;
      expect(named, `${name} byte ${position} bit ${bit}`).toContain(
        name.includes("manifest.json") ? inCheckpoint : name,
      );
      if (name !== "ledger.jsonl") return;
      const line = bytes.subarray(0, position).toString().split("\n").length;
      // A bit in the line break joins two lines, and one that makes a line break splits one.
      expect(named, `line ${line}: ${JSON.stringify(findings)}`).toMatch(
        new RegExp(`line (${line}|${line + 1})( |$)`, "m"),
      );
    }),
    { numRuns: 60 },
  );
});

test("another checkpoint marked as the final one is found: one bit makes 20 of 60", async () => {
  const copy = await copyOfRun();
  const path = join(copy, "markers.json");
  const text = await readFile(path, "utf8");
  expect(text).toContain('"final":{"step":60}');
  await writeFile(path, text.replace('"final":{"step":60}', '"final":{"step":20}'));
  expect((await auditRun(copy)).findings).toEqual([
    { where: "markers.json", what: "it was changed: step-000020 is of a run of 60 steps, not its final checkpoint" },
  ]);
});

test.each([
  ["a shard twice", (e: Entry) => ({ ...e, parts: [...e.parts, e.parts[0]!] }), /shard \d was counted twice/],
  [
    "a shard missing",
    (e: Entry) => ({ ...e, parts: [{ ...e.parts[0]!, shards: "0-2" }] }),
    /3 shards were counted, a step of this run has 4/,
  ],
  [
    "too many shards",
    (e: Entry) => ({ ...e, parts: [{ ...e.parts[0]!, shards: "0-7" }] }),
    /8 shards were counted, a step of this run has 4/,
  ],
])("%s, by one who makes the chain anew", async (_, change, message) => {
  const copy = await copyOfRun();
  const { createHash } = await import("node:crypto");
  let previous = "0".repeat(64);
  const lines = (ledgerOf(copy) as Entry[]).map((entry) => {
    const line = `${JSON.stringify({ ...(entry.step === 30 ? change(entry) : entry), previous })}\n`;
    previous = createHash("sha256").update(line).digest("hex");
    return line;
  });
  await writeFile(join(copy, "ledger.jsonl"), lines.join(""));
  const { findings } = await auditRun(copy);
  expect(findings.find(({ where }) => where.endsWith("(step 30)"))?.what).toMatch(message);
  // The checkpoint behind it knows another head.
  expect(
    findings.some(({ what }) => what.includes("the checkpoint written after it knows it by another SHA-256")),
  ).toBe(true);
});
interface Entry {
  step: number;
  parts: { shards: string; worker: string; leases: number }[];
}

test("steps computed again with another number of threads have the digests of the ledger; a forged one has not", async () => {
  const { workers } = await auditRun(run);
  const [name, shards] = Object.entries(workers)[0]!;
  const good = weft(["audit", run, "--replay", "25-27", "--threads", "2", "--worker", name, "--json"]);
  expect(await good.ended, good.stderr()).toBe(0);
  const report = JSON.parse(good.stdout());
  expect(report.ok).toBe(true);
  expect(report.replay.from).toBe("step-000020");
  expect(report.replay.steps.map((s: { step: number }) => s.step)).toEqual([25, 26, 27]);
  expect(report.worker.shards).toBe(shards);
  const copy = await copyOfRun();
  const ledger = join(copy, "ledger.jsonl");
  const { weights } = ledgerOf(copy)[25]!;
  await writeFile(
    ledger,
    (await readFile(ledger, "utf8")).replace(
      weights,
      weights.replace(/^./, (c) => (c === "0" ? "1" : "0")),
    ),
  );
  const forged = weft(["audit", copy, "--replay", "25-27"]);
  expect(await forged.ended, forged.stderr()).toBe(1);
  expect(forged.stdout()).toMatch(/wrong: ledger.jsonl line 26 \(step 26\): it was changed/);
  expect(forged.stdout()).toMatch(/wrong: step 26: its weights come out as/);
});

test("a repair keeps every proven step, and the run goes on to the same bits", async () => {
  const copy = await copyOfRun();
  const ledger = join(copy, "ledger.jsonl");
  const lines = (await readFile(ledger, "utf8")).split("\n");
  // A hole of NULs over the end of line 10 and the beginning of line 11, and a torn tail.
  const start = lines.slice(0, 9).join("\n").length + 40;
  const bytes = await readFile(ledger);
  bytes.fill(0, start, start + lines[9]!.length);
  await writeFile(ledger, bytes);
  await rm(join(copy, "step-000060"), { recursive: true });
  await truncate(ledger, bytes.length - 20);
  await writeFile(join(copy, "markers.json"), "{");
  const resume = [...args, "--out", copy, "--resume"];
  const refused = weft(resume);
  expect(await refused.ended).toBe(1);
  expect(refused.stderr()).toMatch(/line 10 does not follow.*weft audit .* --repair/);
  const done = await repairRun(copy);
  expect(done.join("\n")).toMatch(
    /steps 10 to 11 are lost; the chain goes on behind it\n.*1 lines at its end.*cut off\n.*damaged-1\n.*markers.json is damaged/,
  );
  const { findings, lastStep } = await auditRun(copy);
  expect(findings).toEqual([{ where: "ledger.jsonl line 11", what: expect.stringMatching(/steps 10 to 11 are lost/) }]);
  expect(lastStep).toBe(59);
  expect(await readFile(join(copy, "ledger.jsonl.damaged-1"))).toHaveLength(bytes.length - 20);
  const resumed = weft(resume);
  expect(await resumed.ended, resumed.stderr()).toBe(0);
  expect(digestOf(copy)).toBe(digestOf(run));
  expect(await repairRun(run)).toEqual([]);
});
