// How good is the link to a coordinator?
import { z } from "zod";
import { linkLimit } from "../coordinator/serve/link.ts";
import { statusSchema } from "../coordinator/status.ts";
import { ConfigError, Interrupted } from "../shared/errors.ts";
import type { Remote } from "./remote.ts";

export interface LinkReport {
  readonly run: string;
  readonly weft: string;
  readonly protocol: string;
  readonly arithmetic: string | null;
  readonly roundTripMs: number;
  /** Megabytes (10^6) a second from the coordinator to us, and from us to it. */
  readonly downMBps: number;
  readonly upMBps: number;
}

const roundTrips = 20;
/** A transfer of this length is measured well enough. */
const longEnoughSeconds = 0.4;
const firstBytes = 2 ** 18;

/** @throws ConfigError where the coordinator cannot be asked */
export async function testLink(remote: Remote): Promise<LinkReport> {
  try {
    const { run, versions, arithmetic } = await remote.json("/status", statusSchema);
    const times: number[] = [];
    for (let i = 0; i < roundTrips; i++) times.push(await timed(() => drain(remote, 0)));
    return {
      run: run.name,
      weft: versions.weft,
      protocol: versions.protocol,
      arithmetic,
      roundTripMs: 1000 * median(times),
      downMBps: await megabytesPerSecond((bytes) => timed(() => drain(remote, bytes))),
      upMBps: await megabytesPerSecond((bytes) => timed(() => pour(remote, bytes))),
    };
  } catch (error) {
    if (!(error instanceof Interrupted)) throw error;
    throw new ConfigError(`${error.message}; is the coordinator running, and is this its address?`, { cause: error });
  }
}

async function drain(remote: Remote, bytes: number): Promise<void> {
  const { pieces } = await remote.ask(`/link?bytes=${bytes}`);
  for await (const _ of pieces());
}

async function pour(remote: Remote, bytes: number): Promise<void> {
  await remote.json("/link", z.object({ bytes: z.literal(bytes) }), { method: "POST", body: new Uint8Array(bytes) });
}

async function timed(action: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await action();
  return (performance.now() - start) / 1000;
}

/**
 * Four times as many bytes until a transfer takes long enough; what it has more than the one before counts: what buffers
 * swallow at once, and round trips, are in both. One goes before: a link that was idle may let so much through at once, once.
 * @param transfer moves bytes, says its seconds
 */
export async function megabytesPerSecond(transfer: (bytes: number) => Promise<number>): Promise<number> {
  await transfer(firstBytes);
  let before = await transfer(firstBytes);
  for (let bytes = 4 * firstBytes; ; bytes *= 4) {
    const seconds = await transfer(bytes);
    if (seconds - before >= longEnoughSeconds || 4 * bytes > linkLimit) {
      const more = Math.max(seconds - before, 0.5 * seconds);
      return (0.75 * bytes) / 1e6 / more;
    }
    before = seconds;
  }
}

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[values.length >> 1]!;
}
