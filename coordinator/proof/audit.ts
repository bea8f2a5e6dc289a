// What a run's folder proves: that the ledger is one chain, that every shard of every step was counted exactly once, and
// that the checkpoints are the weights that the ledger names. Each thing that does not fit is named with its place.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { bestOps } from "../../shared/arithmetic/native.ts";
import { checkpointName, type RunState, readCheckpoint } from "../../shared/checkpoint/checkpoint.ts";
import { manifestName, proveFile, readManifest } from "../../shared/checkpoint/manifest.ts";
import { checkpointSteps, markersName, markersSchema } from "../../shared/checkpoint/rundir.ts";
import { isRefused, onDisk } from "../../shared/disk.ts";
import { ConfigError, messageOf } from "../../shared/errors.ts";
import { isAbsent, readJson } from "../../shared/json.ts";
import {
  type ChainLine,
  chainStart,
  contributorsOf,
  ledgerName,
  linesOf,
  standingSteps,
  stepAfter,
  type Undone,
} from "./chain.ts";

export interface Finding {
  /** "ledger.jsonl line 46", "step-000100/model.safetensors". */
  readonly where: string;
  readonly what: string;
}

export interface Audit {
  readonly lines: number;
  /** Of the ledger's steps; null where it has none. */
  readonly firstStep: number | null;
  readonly lastStep: number | null;
  /** Counted shards of all steps. */
  readonly shards: number;
  /** Those of them that two workers gave alike before they counted. */
  readonly confirmed: number;
  /** What was taken back because answers of a liar were in it. */
  readonly undone: readonly Undone[];
  /** Steps that a checkpoint's proof reaches: a change behind them would be found only by what the next lines say. */
  readonly provenUpTo: number;
  readonly checkpoints: readonly { readonly name: string; readonly step: number; readonly whole: boolean }[];
  /** Names, with the shards that each gave the counted answer of. */
  readonly workers: Readonly<Record<string, number>>;
  readonly findings: readonly Finding[];
}

export interface Proof {
  readonly name: string;
  /** Undefined where the checkpoint itself is damaged. */
  readonly state: RunState | undefined;
}

/** Everything there is to see in a run's folder. @throws ConfigError where it is no run, or cannot be read */
export async function auditRun(directory: string): Promise<Audit> {
  const findings: Finding[] = [];
  const proofs: Proof[] = [];
  for (const step of (await checkpointSteps(directory)).reverse())
    proofs.push(await proveCheckpoint(directory, checkpointName(step), findings));
  const lines = await readLines(directory);
  if (!lines && proofs.length === 0)
    throw new ConfigError(`${directory}: no run: it holds neither ${ledgerName} nor a checkpoint (step-...)`);
  if (!lines) findings.push({ where: ledgerName, what: "it is not there: nothing says who computed what" });
  const chain = lines ?? [];
  const heads = headsOf(proofs);
  for (const [index, why] of damageOf(chain, heads)) findings.push({ where: lineName(chain[index]!), what: why });
  checkSteps(chain, shardsOf(chain, proofs), findings);
  checkProofs(chain, proofs, findings);
  await checkMarkers(directory, proofs, findings);
  return { ...countedIn(chain), ...reached(chain, heads), checkpoints: proofs.map(describe), findings };
}

/** All lines of the ledger, without their bytes' place; undefined where there is none. */
export async function readLines(directory: string): Promise<ChainLine[] | undefined> {
  const lines: ChainLine[] = [];
  try {
    for await (const line of linesOf(join(directory, ledgerName))) lines.push(line);
    return lines;
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw error;
  }
}

/**
 * Every file of a checkpoint against its manifest, its weights against its own state.
 * @param onRefused hears of files that are there and cannot be read: they may be whole
 */
