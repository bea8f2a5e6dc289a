// Making a run whole again of what is left: lines of the ledger that were damaged are replaced by one that says so and
// keeps the chain, what leads to no checkpoint and cannot be read is cut off. No proven step goes, and the files as they
// were stay beside the new ones.
import { copyFile, lstat, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { checkpointName, unfinishedPrefix } from "../../shared/checkpoint/checkpoint.ts";
import { syncDirectory, writeProven } from "../../shared/checkpoint/manifest.ts";
import { checkpointSteps, mark, prune } from "../../shared/checkpoint/rundir.ts";
import { onDisk } from "../../shared/disk.ts";
import { ConfigError } from "../../shared/errors.ts";
import { lockRun } from "../lock.ts";
import { damageOf, headsOf, type Proof, proveCheckpoint, readLines } from "./audit.ts";
import { type ChainLine, chainStart, ledgerName, linesFor, stepAfter } from "./chain.ts";

/** @returns what was done, a sentence each. @throws ConfigError where a coordinator is at work on the run */
export async function repairRun(directory: string): Promise<string[]> {
  const lock = await lockRun(directory);
  try {
    const done: string[] = [];
    await repairLedger(directory, done);
    // Markers that were damaged are found anew by reading them; what interrupted writes left goes.
    await mark(directory, {}, (why) => done.push(why));
    await prune(directory, Number.POSITIVE_INFINITY, { onSkip: (why) => done.push(why) });
    return done;
  } finally {
    await lock.release();
  }
}

/** What cannot be read proves nothing: a ledger must not be cut for it. */
function refuse(error: ConfigError): never {
  throw new ConfigError(`${error.message}; nothing was repaired`, { cause: error });
}

async function repairLedger(directory: string, done: string[]): Promise<void> {
  const path = join(directory, ledgerName);
  const lines = await readLines(directory);
  if (!lines) {
    done.push(`${ledgerName} is not there; --resume begins a new one that names the weights it begins with`);
    return;
  }
  const proofs: Proof[] = [];
  for (const step of await checkpointSteps(directory))
    proofs.push(await proveCheckpoint(directory, checkpointName(step), [], refuse));
  const { bytes, lost, cut } = mended(lines, proofs);
  const isLink = await lstat(path).then((entry) => entry.isSymbolicLink());
  if (!isLink && lost.length === 0 && cut === 0) return;
  const names = await readdir(directory);
  const copy = [...Array(1000).keys()]
    .map((i) => `${ledgerName}.damaged-${i + 1}`)
    .find((name) => !names.includes(name))!;
  await onDisk(join(directory, copy), "written", () => copyFile(path, join(directory, copy)));
  const temporary = join(directory, `${unfinishedPrefix}${ledgerName}`);
  await onDisk(path, "written", async () => {
    await rm(temporary, { force: true });
    await writeProven(temporary, bytes);
    await rename(temporary, path);
    await syncDirectory(directory);
  });
  if (isLink) done.push(`${ledgerName} was a symbolic link and is a file now`);
  for (const span of lost) done.push(`${ledgerName}: ${span} lost; the chain goes on behind it`);
  if (cut > 0)
    done.push(`${ledgerName}: ${cut} lines at its end that lead to no checkpoint could not be read and were cut off`);
  done.push(`the ledger as it was is ${copy}`);
}

/** The lines that stay, with one for each gap. */
function mended(lines: readonly ChainLine[], proofs: readonly Proof[]) {
  const damaged = damageOf(lines, headsOf(proofs));
  const bytes: Buffer[] = [];
  const lost: string[] = [];
  let [previous, number, step, steps] = [chainStart, 0, 0, 1];
  let gap = 0;
  /** @param last step that is lost @param count lines */
  const lose = (last: number, count: number, hash: string | undefined) => {
    const first = step + 1;
    const marker = { lost: { first, last, ...(count !== last - step && { lines: count }) }, hash, previous };
    bytes.push(Buffer.from(`${JSON.stringify(marker)}\n`));
    lost.push(first === last ? `step ${first} is` : `steps ${first} to ${last} are`);
    number += count;
    gap = 0;
  };
  for (const [i, line] of lines.entries()) {
    if (damaged.has(i) && line.kind !== "lost") {
      gap++;
      continue;
    }
    if (gap > 0) {
      // How many lines are gone is known by the step that follows: a hole may have swallowed several.
      const last = line.kind === "step" ? Math.max(step + 1, line.entry.step - line.entry.steps) : step + gap;
      lose(last, line.kind === "step" ? linesFor(last - step, steps, line.entry.steps) : gap, line.previous);
    }
    bytes.push(line.bytes);
    previous = line.hash;
    number++;
    step = stepAfter(line) ?? step;
    if (line.kind === "step") ({ steps } = line.entry);
  }
  // A gap at the end that a checkpoint was written after keeps its place; anything else there proves nothing.
  const ahead = proofs.flatMap(({ state }) => (state && state.ledger.lines > number ? [state] : []));
  const behind = ahead.sort((a, b) => a.step - b.step)[0];
  if (gap > 0 && behind) lose(behind.step, behind.ledger.lines - number, behind.ledger.head);
  return { bytes, lost, cut: gap };
}
