// What a disk refuses: one clear line, nothing lost. A limit on the size of files makes writes short and then refuses
// them, as a full disk does, for every user; a foreign user's folder and odd paths do the rest.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, unlinkSync, writeFileSync } from "node:fs";
import { cp, rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { coordinator, digestOf, killAll, ledgerOf, temporary, text, weft } from "./weft.ts";

const directory = temporary();
const few = join(directory, "few.txt");
writeFileSync(few, "abcdefgh ".repeat(200));
const common = [
  ...["--family", "bigram", "--block-size", "8", "--steps", "150", "--batch-size", "4", "--shards", "4"],
  ...["--eval-windows", "4", "--eval-interval", "0"],
];
const alone = ["--sample-tokens", "0", "--port", "0", "--workers", "1"];
const tiny = ["--data", text, ...common, ...alone];
const program = join(import.meta.dirname, "../../dist/cli/weft.js");

/** Run weft with no file above so many KiB. */
function limited(kib: number, args: readonly string[], environment: Record<string, string> = {}) {
  const script = `trap '' XFSZ; ulimit -f ${kib}; exec "$0" "$@"`;
  return spawnSync("bash", ["-c", script, process.execPath, program, ...args], {
    env: { ...process.env, ...environment },
    encoding: "utf8",
  });
}

/** The lines of standard error that are no log. */
const said = (stderr: string): string[] =>
  stderr.split("\n").filter((line) => line !== "" && !/^\{|^[a-z ]+: \d+ %/.test(line));
const whole = join(directory, "whole");

beforeAll(async () => {
  const run = weft(["train", ...tiny, "--out", whole, "--checkpoint-interval", "50"]);
  expect(await run.ended, run.stderr()).toBe(0);
});
afterAll(async () => {
  killAll();
  await rm(directory, { recursive: true, force: true });
});

test("a ledger that the disk cuts in the middle of a line: training goes on, the last checkpoint stays, nothing is lost", async () => {
  const out = join(directory, "cut");
  const args = ["train", "--data", few, ...common, ...alone, "--checkpoint-interval", "50", "--out"];
  const ended = limited(30, [...args, out]);
  expect(ended.status, ended.stderr).toBe(1);
  expect(ended.stderr).toMatch(/ledger.jsonl cannot be written \(EFBIG\).*training goes on/);
  expect(ended.stderr).toMatch(/"msg":"the checkpoint of step \d+ is not written: .*ledger.jsonl cannot be written/);
  const last = said(ended.stderr);
  expect(last, ended.stderr).toHaveLength(1);
  expect(last[0]).toMatch(/^(the last checkpoint is not written: )?.*ledger.jsonl cannot be written \(EFBIG\)/);
  // The half line is there, and the checkpoints before it.
  expect(readFileSync(join(out, "ledger.jsonl")).length).toBe(30 * 1024);
  expect(readdirSync(out)).toContain("step-000050");
  const honest = weft([...args, join(directory, "honest")]);
  expect(await honest.ended, honest.stderr()).toBe(0);
  const resumed = weft([...args, out, "--resume"]);
  expect(await resumed.ended, resumed.stderr()).toBe(0);
  expect(digestOf(out)).toBe(digestOf(join(directory, "honest")));
  expect(ledgerOf(out).map(({ step }) => step)).toEqual(Array.from({ length: 150 }, (_, i) => i + 1));
});

test("checkpoints that the disk refuses are told at once and tried again; without room at the end the run fails", () => {
  const out = join(directory, "full");
  const ended = limited(16, ["train", ...tiny, "--steps", "30", "--out", out, "--checkpoint-interval", "10"]);
  expect(ended.status, ended.stderr).toBe(1);
  // Once more at the end: a fault that has passed by then costs nothing.
  expect(ended.stderr.match(/"msg":"the checkpoint of step (10|20|30) is not written: /g)).toHaveLength(4);
  expect(said(ended.stderr)).toEqual([
    expect.stringMatching(/^the last checkpoint is not written: .*safetensors cannot be written \(EFBIG\)/),
  ]);
  expect(readdirSync(out).filter((name) => name.includes("step"))).toEqual([]);
});

test("every command's refusal is one line", async () => {
  const file = join(directory, "file");
  writeFileSync(file, "");
  const below = join(file, "below");
  const run = ["--checkpoint", whole];
  const cases: [string[], RegExp, Record<string, string>?][] = [
    [["train", ...tiny, "--out", file], /file cannot be written \(EEXIST|ENOTDIR\)/],
    [["train", ...tiny, "--out", below], /below cannot be written \(ENOTDIR\)/],
    [["coordinator", "--data", text, ...common, "--port", "0", "--out", below], /below cannot be written \(ENOTDIR\)/],
    [["convert", whole, "--out", below], /below.* cannot be written \(ENOTDIR\)|below: cannot be written \(ENOTDIR\)/],
    [["data", "prepare", text, "--out", below], /below cannot be written \(ENOTDIR\)/],
    [["data", "train-tokenizer", text, "--out", below], /below cannot be written \(ENOTDIR\)/],
    [["sample", ...run, "--prompt-file", directory], /cannot be read \(EISDIR\)/],
    [["train", ...tiny, "--data", below, "--out", join(directory, "x")], /below/],
  ];
  for (const [args, message, environment] of cases) {
    const ended = weft(args, environment ?? {});
    expect(await ended.ended, ended.stderr()).toBe(1);
    expect(said(ended.stderr()), args.join(" ")).toEqual([expect.stringMatching(message)]);
  }
});

test.each([
  ["convert", (out: string) => ["convert", whole, "--out", out]],
  ["data prepare", (out: string) => ["data", "prepare", text, "--out", out]],
])("%s on a full disk: one line, and no half result", (_, args) => {
  const out = join(directory, "half");
  const ended = limited(4, args(out));
  expect([ended.status, said(ended.stderr)]).toEqual([1, [expect.stringMatching(/cannot be written \(EFBIG\)/)]]);
  expect(existsSync(join(out, "config.json")) || existsSync(join(out, "data.json"))).toBe(false);
});

test("standard output that takes nothing", () => {
  const script = `exec "$0" "$@" > /dev/full`;
  const ended = spawnSync("bash", ["-c", script, process.execPath, program, "sample", "--checkpoint", whole], {
    encoding: "utf8",
  });
  expect(ended.status, ended.stderr).toBe(1);
  expect(said(ended.stderr).at(-1)).toMatch(/^standard output cannot be written \(ENOSPC\)/);
});

test("pull and sample --from: a missing TMPDIR, a folder that is a file", async () => {
  await using run = await coordinatorOf(whole);
  const from = ["--from", run.url];
  for (const [args, message, environment] of [
    [["sample", ...from], /nowhere cannot be written \(ENOENT\).*; TMPDIR names another/, { TMPDIR: "/nowhere" }],
    [["pull", ...from, "--out", join(text, "x")], /x\S* cannot be written \(ENOTDIR\)/, {}],
  ] as const) {
    const ended = weft(args, environment);
    expect(await ended.ended, ended.stderr()).toBe(1);
    expect(said(ended.stderr())).toEqual([expect.stringMatching(message)]);
  }
  const out = join(directory, "pulled");
  const full = limited(4, ["pull", ...from, "--out", out]);
  expect([full.status, said(full.stderr).at(-1)]).toEqual([1, expect.stringMatching(/cannot be written \(EFBIG\)/)]);
  const again = weft(["pull", ...from, "--out", out]);
  expect(await again.ended, again.stderr()).toBe(0);
  // A pulled checkpoint is a run to go on from: its ledger begins with the digest it came with.
  const more = weft(["train", ...tiny, "--steps", "150", "--out", out, "--resume"]);
  expect(await more.ended, more.stderr()).toBe(0);
});

test("two coordinators on one folder: the second is refused by name, a killed one leaves nothing behind", async () => {
  const out = join(directory, "two");
  const args = ["--data", text, ...common, "--out", out];
  const first = await coordinator(args);
  const second = weft(["coordinator", "--port", "0", ...args]);
  expect(await second.ended).toBe(1);
  expect(said(second.stderr())).toEqual([
    expect.stringMatching(
      new RegExp(`two is in use by process ${first.child.pid} on .*; stop that one, or choose another`),
    ),
  ]);
  first.child.kill("SIGKILL");
  await first.ended;
  const third = await coordinator(args);
  third.child.kill("SIGKILL");
  expect(await third.ended).toBe("SIGKILL");
});

test("damaged markers, a symbolic link for a ledger, a leftover that cannot be removed: said, and gone on", async () => {
  const out = join(directory, "odd");
  await cp(whole, out, { recursive: true });
  writeFileSync(join(out, "markers.json"), '{"best":');
  mkdirSync(join(out, ".unfinished-step-000100"));
  writeFileSync(join(out, ".unfinished-step-000100", "model.safetensors"), "half");
  const args = ["train", ...tiny, "--steps", "150", "--out", out, "--resume"];
  const resumed = weft(args);
  expect(await resumed.ended, resumed.stderr()).toBe(0);
  expect(resumed.stderr()).toMatch(
    /markers.json is damaged \(not JSON.*: the best and the final checkpoint are found anew/,
  );
  const ledger = join(out, "ledger.jsonl");
  await cp(ledger, join(directory, "elsewhere.jsonl"));
  unlinkSync(ledger);
  symlinkSync(join(directory, "elsewhere.jsonl"), ledger);
  const linked = weft(args);
  expect(await linked.ended).toBe(1);
  expect(said(linked.stderr())).toEqual([
    expect.stringMatching(/ledger.jsonl is a symbolic link; "weft audit .* --repair"/),
  ]);
});

test.skipIf(process.platform !== "linux")("calls that fail one by one, in everything that Weft writes", () => {
  const driver = join(import.meta.dirname, "../../dist/test/disk/main.js");
  const ended = spawnSync(process.execPath, [driver, "--every", "307"], { encoding: "utf8" });
  expect(ended.status, ended.stderr).toBe(0);
  expect(ended.stderr.match(/: [1-9]\d* faults/g)?.length, ended.stderr).toBeGreaterThan(5);
});

async function coordinatorOf(run: string) {
  const served = join(directory, "served");
  await cp(run, served, { recursive: true });
  const process = weft(["coordinator", "--data", text, ...common, "--port", "0", "--out", served, "--resume"]);
  const { msg } = await process.until((line) => line.msg.startsWith("listening on "));
  await process.until((line) => line.msg.startsWith("still serving"));
  return {
    url: `http://${/listening on (\S+):/.exec(msg)![1]}`,
    async [Symbol.asyncDispose]() {
      process.child.kill("SIGTERM");
      await process.ended;
    },
  };
}
