// What `weft launch` tells the machines of a run to start, as words of a command line: pure, from the file of hosts, the
// options, and what each machine said of itself when it was asked.
import { isIPv6 } from "node:net";
import { flagsFor, type OptionGroup, type Options } from "../shared/config.ts";
import { ConfigError } from "../shared/errors.ts";
import type { Resolved } from "../shared/resolve.ts";
import { whyNotOnDevice } from "../worker/launcher.ts";
import { type HostEntry, here } from "./hosts.ts";
import { askedFor } from "./options.ts";

export const ofCoordinator: readonly OptionGroup[] = ["model", "data", "training", "run", "network", "trust"];

/** A host, and what it says of itself. */
export interface Machine {
  readonly entry: HostEntry;
  readonly weft: string;
  /** Addresses of the connection to it, ours and its own; empty on this machine. */
  readonly client: string;
  readonly server: string;
}

/** Where the coordinator listens, and what each machine calls it. */
export interface Meeting {
  readonly listen: string;
  /** In the order of the machines. */
  readonly calls: readonly string[];
}

/**
 * By what ssh tells of the way between us, unless the file or --host say it.
 * @param owner machine of the coordinator; undefined: this one
 * @throws ConfigError where the way is an address that only one machine understands
 */
export function meetingOf(
  { options, origins }: Pick<Resolved, "options" | "origins">,
  machines: readonly Machine[],
  owner: Machine | undefined,
  address: string | undefined,
): Meeting {
  const named = origins.host !== "default" && !["0.0.0.0", "::"].includes(options.host) ? options.host : undefined;
  const calls = machines.map((machine) => {
    const isBeside = machine.entry.ssh === (owner?.entry.ssh ?? here);
    if (isBeside) return named ?? "127.0.0.1";
    const call = address ?? named ?? owner?.server ?? machine.client;
    if (!call.includes("%")) return call;
    throw new ConfigError(
      `launch: ${machine.entry.ssh} would reach the coordinator by ${call}, an address of one network card only; ` +
        "say another with address: in the file of hosts",
    );
  });
  const everywhere = calls.some((call) => isIPv6(call)) ? "::" : "0.0.0.0";
  return { listen: origins.host === "default" ? everywhere : options.host, calls };
}

/** The coordinator's address, fingerprint and all, as a machine reaches it. @param url as the coordinator printed it */
export function urlFor(url: string, call: string): string {
  return url.replace(/\/\/(\[.*?\]|[^:/#]+)/, `//${isIPv6(call) ? `[${call}]` : call}`);
}

/** @param going whether and how it goes on */
export function coordinatorWords(
  resolved: Resolved,
  listen: string,
  port: number,
  going: Pick<Partial<Options>, "resume" | "resumeOrStart">,
): string[] {
  const flags = askedFor(resolved, ofCoordinator, ["host", "tokenFile", "port", "resume", "resumeOrStart"]);
  return ["coordinator", ...flags, ...flagsFor({ host: listen, port, stay: false, ...going })];
}

/** One command for each machine: `weft worker` itself starts a process for each GPU, or as many as are asked for. */
export function workerWords(resolved: Resolved, { gpus, processes, threads }: HostEntry, url: string): string[] {
  const own = flagsFor({ gpus, processes, threads, coordinator: [url] });
  return ["worker", ...askedFor(resolved, ["engine"]), ...own];
}

/** Why processes of a host cannot compute on the device that was asked for; undefined where they can. */
export function wrongDevice({ ssh, gpus = "", processes }: HostEntry, { device }: Options): string | undefined {
  if (gpus === "" && processes === undefined) return undefined;
  const why = whyNotOnDevice({ device, gpus, processes: processes ?? 1 });
  return why && `launch: ${ssh}: ${why}`;
}

/** What a host lacks of the GPUs that its entry names. @param listed lines of `nvidia-smi -L` */
export function missingGpus({ ssh, gpus }: HostEntry, listed: readonly string[]): string | undefined {
  if (gpus === undefined || gpus === "none") return undefined;
  if (listed.length === 0) return `launch: ${ssh} has no GPU that nvidia-smi lists, and gpus: ${gpus} asks for one`;
  const there = listed.map((line) => /^GPU (\d+):/.exec(line)?.[1]);
  const missing = gpus === "all" ? [] : gpus.split(",").filter((gpu) => /^\d+$/.test(gpu) && !there.includes(gpu));
  if (missing.length === 0) return undefined;
  return `launch: ${ssh} has no GPU ${missing.join(", ")}, which gpus: ${gpus} asks for; nvidia-smi lists ${listed.length}: ${there.join(", ")}`;
}
