// A thread that encodes parts of a data set, one after another, as it is told.
import { parentPort, workerData } from "node:worker_threads";
import { ConfigError, messageOf } from "../../shared/errors.ts";
import { openTokenizer, skippingUnknown } from "../../shared/tokenizers/open.ts";
import { type Encoded, encodeOrder, type PartOrder } from "./part.ts";

export interface PartThreadData {
  /** Of the tokenizer's files. */
  readonly folder: string;
  /** Does it leave out what it lacks? */
  readonly skips: boolean;
}

export type PartAnswer =
  | { readonly read: number }
  | Encoded
  /** A fault of the user's data, for people; any other error ends the thread. */
  | { readonly fault: string };

const { folder, skips } = workerData as PartThreadData;
const opened = await openTokenizer(folder);
const tokenizer = skips ? skippingUnknown(opened) : opened;
const answer = (message: PartAnswer): void => parentPort!.postMessage(message);

parentPort!.on("message", async (order: PartOrder) => {
  try {
    answer(await encodeOrder(order, tokenizer, (read) => answer({ read })));
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    answer({ fault: messageOf(error) });
  }
});