export async function proveCheckpoint(
  directory: string,
  name: string,
  findings: Finding[],
  onRefused: (error: ConfigError) => void = () => {},
): Promise<Proof> {
  const path = join(directory, name);
  const before = findings.length;
  const find = (file: string, error: unknown) => {
    if (!(error instanceof ConfigError)) throw error;
    if (isRefused(error)) onRefused(error);
    findings.push({ where: `${name}/${file}`, what: error.message.replaceAll(`${path}/`, "").replaceAll(path, name) });
  };
  const manifest = await readManifest(path).catch((error) => find(manifestName, error));
  if (!manifest) return { name, state: undefined };
  const text = await onDisk(path, "read", () => readFile(join(path, manifestName), "utf8"));
  if (text !== `${JSON.stringify(manifest, null, 2)}\n`)
    findings.push({ where: `${name}/${manifestName}`, what: "it was changed: it is not written as Weft writes it" });
  if (checkpointName(manifest.step) !== name)
    findings.push({ where: `${name}/${manifestName}`, what: `it is of step ${manifest.step}` });
  for (const [file, proof] of Object.entries(manifest.files))
    await proveFile(path, file, proof).catch((error) => find(file, error));
  if (findings.length > before) return { name, state: undefined };
  try {
    const { state, weights } = await readCheckpoint(path, { optimizer: true });
    const digest = bestOps().digest(weights);
    if (digest !== state.weightsDigest)
      findings.push({
        where: `${name}/model.safetensors`,
        what: `its digest is ${digest}, state.json says ${state.weightsDigest}`,
      });
    return { name, state };
  } catch (error) {
    find("", error);
    return { name, state: undefined };
  }
}

const describe = ({ name, state }: Proof) => ({
  name,
  step: Number(name.slice("step-".length)),
  whole: state !== undefined,
});

/** What checkpoints say of the hash of the lines that they were written after. */
export function headsOf(proofs: readonly Proof[]): Map<number, string> {
  return new Map(proofs.flatMap(({ state }) => (state ? [[state.ledger.lines, state.ledger.head] as const] : [])));
}

/**
 * Which lines were changed, and how that is known.
 * @param heads hashes of lines that are known from elsewhere, by the line's number
 * @returns places in the list
 */
export function damageOf(chain: readonly ChainLine[], heads: ReadonlyMap<number, string>): Map<number, string> {
  const damaged = new Map<number, string>();
  /** Does what follows agree with this line? Undefined where nothing follows. */
  const confirmed = chain.map(({ hash, number }, i): boolean | undefined => {
    const said = heads.get(number) ?? chain[i + 1]?.previous;
    return said === undefined ? undefined : said === hash;
  });
  for (const [i, line] of chain.entries()) {
    if (line.kind === "damaged") damaged.set(i, `it was changed: ${line.why}`);
    else if (line.kind === "lost")
      damaged.set(i, `steps ${line.lost.first} to ${line.lost.last} are lost: nothing says who computed them`);
    const expected = i === 0 ? chainStart : chain[i - 1]!.hash;
    if (line.kind !== "damaged" && line.previous !== expected && (i === 0 || confirmed[i] === false))
      // Its own words about the line before differ, and what follows does not know it: it is this one.
      damaged.set(i, "it was changed: it does not follow from the line before it");
  }
  for (const [i, ok] of confirmed.entries()) {
    if (ok !== false || damaged.has(i) || damaged.has(i + 1)) continue;
    const { number } = chain[i]!;
    const by = heads.has(number) ? "the checkpoint written after it" : "the line after it";
    damaged.set(i, `it was changed: ${by} knows it by another SHA-256`);
  }
  return damaged;
}

const lineName = ({ number, kind, ...line }: ChainLine): string =>
  `${ledgerName} line ${number}${kind === "step" && "entry" in line ? ` (${stepsName(line.entry)})` : ""}`;

/** "step 46", or of a round of local steps "steps 41 to 60". */
export const stepsName = ({ step, steps }: { step: number; steps: number }): string =>
  steps === 1 ? `step ${step}` : `steps ${step - steps + 1} to ${step}`;

