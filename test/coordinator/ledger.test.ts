import { appendFile, mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeEach, expect, test } from "vitest";
import { Ledger, type LedgerEntry, ledgerStart } from "../../coordinator/ledger.ts";
import { linesOf } from "../../coordinator/proof/chain.ts";

const entry = (step: number, worker = "a"): LedgerEntry => ({
  step,
  parts: [{ shards: "0-3", worker, leases: 1 }],
  lossNats: 1 / step,
  gradientNorm: 1,
  learningRate: 1e-3,
  weights: "00",
});

let directory = "";
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "weft-ledger-"));
});

async function write(steps: number[], from = ledgerStart) {
  const ledger = await Ledger.open(directory, from);
  for (const step of steps) await ledger.append(entry(step));
  await ledger.sync();
  await ledger.close();
  return ledger.position;
}

test("a ledger reopened where a checkpoint stood loses what came after, and the chain goes on", async () => {
  const atTwo = await write([1, 2]);
  await write([3, 4], atTwo);
  const whole = await readFile(join(directory, "ledger.jsonl"), "utf8");
  const again = await write([3, 4], atTwo);
  expect(await readFile(join(directory, "ledger.jsonl"), "utf8")).toBe(whole);
  expect(again.lines).toBe(4);
});

test("a ledger that is only opened stays as it is: another process may be writing it", async () => {
  const atTwo = await write([1, 2, 3]);
  const whole = await readFile(join(directory, "ledger.jsonl"), "utf8");
  for (const position of [ledgerStart, atTwo]) await (await Ledger.open(directory, position)).close();
  expect(await readFile(join(directory, "ledger.jsonl"), "utf8")).toBe(whole);
});

test("a line that a crash cut short is cut off", async () => {
  const atTwo = await write([1, 2]);
  await appendFile(join(directory, "ledger.jsonl"), '{"step":3,"par');
  expect((await write([3], atTwo)).lines).toBe(3);
});

test("a ledger that was changed, or is too short, is refused with the line", async () => {
  const atThree = await write([1, 2, 3]);
  const path = join(directory, "ledger.jsonl");
  const text = await readFile(path, "utf8");
  await writeFile(path, text.replace('"worker":"a"', '"worker":"b"'));
  await expect(Ledger.open(directory, atThree)).rejects.toThrow("line 2 does not follow from the line before it");
  const lines = text.split("\n");
  await writeFile(path, `${lines[0]}\n${lines[1]}\n`);
  await expect(Ledger.open(directory, atThree)).rejects.toThrow("2 lines, the checkpoint was written after 3");
  await writeFile(path, `${lines[0]}\n${lines[1]}\n${lines[2]!.replace('"step":3', '"step":9')}\n`);
  await expect(Ledger.open(directory, atThree)).rejects.toThrow("line 3 is not the one that the checkpoint names");
});

test("what was undone stays said, though a crash came before the next checkpoint", async () => {
  const atTwo = await write([1, 2]);
  const begins = { step: 2, weights: "00" };
  const ledger = await Ledger.open(directory, atTwo, { begins });
  for (const step of [3, 4]) await ledger.append(entry(step, "liar"));
  await ledger.undo({ from: 4, to: 2, weights: "00", workers: ["liar"], why: "lied" });
  await ledger.append(entry(3));
  await ledger.close();
  const again = await Ledger.open(directory, atTwo, { begins });
  expect(again.position.lines).toBe(5);
  await again.append(entry(3));
  await again.close();
  const kinds: string[] = [];
  for await (const line of linesOf(join(directory, "ledger.jsonl"))) kinds.push(line.kind);
  expect(kinds).toEqual(["step", "step", "step", "step", "undone", "step"]);
  // Of other weights, or of another step: it is of steps that are done again.
  for (const other of [{ step: 2, weights: "11" }, { step: 1, weights: "00" }, undefined]) {
    const reopened = await Ledger.open(directory, atTwo, { begins: other });
    expect(reopened.position.lines).toBe(2);
    await reopened.close();
  }
  const start = await Ledger.open(directory, ledgerStart, { begins: { step: 0, weights: "00" } });
  expect(start.position.lines).toBe(0);
  await start.close();
});
