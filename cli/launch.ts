// `weft launch hosts.yaml`: a run on several machines, from one terminal, over SSH. It checks each machine, starts the
// coordinator and the workers, follows what they say, starts again what is lost, brings the checkpoint here, and ends all.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { pipeline } from "node:stream/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { Command } from "commander";
import type { Logger } from "pino";
import { resolveToken } from "../coordinator/serve/access.ts";
import { readCheckpoint } from "../shared/checkpoint/checkpoint.ts";
import { checkpointSteps } from "../shared/checkpoint/rundir.ts";
import type { Options } from "../shared/config.ts";
import { ConfigError } from "../shared/errors.ts";
import { logLine } from "../shared/json.ts";
import { defaultPreset } from "../shared/presets.ts";
import { type Resolved, resolveOptions } from "../shared/resolve.ts";
import { weftVersion } from "../shared/version.ts";
import { nextStart, reasonIn } from "../worker/launcher.ts";
import { type HostEntry, here, readHosts } from "./hosts.ts";
import {
  coordinatorWords,
  type Machine,
  meetingOf,
  missingGpus,
  ofCoordinator,
  urlFor,
  workerWords,
  wrongDevice,
} from "./launch-words.ts";
import { createLog, relay } from "./log.ts";
import { addOptions, sourcesOf } from "./options.ts";
import { connectionLost, disconnect, quoted, runScript, type Script, type Ssh, untilInputEnds } from "./shell.ts";
import { onStopSignal } from "./signals.ts";
import { calledAs } from "./summary.ts";
import { tell } from "./terminal.ts";

/** A host that is lost is asked again so often. */
const lostMs = 10_000;
/** For the last checkpoint, and for a lease in hand. */
const graceSeconds = { coordinator: 300, worker: 20 };

export function launchCommand(): Command {
  const command = new Command("launch")
    .argument("<hosts.yaml>", "where the coordinator runs and who computes")
    .description("train on the machines of a file, over SSH: check, start, follow, collect the checkpoint, stop")
    .addHelpText("after", `\n${example}`);
  addOptions(command, [...ofCoordinator, "engine"]);
  return command.action(async (path: string) => {
    const file = await readHosts(path);
    const resolved = resolveOptions({ ...(await sourcesOf(command)), impliedPreset: defaultPreset });
    if (resolved.options.dryRun)
      throw new ConfigError("launch: what a run would take says `weft coordinator --dry-run`");
    const wrong = file.hosts.flatMap((entry) => wrongDevice(entry, resolved.options) ?? []);
    if (wrong.length > 0) throw new ConfigError(wrong.join("\n"));
    const token = (await resolveToken("0.0.0.0", resolved.options.tokenFile, process.env))!;
    const ssh: Ssh = { config: file.sshConfig, sockets: await mkdtemp(join(tmpdir(), "weft-ssh-")) };
    const { log, say, close } = createLog("launch");
    const launch = new Launch(ssh, resolved, token.text, log);
    onStopSignal(() => launch.stop());
    try {
      const { out, resume, resumeOrStart } = resolved.options;
      if (file.coordinator !== here && !resume && !resumeOrStart && (await checkpointSteps(out)).length > 0)
        throw new ConfigError(
          `launch: ${out} holds a run already, and the checkpoint of this one is to come there; see --out`,
        );
      const machines = await checkAll(ssh, file.hosts, log);
      if (launch.isStopping) return;
      const owner = machines.find(({ entry }) => entry.ssh !== here && entry.ssh === file.coordinator);
      if (token.source === "generated") say(`the page of this run asks for its token: ${token.text}`);
      const { checkpoint, finished } = await launch.run(owner, machines, file.address);
      close();
      if (checkpoint === null) return tell("no checkpoint: no step was done");
      const found = owner ? await collect(ssh, owner, checkpoint, out) : checkpoint;
      tell(`checkpoint: ${found}`);
      tell(`sample:     ${calledAs(process.argv, process.env)} sample --checkpoint ${out}`);
      if (!finished) tell("to go on:   the same command with --resume");
    } finally {
      close();
      await Promise.all(file.hosts.map(({ ssh: host }) => host !== here && disconnect(ssh, host)));
      await rm(ssh.sockets, { recursive: true, force: true });
    }
  });
}

