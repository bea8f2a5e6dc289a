// Any path that a person names as a model: a folder here, or a run or checkpoint in an object store, which is brought
// here for as long as the process lives.
import { rmSync } from "node:fs";
import { fetchCheckpoint } from "../checkpoint/fetch.ts";
import { type LoadedModel, loadModel } from "../checkpoint/rundir.ts";
import { temporaryFolder } from "../disk.ts";
import { isStoreAddress } from "./address.ts";
import { openStoredRun } from "./run.ts";

/**
 * Load a model.
 * @param path what loadModel takes, or s3://bucket/prefix of a run (its best checkpoint, else the newest) or of one of
 *        its checkpoints
 * @throws ConfigError where it cannot be had, or is not what its manifest proves
 */
export async function openModel(path: string, onSkip: (why: string) => void): Promise<LoadedModel> {
  if (!isStoreAddress(path)) return await loadModel(path, onSkip);
  const run = await openStoredRun(path);
  const out = await temporaryFolder("weft-model-");
  process.once("exit", () => rmSync(out, { recursive: true, force: true }));
  const { directory, checkpoint } = await fetchCheckpoint(run, {
    step: "best or latest",
    out,
    parts: "model",
    onRetry: (why) => onSkip(`${why}; trying again`),
  });
  const model = await loadModel(directory, onSkip);
  return { ...model, what: `checkpoint ${run.url}/${checkpoint.name}${checkpoint.best ? " (best)" : ""}` };
}
