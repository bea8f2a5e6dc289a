// --checkpoint-to: a run's checkpoints in an object store as well, sent beside training. The store is slower than the
// disk and may be away for hours: training never waits for it, the newest checkpoint goes first, what was interrupted
// goes on part by part, and at the end of the run what is not there is said.
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import { checkpointName, checkpointStep, runStateOf } from "../shared/checkpoint/checkpoint.ts";
import { manifestName, readManifest } from "../shared/checkpoint/manifest.ts";
import { checkpointSteps, markersName, readMarkers } from "../shared/checkpoint/rundir.ts";
import { diskError, onDisk } from "../shared/disk.ts";
import { ConfigError, Interrupted, messageOf } from "../shared/errors.ts";
import { isAbsent } from "../shared/json.ts";
import { ledgerName, openStoredRun, removeCheckpoints, type StoredRun, wholeCheckpoints } from "../shared/store/run.ts";
import type { StoredObject } from "../shared/store/s3.ts";
import { bringNewest, bringQuarantine } from "./bring.ts";
import { Claim } from "./claim.ts";
import { quarantineName } from "./crew/quarantine.ts";
import { pastName } from "./past.ts";
import { linesOf } from "./proof/chain.ts";

export interface MirrorOptions {
  /** s3://bucket/prefix */
  readonly address: string;
  readonly runDir: string;
  readonly log: Logger;
  readonly wait?: (ms: number) => Promise<unknown>;
  /** Ends the wait for an address that may be another run's. */
  readonly signal?: AbortSignal | undefined;
}

/** Waits after failures in a row: 1, 2, 4 ... seconds, at most this. */
const longestWaitMs = 60_000;
/** Failures in a row without a byte of progress after which the end of a run does not wait any longer. */
const mostFailures = 8;

export class Mirror {
  /** Newest checkpoints that stay in the store, beside best and final: all, until the run that was brought here says it. */
  keep = Number.POSITIVE_INFINITY;
  readonly #options: MirrorOptions;
  readonly #run: StoredRun;
  readonly #claim: Claim;
  /** Ends what is being sent, where it is not wanted any more. */
  #sending = new AbortController();
  /** The store may still have what came after this step, which does not count any more. */
  #wentBackTo: number | undefined;
  #isDue = false;
  #working: Promise<void> | undefined;
  #failures = 0;
  #lastFailure = "";
  #uploading: number | undefined;
  /** Names of checkpoints that the store has, and not as their manifest says. */
  readonly #damaged: Set<string>;

  private constructor(options: MirrorOptions, run: StoredRun, claim: Claim, damaged: Set<string>) {
    this.#options = options;
    this.#run = run;
    this.#claim = claim;
    this.#damaged = damaged;
  }

  /**
   * Reach the store, and on an empty disk, or one that is behind, bring its newest whole checkpoint here.
   * @throws ConfigError where the store cannot be had, or written, is another run's, or holds one that is not resumed;
   * Interrupted where it was asked to stop meanwhile
   */
  static async open(options: MirrorOptions, resume: boolean): Promise<Mirror> {
    const { address, runDir, log, signal } = options;
    const run = await openStoredRun(address);
    const away = (error: unknown): never => {
      if (!(error instanceof Interrupted) || signal?.aborted) throw error;
      throw new ConfigError(`--checkpoint-to ${error.message}`, { cause: error });
    };
    const claim = await Claim.take(run.store, runDir, { say: (line) => log.info(line), signal }).catch(away);
    try {
      const list = await run.list().catch(away);
      if (list.length > 0 && !resume)
        throw new ConfigError(
          `${run.url} already holds a run, up to step ${list[0]!.step}; go on with --resume, or choose another address with --checkpoint-to`,
        );
      const damaged = await bringNewest(run, list, runDir, log);
      if (resume) await bringQuarantine(run, runDir);
      else await run.store.remove(quarantineName); // of a run that has nothing else there any more
      return new Mirror(options, run, claim, damaged);
    } catch (error) {
      await claim.release().catch(() => {}); // the error says more
      throw error;
    }
  }

  /** Step that is being sent and has to stay on the disk. */
  get uploading(): number | undefined {
    return this.#uploading;
  }