const example = `hosts.yaml:
  coordinator: here            # or one of the hosts
  hosts:
    - host-a                   # as in \`ssh host-a\`; weft is on its PATH
    - { ssh: me@host-b, weft: /opt/weft/bin/weft, gpus: all }
    - { ssh: "fd00::12", processes: 2, threads: 4 }
  # address: 10.0.0.1          # of the coordinator for the workers, where it is not what ssh tells
  # sshConfig: ./ssh_config    # for \`ssh -F\``;

const remote = (entry: HostEntry): string | undefined => (entry.ssh === here ? undefined : entry.ssh);

/** How this program is started on this machine. */
const ourselves = [process.execPath, process.argv[1]!].map(quoted).join(" ");

const weftOn = (entry: HostEntry): string => (entry.ssh === here && entry.weft === "weft" ? ourselves : entry.weft);

/** Every host is asked before anything starts. @throws ConfigError with all that is wrong */
async function checkAll(ssh: Ssh, entries: readonly HostEntry[], log: Logger): Promise<Machine[]> {
  const results = await Promise.allSettled(entries.map((entry) => check(ssh, entry, log)));
  const wrong = results.flatMap((result) => (result.status === "rejected" ? [result.reason as Error] : []));
  const bug = wrong.find((error) => !(error instanceof ConfigError));
  if (bug) throw bug;
  if (wrong.length > 0) throw new ConfigError(wrong.map(({ message }) => message).join("\n"));
  return results.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
}

async function check(ssh: Ssh, entry: HostEntry, log: Logger): Promise<Machine> {
  const weft = weftOn(entry);
  const script = `echo "weft-ssh: $SSH_CONNECTION"
echo "weft-version: $(${weft} --version 2>&1 | tail -n 1)"
nvidia-smi -L 2>/dev/null | sed -n 's/^GPU /weft-gpu: &/p'
exit 0`;
  const said: string[] = [];
  const { ended } = runScript(ssh, remote(entry), script, (line) => said.push(line));
  const status = await ended;
  const all = (key: string) =>
    said.filter((line) => line.startsWith(`weft-${key}: `)).map((line) => line.slice(key.length + 7));
  if (status !== 0)
    throw new ConfigError(
      `launch: ${entry.ssh} cannot be reached: ${said.at(-1) ?? `ssh ended with ${status}`}; \`ssh ${entry.ssh}\` must work without a question`,
    );
  const [version = ""] = all("version");
  if (!/^\d+\.\d+\.\d+\S*$/.test(version))
    throw new ConfigError(
      `launch: ${entry.ssh} has no Weft as "${entry.weft}": ${version}; install it there, or name its command: { ssh: ${entry.ssh}, weft: COMMAND }`,
    );
  if (version !== weftVersion)
    throw new ConfigError(
      `launch: ${entry.ssh} has Weft ${version}, here it is ${weftVersion}; install the same on both`,
    );
  const gpus = all("gpu");
  const missing = missingGpus(entry, gpus);
  if (missing !== undefined) throw new ConfigError(missing);
  log.info(
    `${entry.ssh}: Weft ${version}, ${gpus.length === 0 ? "no GPU" : gpus.map((gpu) => gpu.replace(/ \(UUID.*/, "")).join(", ")}`,
  );
  const [client = "", , server = ""] = (all("ssh")[0] ?? "").split(" ");
  return { entry, weft, client, server };
}

interface Outcome {
  readonly finished: boolean;
  /** Path on the coordinator's machine; null before the first step. */
  readonly checkpoint: string | null;
}

