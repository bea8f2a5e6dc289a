// What a relay's port answers to HTTP: who works below it and how fast, as JSON and as a page of text. The run's own pages are
// at its coordinator.
import type { IncomingMessage } from "node:http";
import type { WorkerStatus } from "../status.ts";
import type { Right } from "./access.ts";

export interface RelayStatus {
  readonly relay: true;
  /** Name of the run; null before a coordinator has taken the relay in. */
  readonly run: string | null;
  /** Why nothing is computed here, as a sentence; null while something is. */
  readonly waitingFor: string | null;
  /** Of the weights that it has sent down last. */
  readonly step: number;
  /** Of its workers' connections. */
  readonly bytesIn: number;
  readonly bytesOut: number;
  /** Tokens a second are what each has given since it came. */
  readonly workers: readonly WorkerStatus[];
}

export interface RelayView {
  relayStatus(): RelayStatus;
}

/** @returns status, type and body */
export function relayPage(
  { url, method }: Pick<IncomingMessage, "url" | "method">,
  right: Right,
  view: RelayView,
): [status: number, type: string, body: string] {
  const text = "text/plain; charset=utf-8";
  if (url === "/healthz") return [200, text, "a relay\n"];
  if (url !== "/" && url !== "/status") return [404, text, "this is a relay: the run's pages are at its coordinator\n"];
  if (method !== "GET" && method !== "HEAD") return [405, text, `${method} is not possible here, GET is\n`];
  if (right === "later") return [429, text, "too many wrong tokens came from this address; wait a minute\n"];
  if (right === undefined)
    return [401, text, "a relay shows its workers to who has the run's token: Authorization: Bearer ...\n"];
  const status = view.relayStatus();
  return url === "/" ? [200, text, asText(status)] : [200, "application/json", `${JSON.stringify(status)}\n`];
}

function asText({ run, waitingFor, step, workers }: RelayStatus): string {
  const rate = (worker: WorkerStatus) => (worker.tokensPerSec === null ? "-" : String(Math.round(worker.tokensPerSec)));
  const rows = workers.map((worker) => [
    worker.id,
    worker.state,
    rate(worker),
    String(worker.shardsDone),
    worker.device,
  ]);
  const table = [["worker", "state", "tokens/s", "shards", "device"], ...rows];
  const widths = table[0]!.map((_, i) => Math.max(...table.map((row) => row[i]!.length)));
  const lines = table.map((row) =>
    row
      .map((cell, i) => cell.padEnd(widths[i]!))
      .join("  ")
      .trimEnd(),
  );
  const head =
    run === null ? "relay: no coordinator has taken it in yet" : `relay of run ${run}, weights of step ${step}`;
  return `${[head, ...(waitingFor ? [waitingFor] : []), "", ...lines].join("\n")}\n`;
}
