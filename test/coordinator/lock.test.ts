// One coordinator a folder, also where the lock cannot be taken by the preferred means.
import { chmodSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { lockRun } from "../../coordinator/lock.ts";

const { PATH } = process.env;
let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "weft-lock-"));
});
afterEach(() => {
  process.env.PATH = PATH;
  rmSync(folder, { recursive: true });
});

test.skipIf(process.platform !== "linux").each([
  ["flock(1)", undefined],
  ["no such program", []],
  ["a file system without locks, as util-linux says it", ["exit 71"]],
  ["a file system without locks, as BusyBox says it", ["echo 'flock: No locks available' >&2", "exit 1"]],
])("%s: the second is refused, and comes in when the first is gone", async (_, flock) => {
  if (flock) {
    process.env.PATH = mkdtempSync(`${folder}/`);
    const program = join(process.env.PATH, "flock");
    writeFileSync(program, ["#!/bin/sh", ...flock, ""].join("\n"));
    chmodSync(program, flock.length > 0 ? 0o755 : 0o644);
  }
  const run = join(folder, "run");
  const first = await lockRun(run);
  writeFileSync(join(run, "ledger.jsonl"), "");
  await expect(lockRun(run)).rejects.toThrow(`${run} is in use by process ${process.pid} on `);
  await expect(lockRun(run)).rejects.toThrow("stop that one");
  await first.release();
  const second = await lockRun(run);
  await second.release();
  expect(readdirSync(run)).toContain("ledger.jsonl");
});