class Launch {
  readonly #ssh: Ssh;
  readonly #resolved: Resolved;
  readonly #token: string;
  readonly #log: Logger;
  readonly #workers = new Set<Script>();
  readonly #stopping = new AbortController();
  #coordinator: Script | undefined;

  constructor(ssh: Ssh, resolved: Resolved, token: string, log: Logger) {
    this.#ssh = ssh;
    this.#resolved = resolved;
    this.#token = token;
    this.#log = log;
  }

  get isStopping(): boolean {
    return this.#stopping.signal.aborted;
  }

  /** The coordinator writes a checkpoint and ends, the workers leave. */
  stop(): void {
    this.#stopping.abort();
    this.#coordinator?.stop();
    for (const worker of this.#workers) worker.stop();
  }

  /** @param owner machine of the coordinator; undefined: this one. @param address of it for the workers */
  async run(owner: Machine | undefined, machines: readonly Machine[], address?: string): Promise<Outcome> {
    const { listen, calls } = meetingOf(this.#resolved, machines, owner, address);
    let working: Promise<boolean>[] = [];
    const onReady = (url: string): void => {
      if (working.length > 0) return; // they come back by themselves
      working = machines.map((machine, i) => this.#keepWorking(machine, urlFor(url, calls[i]!)));
      void Promise.all(working).then((goOn) => {
        if (goOn.some((does) => does)) return;
        this.#log.error("no host computes any more: the run stops");
        process.exitCode = 1;
        this.stop();
      });
    };
    try {
      return await this.#keepCoordinating(owner, listen, onReady);
    } finally {
      this.stop();
      await Promise.all(working);
    }
  }

  /** @throws ConfigError with the coordinator's last words, where it ends by itself before the run does */
  async #keepCoordinating(
    owner: Machine | undefined,
    listen: string,
    onReady: (url: string) => void,
  ): Promise<Outcome> {
    const where = owner ? `on ${owner.entry.ssh}` : "here";
    const { resume, resumeOrStart } = this.#resolved.options;
    let { port } = this.#resolved.options;
    let going: Partial<Options> = resume ? { resume } : resumeOrStart ? { resumeOrStart } : {};
    for (let failures = 0; ; ) {
      const startedAt = performance.now();
      let outcome: Outcome | undefined;
      let isReady = false;
      let lastWords = "";
      this.#coordinator = this.#start(
        owner?.weft ?? ourselves,
        coordinatorWords(this.#resolved, listen, port, going),
        owner?.entry,
        graceSeconds.coordinator,
        (line) => {
          const url = /^to compute: .*--coordinator (\S+)$/.exec(line)?.[1];
          if (url === undefined) {
            outcome = outcomeIn(line) ?? outcome;
            lastWords = reasonIn(line) ?? lastWords;
            relay(this.#log, owner ? `[${owner.entry.ssh}] ${line}` : line);
            return;
          }
          isReady = true;
          port = Number(new URL(url).port || port);
          onReady(url);
        },
      );
      if (this.isStopping) this.#coordinator.stop();
      const status = await this.#coordinator.ended;
      if (outcome) return outcome;
      if (this.isStopping) return { finished: false, checkpoint: null };
      const isAway = status === connectionLost;
      const next = isAway ? { failures, waitMs: lostMs } : nextStart(failures, performance.now() - startedAt);
      // By itself it ends for a reason that it gives, and would again.
      const isLost = isAway || status > 128;
      if (!isLost || !(isReady || going.resume || going.resumeOrStart) || next === "give up")
        throw new ConfigError(`launch: the coordinator ${where} ended with ${status}${lastWords && `: ${lastWords}`}`);
      failures = next.failures;
      going = { resumeOrStart: true };
      const after = isAway ? "when its host is back" : `in ${next.waitMs / 1000} s`;
      if (isReady)
        this.#log.warn(
          `the coordinator ${where} is lost (${lastWords || `status ${status}`}); going on from its newest checkpoint ${after}`,
        );
      await this.#wait(next.waitMs);
    }
  }

  /** Until the run is over. @returns false where the worker failed again and again at its start */
  async #keepWorking({ entry, weft }: Machine, url: string): Promise<boolean> {
    const words = workerWords(this.#resolved, entry, url);
    let isLost = false;
    for (let failures = 0; !this.isStopping; ) {
      const startedAt = performance.now();
      let lastWords = "";
      const worker = this.#start(weft, words, entry, graceSeconds.worker, (line) => {
        if (isLost && line.startsWith("{")) {
          isLost = false;
          this.#log.info(`${entry.ssh} is back`);
        }
        lastWords = reasonIn(line) ?? lastWords;
        relay(this.#log, `[${entry.ssh}] ${line}`);
      });
      this.#workers.add(worker);
      const status = await worker.ended;
      this.#workers.delete(worker);
      if (status === 0 || this.isStopping) return true;
      if (status === connectionLost) {
        if (!isLost)
          this.#log.warn(
            `${entry.ssh} is lost${lastWords && ` (${lastWords})`}; asking again every ${lostMs / 1000} s`,
          );
        isLost = true;
        await this.#wait(lostMs);
        continue;
      }
      const next = nextStart(failures, performance.now() - startedAt);
      const what = `the worker on ${entry.ssh} ended with ${status}${lastWords && `: ${lastWords}`}`;
      if (next === "give up") {
        this.#log.error(`${what}; it failed ${failures + 1} times in a row, the run goes on without it`);
        return false;
      }
      failures = next.failures;
      this.#log.warn(`${what}; starting it again in ${next.waitMs / 1000} s`);
      await this.#wait(next.waitMs);
    }
    return true;
  }

