// The lines of a ledger, read one after another: each names the SHA-256 of the line before it. A line is a step, or says
// where the ledger begins, what was lost of it, or (of a kind that this version does not know) something beside steps.
import { createHash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { z } from "zod";
import { diskError } from "../../shared/disk.ts";

export const ledgerName = "ledger.jsonl";

const digest = z.string().regex(/^[0-9a-f]{64}$/);

export const stepLine = z.object({
  step: z.int().min(1),
  /** How many steps up to that one the line is of. */
  steps: z.int().min(1).default(1),
  parts: z
    .array(
      z.object({
        shards: z.string(),
        worker: z.string(),
        leases: z.int().min(1),
        /** Who has said the same before it counted. */
        second: z.string().optional(),
        /** Who took how many of the first steps of its replica, and handed it over. */
        begun: z.array(z.object({ worker: z.string(), steps: z.int().min(1) })).optional(),
      }),
    )
    .min(1),
  lossNats: z.number(),
  gradientNorm: z.number(),
  learningRate: z.number(),
  weights: z.string(),
  previous: digest,
});

/** A ledger that does not begin with step 1: where the weights came from that its first step changed. */
const beginLine = z.object({ begins: z.object({ step: z.int().min(0), weights: z.string() }), previous: digest });

/** Options that are other than before for the steps after `after`. */
const changeLine = z.object({
  after: z.int().min(0),
  changes: z.record(z.string(), z.object({ from: z.unknown(), to: z.unknown() })),
  previous: digest,
});

/** The steps after `to`, up to `from`, do not count: answers of a liar are in them. The next step begins with `weights`. */
const undoneLine = z.object({
  undone: z.object({
    from: z.int().min(0),
    to: z.int().min(0),
    weights: z.string(),
    workers: z.array(z.string()),
    why: z.string(),
  }),
  previous: digest,
});
export type Undone = z.infer<typeof undoneLine>["undone"];

/**
 * Lines that were damaged beyond reading, one for each step where `lines` does not say otherwise. `hash` is what the next
 * line says of the last of them.
 */
const lostLine = z.object({
  lost: z.object({ first: z.int(), last: z.int(), lines: z.int().min(1).optional() }),
  hash: digest,
  previous: digest,
});
type Lost = z.infer<typeof lostLine>["lost"];

const otherLine = z.looseObject({ previous: digest });

export type ChainLine = {
  /** 1-based, of what the ledger counts: lost lines count too. */
  readonly number: number;
  readonly bytes: Buffer;
  /** What the next line has to name. */
  readonly hash: string;
  readonly previous: string | undefined;
} & (
  | { readonly kind: "step"; readonly entry: z.infer<typeof stepLine> }
  | { readonly kind: "begin"; readonly begins: { step: number; weights: string } }
  | { readonly kind: "lost"; readonly lost: Lost }
  | { readonly kind: "change"; readonly change: z.infer<typeof changeLine> }
  | { readonly kind: "undone"; readonly undone: Undone }
  | { readonly kind: "other" }
  | { readonly kind: "damaged"; readonly why: string }
);

export const chainStart = "0".repeat(64);

export function hashOf(line: string | Buffer): string {
  return createHash("sha256").update(line).digest("hex");
}

/** Longest line that is read as one: a step of 65,536 shards by as many workers is shorter. */
const longestLine = 64 * 2 ** 20;
const newline = 10;

/** Every line of a ledger in order, the last one also when its line break is missing. @throws ConfigError for the disk */
export async function* linesOf(path: string): AsyncGenerator<ChainLine> {
  let number = 0;
  /** The last line that could be read, until one after it can. */
  let good = { number: 0, step: 0, steps: 1 };
  for await (const bytes of piecesOf(path)) {
    const line = lineOf(bytes);
    const isBehindGap = number > good.number;
    number += line.kind === "lost" ? (line.lost.lines ?? line.lost.last - line.lost.first + 1) : 1;
    // A hole may have swallowed the ends of several lines: the step that follows says how many.
    if (line.kind === "step" && isBehindGap)
      number = Math.max(number, good.number + linesFor(line.entry.step - good.step, good.steps, line.entry.steps));
    if (line.kind === "step") good = { number, step: line.entry.step, steps: line.entry.steps };
    else if (line.kind === "undone") good = { ...good, number, step: line.undone.to };
    else if (line.kind !== "damaged") good = { ...good, number };
    yield { ...line, number };
  }
}

/** The step that a line leads to; undefined where it says nothing about steps. */
export function stepAfter(line: ChainLine): number | undefined {
  if (line.kind === "step") return line.entry.step;
  if (line.kind === "begin") return line.begins.step;
  if (line.kind === "lost") return line.lost.last;
  return line.kind === "undone" ? line.undone.to : undefined;
}

/** The steps that the weights of the last one come from, in order: what was undone is not among them. */
export function standingSteps(lines: readonly ChainLine[]): z.infer<typeof stepLine>[] {
  const steps: z.infer<typeof stepLine>[] = [];
  for (const line of lines) {
    if (line.kind === "step") steps.push(line.entry);
    if (line.kind === "undone") while ((steps.at(-1)?.step ?? 0) > line.undone.to) steps.pop();
  }
  return steps;
}

/** How many lines so many steps take: the last of a run is perhaps of fewer steps than those before. */
export const linesFor = (steps: number, ...each: number[]): number => Math.ceil(steps / Math.max(...each));

type Unnumbered = ChainLine extends infer T ? (T extends unknown ? Omit<T, "number"> : never) : never;

function lineOf(bytes: Buffer): Unnumbered {
  const hash = hashOf(bytes);
  const text = bytes.toString("utf8");
  const damaged = (why: string, previous?: string): Unnumbered => ({ kind: "damaged", bytes, hash, previous, why });
  if (bytes.at(-1) !== newline) return damaged("it has no end");
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return damaged("it is not JSON");
  }
  const any = otherLine.safeParse(value);
  if (!any.success) return damaged("it does not name the line before it");
  const { previous } = any.data;
  const common = { bytes, hash, previous };
  const { step, begins, lost, changes, undone } = any.data;
  if (step !== undefined) {
    const parsed = stepLine.safeParse(value);
    return parsed.success ? { ...common, kind: "step", entry: parsed.data } : damaged("it is no step", previous);
  }
  if (begins !== undefined) {
    const parsed = beginLine.safeParse(value);
    return parsed.success
      ? { ...common, kind: "begin", begins: parsed.data.begins }
      : damaged("it is no beginning", previous);
  }
  if (lost !== undefined) {
    const parsed = lostLine.safeParse(value);
    if (!parsed.success || parsed.data.lost.last < parsed.data.lost.first)
      return damaged("it says wrongly what was lost", previous);
    return { ...common, kind: "lost", hash: parsed.data.hash, lost: parsed.data.lost };
  }
  if (undone !== undefined) {
    const parsed = undoneLine.safeParse(value);
    return parsed.success && parsed.data.undone.to <= parsed.data.undone.from
      ? { ...common, kind: "undone", undone: parsed.data.undone }
      : damaged("it says wrongly what was undone", previous);
  }
  if (changes !== undefined) {
    const parsed = changeLine.safeParse(value);
    return parsed.success ? { ...common, kind: "change", change: parsed.data } : damaged("it is no change", previous);
  }
  return { ...common, kind: "other" };
}

async function* piecesOf(path: string): AsyncGenerator<Buffer> {
  let file: FileHandle | undefined;
  try {
    file = await open(path, "r");
    let rest: Buffer = Buffer.alloc(0);
    for await (const chunk of file.createReadStream({
      autoClose: false,
      highWaterMark: 2 ** 20,
    }) as AsyncIterable<Buffer>) {
      let data = rest.length > 0 ? Buffer.concat([rest, chunk]) : chunk;
      for (let end = data.indexOf(newline); end >= 0; end = data.indexOf(newline)) {
        yield data.subarray(0, end + 1);
        data = data.subarray(end + 1);
      }
      rest = data;
      if (rest.length > longestLine) {
        yield rest;
        rest = Buffer.alloc(0);
      }
    }
    if (rest.length > 0) yield rest;
  } catch (error) {
    throw diskError(error, path, "read");
  } finally {
    await file?.close();
  }
}

/** Whose work a part of a step is: who answered, and who took the first steps of its replica. */
export function contributorsOf({ worker, begun = [] }: z.infer<typeof stepLine>["parts"][number]): string[] {
  return [worker, ...begun.map((share) => share.worker)];
}