/** Each step after the one before, and each of its shards once. */
function checkSteps(chain: readonly ChainLine[], shards: number | undefined, findings: Finding[]): void {
  /** Undefined behind a damaged line, which may have been several. */
  let last: number | undefined = 0;
  const digests = new Map<number, string>();
  for (const line of chain) {
    const changed = line.kind === "change" ? line.change.changes.shards?.to : undefined;
    if (typeof changed === "number") shards = changed;
    if (line.kind === "undone") {
      const wrong = wrongUndone(line.undone, last, digests);
      if (wrong) findings.push({ where: lineName(line), what: wrong });
    }
    if (line.kind === "damaged") last = undefined;
    else if (line.kind !== "step") last = stepAfter(line) ?? last;
    if (line.kind === "begin") digests.set(line.begins.step, line.begins.weights);
    if (line.kind !== "step") continue;
    const { step, steps, parts } = line.entry;
    digests.set(step, line.entry.weights);
    if (last !== undefined && step !== last + steps)
      findings.push({ where: lineName(line), what: `it is ${stepsName(line.entry)}, after step ${last}` });
    last = step;
    const wrong = wrongParts(parts, shards);
    if (wrong) findings.push({ where: lineName(line), what: wrong });
  }
}

/** What is wrong with steps that were taken back; undefined where they lead to the weights that those steps began with. */
function wrongUndone(
  { from, to, weights }: Undone,
  last: number | undefined,
  digests: ReadonlyMap<number, string>,
): string | undefined {
  if (last !== undefined && from !== last) return `it takes back the steps up to ${from}, after step ${last}`;
  const expected = digests.get(to);
  if (expected !== undefined && expected !== weights)
    return `it goes on from the weights ${weights}, step ${to} ended with ${expected}`;
  return undefined;
}

/** @returns what is wrong with the shards of a step; undefined where each was counted once */
function wrongParts(parts: readonly { shards: string }[], shards: number | undefined): string | undefined {
  const spans = parts.map(({ shards: text }) => spanOf(text));
  if (spans.some((span) => span === undefined)) return "it names shards that cannot be read";
  const sorted = (spans as [number, number][]).sort((a, b) => a[0] - b[0]);
  let next = 0;
  for (const [first, last] of sorted) {
    if (first < next) return `shard ${first} was counted twice`;
    if (first > next) return `shard ${next} was not counted`;
    next = last + 1;
  }
  if (shards !== undefined && next !== shards) return `${next} shards were counted, a step of this run has ${shards}`;
  return undefined;
}

/** "3" or "4-7" */
export function spanOf(text: string): [number, number] | undefined {
  const [, first, last = first] = /^(\d{1,6})(?:-(\d{1,6}))?$/.exec(text) ?? [];
  return first === undefined || Number(last) < Number(first) ? undefined : [Number(first), Number(last)];
}

/** Shards of the first step that the ledger has: those of a checkpoint, unless they were others before. */
function shardsOf(chain: readonly ChainLine[], proofs: readonly Proof[]): number | undefined {
  const found = proofs.map(({ state }) => state?.options.shards);
  const changes = chain.flatMap((line) => (line.kind === "change" ? [line.change.changes.shards?.from] : []));
  return [...changes, ...found].find((shards) => typeof shards === "number") as number | undefined;
}

/** What a checkpoint and the ledger say of the same step. */
function checkProofs(chain: readonly ChainLine[], proofs: readonly Proof[], findings: Finding[]): void {
  const byNumber = new Map(chain.map((line) => [line.number, line]));
  const entries = new Map(standingSteps(chain).map((entry) => [entry.step, entry]));
  for (const { name, state } of proofs) {
    if (!state || chain.length === 0) continue;
    const where = `${name}/state.json`;
    const begin = chain.find((line) => line.kind === "begin");
    if (begin?.kind === "begin" && state.step <= begin.begins.step) {
      if (state.step === begin.begins.step && state.weightsDigest !== begin.begins.weights)
        findings.push({ where, what: `the ledger begins with the weights ${begin.begins.weights}, not with these` });
      continue;
    }
    if (!byNumber.has(state.ledger.lines))
      findings.push({
        where: ledgerName,
        what: `it is too short: ${name} was written after line ${state.ledger.lines}`,
      });
    const entry = entries.get(state.step);
    if (entry && entry.weights !== state.weightsDigest)
      findings.push({
        where,
        what: `its weights are ${state.weightsDigest}, the ledger says ${entry.weights} for this step`,
      });
    if (entry && state.lossNats !== undefined && entry.lossNats !== state.lossNats)
      findings.push({ where, what: `its loss is ${state.lossNats}, the ledger says ${entry.lossNats}` });
  }
}

