// One run of the fuzz: mutate, read, compare; a failure is shortened before it is shown.
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ConfigError } from "../../shared/errors.ts";
import { apply, type Edit, editsOf } from "./mutate.ts";
import type { Files, FuzzReader } from "./reader.ts";

/** Of the processor, so that a busy machine makes no failure: what a newcomer's odd file may cost. */
export const longestMs = 5000;

/** Milliseconds of the processor that this process has had. */
export function processorMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}
const longestMessage = 3000;

export interface Failure {
  readonly reader: string;
  readonly seed: number;
  readonly run: number;
  readonly why: string;
  readonly target: string;
  readonly edits: readonly Edit[];
  /** Of the mutated file. */
  readonly base64: string;
}

/** What stands in the folders: of most runs one file is new. */
const written = new Map<string, Buffer>();

export type Outcome = { readonly refused: string } | { readonly value: unknown } | { readonly wrong: string };

/** Is reading these files right, whatever it comes to? */
export async function tryReading(reader: FuzzReader, folder: string, files: Files, target: string): Promise<Outcome> {
  for (const [name, bytes] of Object.entries(files))
    if (written.get(join(folder, name)) !== bytes) {
      await writeFile(join(folder, name), bytes);
      written.set(join(folder, name), bytes);
    }
  const started = processorMs();
  const outcome = await judge(reader, folder, files, target);
  const took = processorMs() - started;
  return took > longestMs ? { wrong: `took ${Math.round(took)} ms` } : outcome;
}

async function judge(reader: FuzzReader, folder: string, files: Files, target: string): Promise<Outcome> {
  let value: unknown;
  try {
    value = await reader.read(folder, target);
  } catch (error) {
    if (!(error instanceof ConfigError)) return { wrong: `threw ${(error as Error)?.stack ?? error}` };
    const { message } = error;
    if (message.length > longestMessage) return { wrong: `a refusal of ${message.length} characters` };
    if (/[\n\r]|"code":/.test(message)) return { wrong: `a refusal that is not one line for people: ${message}` };
    if (reader.accepts?.(files, target) && !reader.stricter?.test(message))
      return { wrong: `refused what the reference takes: ${message}` };
    return { refused: message };
  }
  try {
    const complaint = reader.complaint(value, files, target);
    return complaint === undefined ? { value } : { wrong: complaint };
  } catch (error) {
    return { wrong: `read ${JSON.stringify(value)?.slice(0, 300)}, which the reference cannot read: ${error}` };
  }
}

/** The files of one run. */
export function mutated(reader: FuzzReader, run: number, edits: readonly Edit[]): { files: Files; target: string } {
  const { files, target } = reader.seeds[run % reader.seeds.length]!;
  const changed = apply(files[target]!, edits);
  const mend = reader.mend !== undefined && Math.floor(run / reader.seeds.length) % 2 === 0;
  return { files: { ...files, [target]: mend ? reader.mend!(changed, target) : changed }, target };
}

/** @param folder of its own, emptied */
export async function fuzzOnce(
  reader: FuzzReader,
  folder: string,
  seed: number,
  run: number,
): Promise<{ outcome: Outcome; files: Files; target: string; failure?: Failure }> {
  const read = async (edits: readonly Edit[]) => {
    const { files, target } = mutated(reader, run, edits);
    return { files, target, outcome: await tryReading(reader, folder, files, target) };
  };
  let edits = editsOf(seed, run);
  const first = await read(edits);
  if (!("wrong" in first.outcome)) return first;
  let shortest = first;
  for (let i = 0; i < edits.length; ) {
    const fewer = edits.toSpliced(i, 1);
    const again = await read(fewer);
    if ("wrong" in again.outcome) {
      edits = fewer;
      shortest = again;
    } else i++;
  }
  const { files, target, outcome } = shortest;
  const why = "wrong" in outcome ? outcome.wrong : "";
  const base64 = files[target]!.subarray(0, 4096).toString("base64");
  return { ...shortest, failure: { reader: reader.name, seed, run, why, target, edits, base64 } };
}

export async function emptyFolder(path: string): Promise<string> {
  await rm(path, { recursive: true, force: true });
  written.clear();
  await mkdir(path, { recursive: true });
  return path;
}
