// --data-at-worker: the run's data, where a worker has them itself.
import type { Logger } from "pino";
import { openDataset } from "../coordinator/data/dataset.ts";
import type { Options } from "../shared/config.ts";
import { tokenizerNamed } from "../shared/tokenizers/open.ts";
import type { WorkerData } from "../worker/session.ts";

/** @throws ConfigError where they are missing or damaged */
export async function workerData(
  { dataAtWorker: source, textColumn, tokenizer: name }: Pick<Options, "dataAtWorker" | "textColumn" | "tokenizer">,
  log: Logger,
): Promise<WorkerData | undefined> {
  if (source === "") return undefined;
  const tokenizer = await tokenizerNamed(name);
  const notify = (line: string) => log.info(line);
  const splits = ["train"] as const;
  const data = await openDataset({
    ...{ source, textColumn, notify, splits, blockSize: 1, whole: true },
    ...(tokenizer && { tokenizer }),
  });
  return {
    ...{ name: source, fingerprint: data.fingerprint, train: data.train },
    read: (start, row) => data.read("train", start, row.length, row),
  };
}