async function checkMarkers(directory: string, proofs: readonly Proof[], findings: Finding[]): Promise<void> {
  const find = (what: string) => findings.push({ where: markersName, what });
  let raw: unknown;
  try {
    raw = await readJson(join(directory, markersName));
  } catch (error) {
    if (!isAbsent(error)) find(`it was changed: ${messageOf(error)}`);
    return;
  }
  const { data } = markersSchema.safeParse(raw);
  const text = await onDisk(directory, "read", () => readFile(join(directory, markersName), "utf8"));
  if (!data || text !== `${JSON.stringify(raw)}\n`) return void find("it was changed: it is not what Weft writes");
  for (const [kind, marker] of Object.entries(data)) {
    if (!marker) continue;
    const proof = proofs.find(({ name }) => name === checkpointName(marker.step));
    if (!proof) find(`it was changed: the ${kind} checkpoint, of step ${marker.step}, is not there`);
    else if (proof.state && "valLossNats" in marker && proof.state.valLossNats !== marker.valLossNats)
      find(
        `it was changed: ${proof.name} has the validation loss ${proof.state.valLossNats}, not ${marker.valLossNats}`,
      );
    else if (kind === "final" && proof.state && proof.state.options.steps !== marker.step)
      find(`it was changed: ${proof.name} is of a run of ${proof.state.options.steps} steps, not its final checkpoint`);
  }
}

function countedIn(chain: readonly ChainLine[]) {
  const workers: Record<string, number> = {};
  let [shards, confirmed] = [0, 0];
  const entries = standingSteps(chain);
  // Whose every answer was taken back has given none that counts.
  for (const line of chain)
    if (line.kind === "step")
      for (const part of line.entry.parts) for (const name of contributorsOf(part)) workers[name] = 0;
  for (const { parts, steps } of entries)
    for (const { shards: text, worker, second, begun } of parts) {
      const [first, last] = spanOf(text) ?? [0, -1];
      const count = (last - first + 1) * steps;
      workers[worker]! += count;
      for (const share of begun ?? []) {
        workers[share.worker]! += (last - first + 1) * share.steps;
        workers[worker]! -= (last - first + 1) * share.steps;
      }
      shards += count;
      if (second !== undefined) confirmed += count;
    }
  const undone = chain.flatMap((line) => (line.kind === "undone" ? [line.undone] : []));
  const [firstStep, lastStep] = [
    entries[0] ? entries[0].step - entries[0].steps + 1 : null,
    entries.at(-1)?.step ?? null,
  ];
  return { lines: chain.at(-1)?.number ?? 0, firstStep, lastStep, shards, confirmed, undone, workers };
}

function reached(chain: readonly ChainLine[], heads: ReadonlyMap<number, string>): { provenUpTo: number } {
  const furthest = Math.max(0, ...heads.keys());
  const step = chain.filter((line) => line.kind === "step" && line.number <= furthest).at(-1);
  return { provenUpTo: step?.kind === "step" ? step.entry.step : 0 };
}

/** What a worker gave: steps with the shards of its counted answers. */
export function contributionsOf(chain: readonly ChainLine[], worker: string) {
  const standing = new Set(standingSteps(chain));
  return chain.flatMap((line) => {
    if (line.kind !== "step") return [];
    const { step, steps, parts } = line.entry;
    const shards = parts.filter((part) => contributorsOf(part).includes(worker)).map((part) => part.shards);
    return shards.length > 0 ? [{ step, steps, shards, undone: !standing.has(line.entry) }] : [];
  });
}