  /** The run's directory has changed: send what is new, soon. */
  changed(): void {
    this.#isDue = true;
    this.#working ??= this.#work().finally(() => {
      this.#working = undefined;
    });
  }

  /** The run went back to this step, on its disk as well: what the store has from after it goes before anything is sent. */
  forgetAfter(step: number): void {
    this.#wentBackTo = Math.min(step, this.#wentBackTo ?? step);
    this.#sending.abort(new Interrupted(`${this.#run.url}: not sent to the end: the run went back to step ${step}`));
    this.changed();
  }

  /**
   * Wait until the store has what the disk has.
   * @throws ConfigError where the store has failed for so long that it is of no use to wait
   */
  async settled(): Promise<void> {
    // A pause between two tries that has begun is over sooner: its end is waited for here.
    await this.#working;
    await this.#claim.release().catch((error) => this.#options.log.warn(messageOf(error)));
    if (this.#failures > 0)
      throw new ConfigError(
        `${this.#lastFailure}; the checkpoints are whole in ${this.#options.runDir}: the same command with --resume sends them`,
      );
  }

  async #work(): Promise<void> {
    const { log, wait = sleep } = this.#options;
    while (this.#isDue) {
      this.#isDue = false;
      this.#sending = new AbortController();
      try {
        await this.#send();
        this.#failures = 0;
      } catch (raw) {
        const error = diskError(raw);
        if (!(error instanceof ConfigError || error instanceof Interrupted)) throw error;
        this.#failures++;
        this.#lastFailure = messageOf(error);
        if (this.#failures >= mostFailures) {
          log.error(`${this.#lastFailure}; failed ${this.#failures} times, next try after the next checkpoint`);
          return;
        }
        const waitMs = Math.min(500 * 2 ** this.#failures, longestWaitMs);
        log.warn(`${this.#lastFailure}; trying again in ${waitMs / 1000} s`);
        this.#isDue = true;
        await wait(waitMs);
      }
    }
  }

  /**
   * Who is kept out, without whom nothing may be gone on from. Then the newest: it is what a resumed run needs. Then the
   * marked ones, the markers, and what may go.
   */
  async #send(): Promise<void> {
    this.#claim.check();
    const { runDir } = this.#options;
    const { store } = this.#run;
    const path = join(runDir, quarantineName);
    const quarantine = await onDisk(path, "read", () => readFile(path)).catch((error) => {
      if (!isAbsent(error)) throw error;
    });
    if (quarantine) await store.put(quarantineName, quarantine);
    await this.#goBack();
    const local = await checkpointSteps(runDir);
    const markers = await readMarkers(runDir);
    const marked = [markers.best?.step, markers.final?.step].filter((step) => step !== undefined);
    const wanted = new Set(local.slice(0, 1));
    for (const step of marked) if (local.includes(step)) wanted.add(step);
    for (const step of wanted) {
      this.#uploading = step;
      try {
        await this.#sendCheckpoint(step);
      } finally {
        this.#uploading = undefined;
      }
      if (this.#isDue) return; // a newer one is waiting
    }
    // What follows writes over what is there, and removes some: an upload may have taken hours.
    this.#claim.check();
    const text = Buffer.from(`${JSON.stringify(markers)}\n`);
    await store.put(markersName, text);
    await this.#prune(marked);
  }

  async #goBack(): Promise<void> {
    const last = this.#wentBackTo;
    if (last === undefined) return;
    const objects = await this.#run.store.list("step-");
    const isAfter = ({ key }: StoredObject): boolean => (checkpointStep(key.split("/")[0]!) ?? 0) > last;
    await removeCheckpoints(this.#run.store, objects.filter(isAfter));
    if (this.#wentBackTo === last) this.#wentBackTo = undefined;
  }

  async #sendCheckpoint(step: number): Promise<void> {
    const { runDir, log } = this.#options;
    const { store } = this.#run;
    const name = checkpointName(step);
    const directory = join(runDir, name);
    const manifest = await readManifest(directory);
    const there = await this.#run.manifest(name).catch((error) => {
      if (error instanceof Interrupted) throw error;
      return undefined; // absent, or of another time: it is written anew
    });
    if (this.#damaged.has(name)) {
      await removeCheckpoints(store, await store.list(`${name}/`));
      this.#damaged.delete(name);
    } else if (there && JSON.stringify(there) === JSON.stringify(manifest)) return;
    else if (there) await store.remove(`${name}/${manifestName}`);
    const started = performance.now();
    let sent = 0;
    const onSent = (bytes: number): void => {
      sent += bytes;
      this.#failures = 0;
    };
    const options = { signal: this.#sending.signal, onSent };
    for (const [file, { bytes }] of Object.entries(manifest.files))
      await store.upload(`${name}/${file}`, join(directory, file), bytes, options);
    const ledger = join(runDir, ledgerName);
    const { lines } = (await runStateOf(directory)).ledger;
    await store.upload(`${name}/${ledgerName}`, ledger, await bytesOfLines(ledger, lines), options);
    const past = await stat(join(runDir, pastName)).catch(() => undefined);
    if (past) await store.upload(`${name}/${pastName}`, join(runDir, pastName), past.size, options);
    const { size } = await stat(join(directory, manifestName));
    await store.upload(`${name}/${manifestName}`, join(directory, manifestName), size, options);
    const seconds = (performance.now() - started) / 1000;
    log.info({ step, bytes: sent, seconds }, `checkpoint ${store.url}/${name}`);
  }

  /** Folders without a manifest are of those who died while sending. */
  async #prune(marked: readonly number[]): Promise<void> {
    const { store } = this.#run;
    const objects = await store.list("step-");
    const whole = wholeCheckpoints(objects);
    const staying = new Set(
      whole.filter(({ step }, i) => i < this.keep || marked.includes(step)).map(({ name }) => name),
    );
    const going = objects.filter(({ key }) => !staying.has(key.split("/")[0]!));
    await removeCheckpoints(store, going);
    await store.abandonUploads(() => false);
  }
}

/** Bytes of a ledger up to a line. */
async function bytesOfLines(path: string, lines: number): Promise<number> {
  let bytes = 0;
  let count = 0;
  if (lines > 0)
    for await (const line of linesOf(path)) {
      bytes += line.bytes.length;
      count = line.number;
      if (count >= lines) break;
    }
  if (count >= lines) return bytes;
  throw new ConfigError(`${path}: ${count} lines, its checkpoint was written after ${lines}`);
}
