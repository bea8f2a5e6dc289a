// Pulling a checkpoint of a run: from its coordinator, or from the object store that its checkpoints go to.
import { z } from "zod";
import { type CheckpointStatus, checkpointSchema } from "../coordinator/status.ts";
import { type CheckpointSource, type Fetched, type FetchOptions, fetchCheckpoint } from "../shared/checkpoint/fetch.ts";
import { manifestName, manifestSchema } from "../shared/checkpoint/manifest.ts";
import { ConfigError, Interrupted } from "../shared/errors.ts";
import { isStoreAddress } from "../shared/store/address.ts";
import { openStoredRun } from "../shared/store/run.ts";
import { Remote } from "./remote.ts";

export interface PullOptions extends FetchOptions {
  /** A coordinator: http://, https://, ws:// or wss://; or s3://bucket/prefix. */
  readonly from: string;
  readonly token?: string | undefined;
}

/** @throws ConfigError that says what to do: no such coordinator, store, token or checkpoint, a file unlike its proof */
export async function pullCheckpoint(options: PullOptions): Promise<Fetched> {
  const source = isStoreAddress(options.from)
    ? await openStoredRun(options.from)
    : await coordinatorAt(options.from, options.token);
  return await fetchCheckpoint(source, options);
}

async function coordinatorAt(address: string, token: string | undefined): Promise<CheckpointSource> {
  const remote = new Remote(address, token);
  const list: CheckpointStatus[] = await remote.json("/checkpoints", z.array(checkpointSchema)).catch((error) => {
    if (!(error instanceof Interrupted)) throw error;
    throw new ConfigError(`${error.message}; is the coordinator running, and is this its address?`, { cause: error });
  });
  return {
    url: remote.url,
    list: async () => list,
    manifest: (checkpoint) => remote.json(`/checkpoints/${checkpoint}/${manifestName}`, manifestSchema),
    read: async (checkpoint, file, offset, { sha256 }) => {
      const headers = offset === 0 ? {} : { range: `bytes=${offset}-`, "if-range": `"${sha256}"` };
      const { status, pieces } = await remote.ask(`/checkpoints/${checkpoint}/${file}`, { headers });
      return { from: status === 206 ? offset : 0, pieces: pieces() };
    },
  };
}