  #start(
    weft: string,
    words: readonly string[],
    entry: HostEntry | undefined,
    grace: number,
    onLine: (line: string) => void,
  ): Script {
    const command = [weft, ...words.map(quoted)].join(" ");
    const script = `WEFT_TOKEN=${quoted(this.#token)}\nexport WEFT_TOKEN\n${untilInputEnds(command, grace)}`;
    return runScript(this.#ssh, entry && remote(entry), script, onLine);
  }

  async #wait(ms: number): Promise<void> {
    await sleep(ms, undefined, { signal: this.#stopping.signal }).catch(() => {});
  }
}

/** The coordinator's last line of a run that finished or stopped. */
function outcomeIn(line: string): Outcome | undefined {
  const { weightsDigest, finished, checkpoint } = (logLine(line) ?? {}) as Partial<Outcome> & {
    weightsDigest?: string;
  };
  return weightsDigest === undefined ? undefined : { finished: finished!, checkpoint: checkpoint! };
}

/**
 * Bring a checkpoint and what belongs to its run from the coordinator's machine: a folder to sample from, or to go on from.
 * @throws ConfigError where it does not come whole
 */
async function collect(ssh: Ssh, { entry }: Machine, checkpoint: string, out: string): Promise<string> {
  const name = basename(checkpoint);
  const script = `cd ${quoted(dirname(checkpoint))} && tar -cf - ${quoted(name)} $(ls ledger.jsonl markers.json history.json quarantine.json)`;
  await mkdir(out, { recursive: true });
  const packed = runScript(ssh, remote(entry), script);
  const unpacked = spawn("tar", ["-xf", "-", "-C", out], { stdio: ["pipe", "ignore", "inherit"] });
  const written = once(unpacked, "close").catch(() => [127]);
  let said = "";
  packed.child.stderr!.on("data", (text) => {
    said += text;
  });
  await pipeline(packed.child.stdout!, unpacked.stdin).catch(() => {}); // both say themselves that they failed
  const statuses = [await packed.ended, (await written)[0]];
  if (statuses.some((status) => status !== 0))
    throw new ConfigError(
      `launch: ${checkpoint} on ${entry.ssh} could not be brought to ${out} (tar ended with ${statuses.join(" and ")}: ${said.trim()}); it is whole there`,
    );
  return (await readCheckpoint(join(out, name), { optimizer: true })).directory;
}
