// The way back from the store of --checkpoint-to, when a run goes on: its newest checkpoint where the disk has none that is
// as new, with its ledger and curves, and who is kept out.
import { mkdir, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import type { Logger } from "pino";
import { z } from "zod";
import { stateSchema } from "../shared/checkpoint/checkpoint.ts";
import { fetchCheckpoint } from "../shared/checkpoint/fetch.ts";
import { syncDirectory } from "../shared/checkpoint/manifest.ts";
import { mark, newestCheckpoint } from "../shared/checkpoint/rundir.ts";
import { ConfigError, Interrupted } from "../shared/errors.ts";
import { isAbsent } from "../shared/json.ts";
import { ledgerName, removeCheckpoints, type StoredRun } from "../shared/store/run.ts";
import { NoSuchObjectError } from "../shared/store/s3.ts";
import { quarantinedSchema, quarantineName, readQuarantine, writeQuarantine } from "./crew/quarantine.ts";
import { pastName } from "./past.ts";
import { linesOf } from "./proof/chain.ts";

/**
 * The store's newest whole checkpoint, markers and ledger, where the disk has no newer one.
 * @returns names of those that are not whole, whatever their manifest says
 */
export async function bringNewest(
  run: StoredRun,
  list: readonly { step: number; name: string }[],
  runDir: string,
  log: Logger,
): Promise<Set<string>> {
  const damaged = new Set<string>();
  const found = await newestCheckpoint(runDir, { optimizer: false, onSkip: (why) => log.warn(why) }).catch((error) => {
    if (error instanceof ConfigError) return undefined;
    throw error;
  });
  const here = found?.state.step ?? -1;
  if (list.length > 0) await mkdir(runDir, { recursive: true });
  for (const { step, name } of list) {
    if (step <= here) return damaged;
    try {
      if (await isTakenBack(run, name, step, runDir)) {
        await removeCheckpoints(run.store, await run.store.list(`${name}/`));
        continue;
      }
      const options = { step: String(step), out: runDir, parts: "all" as const };
      const { bytesReceived } = await fetchCheckpoint(run, {
        ...options,
        onRetry: (why) => log.warn(`${why}; trying again`),
      });
      await bringFile(run, name, ledgerName, runDir);
      // The curves: nothing but what the page shows depends on them.
      await bringFile(run, name, pastName, runDir).catch((error) => {
        if (!(error instanceof NoSuchObjectError)) throw error;
      });
      await mark(runDir, await run.markers());
      log.info({ step, bytes: bytesReceived }, `fetched ${run.url}/${name}`);
      return damaged;
    } catch (error) {
      // A store that is away is no reason to go on from older weights.
      if (!(error instanceof ConfigError) || error.cause instanceof Interrupted) throw error;
      log.warn(error.message);
      damaged.add(name);
    }
  }
  if (damaged.size === 0) return damaged;
  throw new ConfigError(`${run.url}: none of its ${damaged.size} checkpoints could be brought here whole`);
}

/** Does the ledger here say that the run went back behind this checkpoint? The store was away then, and has not heard of it. */
async function isTakenBack(run: StoredRun, name: string, step: number, runDir: string): Promise<boolean> {
  const { ledger } = await run.json(`${name}/state.json`, stateSchema);
  let isKnown = false;
  try {
    for await (const line of linesOf(join(runDir, ledgerName))) {
      isKnown ||= line.number === ledger.lines && line.hash === ledger.head;
      if (isKnown && line.kind === "undone" && line.undone.to < step) return true;
    }
  } catch (error) {
    if (!isAbsent(error)) throw error;
  }
  return false;
}

/** Who is kept out there is kept out here too, whichever of both is the older. */
export async function bringQuarantine(run: StoredRun, runDir: string): Promise<void> {
  const there = await run.json(quarantineName, z.array(quarantinedSchema)).catch((error) => {
    if (error instanceof NoSuchObjectError) return [];
    throw error;
  });
  const here = await readQuarantine(runDir, []);
  const more = there.filter((entry) => !here.some((own) => isDeepStrictEqual(own, entry)));
  if (more.length > 0) await writeQuarantine(runDir, [...here, ...more]);
}

async function bringFile(run: StoredRun, checkpoint: string, file: string, runDir: string): Promise<void> {
  const temporary = join(runDir, `.unfinished-${file}`);
  await writeFile(temporary, await run.store.read(`${checkpoint}/${file}`), { flush: true });
  await rename(temporary, join(runDir, file));
  await syncDirectory(runDir);
}
