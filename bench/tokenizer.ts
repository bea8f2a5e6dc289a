// GPT-2's tokenizer against tiktoken (OpenAI's, in Rust) on the same pieces of text, in turns. Both have read the first
// half of a text when the second is timed: what they remember then is what the text before has taught them.
import { readFileSync, writeFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { glob } from "tinyglobby";
import { openShakespeare } from "../coordinator/data/shakespeare.ts";
import { temporaryFolder } from "../shared/disk.ts";
import { bytesOf } from "../shared/tokenizers/bytes.ts";
import { gpt2Ids, gpt2Tokenizer } from "../shared/tokenizers/gpt2.ts";
import { Child } from "./child.ts";
import { median, sources } from "./training.ts";

export interface TokenizerRow {
  readonly text: string;
  readonly who: string;
  readonly threads: number;
  readonly tokensPerSec: number;
  /** Of processor time, all threads together: what a busy machine does not change much. */
  readonly tokensPerCpuSec: number;
  readonly mbPerSec: number;
}

/** What a contestant encodes: the pieces of `before` first, those of `timed` with a clock. */
export interface TokenizerTask {
  readonly before: readonly string[];
  readonly timed: readonly string[];
}

/** Its ids one after another, as SHA-256 of int32, where it has encoded all. */
export interface TokenizerAnswer {
  readonly seconds: number;
  readonly cpuSeconds: number;
  readonly tokens: number;
  readonly sha256: string;
}

/** UTF-16 units of a piece, about a document. */
const pieceUnits = 1 << 14;

/** @param pythons those that have tiktoken */
export async function measureTokenizer(
  threadCounts: readonly number[],
  rounds: number,
  pythons: readonly string[],
): Promise<TokenizerRow[]> {
  const folder = await temporaryFolder("weft-bench-");
  try {
    const ranks = join(folder, "gpt2.tiktoken");
    const tokens = gpt2Tokenizer().vocabulary.tokens.slice(0, gpt2Ids - 1);
    writeFileSync(
      ranks,
      tokens.map((token, i) => `${Buffer.from(bytesOf(token!)!).toString("base64")} ${i}\n`).join(""),
    );
    const rows: TokenizerRow[] = [];
    for (const [text, pieces] of await texts()) {
      const half = pieces.length >> 1;
      const task: TokenizerTask = { before: pieces.slice(0, half), timed: pieces.slice(half) };
      for (const threads of threadCounts)
        rows.push(...(await inTurns(text, task, threads, rounds, { folder, ranks, pythons })));
    }
    return rows;
  } finally {
    await rm(folder, { recursive: true });
  }
}

async function texts(): Promise<[string, string[]][]> {
  const shakespeare = await openShakespeare({ substitute: true, notify: console.log });
  let prose = "";
  for await (const piece of shakespeare.pieces()) prose += String(piece);
  const cwd = join(sources, "../node_modules/@types/node");
  const files = (await glob("**/*.d.ts", { cwd, absolute: true })).sort();
  const code = files.map((file) => readFileSync(file, "utf8")).join("\n");
  return [
    [basename(shakespeare.name), inPieces(prose)],
    ["@types/node", inPieces(code)],
  ];
}

/** Cut where lines end. */
function inPieces(text: string): string[] {
  const pieces: string[] = [];
  for (let at = 0; at < text.length; ) {
    const end = text.indexOf("\n", at + pieceUnits) + 1 || text.length;
    pieces.push(text.slice(at, end));
    at = end;
  }
  return pieces;
}

async function inTurns(
  text: string,
  task: TokenizerTask,
  threads: number,
  rounds: number,
  { folder, ranks, pythons }: { folder: string; ranks: string; pythons: readonly string[] },
): Promise<TokenizerRow[]> {
  const write = (name: string, some: TokenizerTask): string => {
    const path = join(folder, `${name}.json`);
    writeFileSync(path, JSON.stringify(some));
    return path;
  };
  // As `weft data prepare` does: each thread has an encoder and a share of the documents.
  const shares = Array.from({ length: threads }, (_, k) =>
    write(`share-${k}`, { ...task, timed: task.timed.filter((_piece, i) => i % threads === k) }),
  );
  const node = [join(import.meta.dirname, "tokenizer-contestant.js")];
  const contestants = [
    await Promise.all(shares.map((share) => Child.start(process.execPath, [...node, share], 1))),
    ...(await Promise.all(
      pythons.map(async (python) => [
        await Child.start(
          python,
          [join(sources, "tiktoken_contestant.py"), write("all", task), ranks, String(threads)],
          threads,
        ),
      ]),
    )),
  ];
  const runs = contestants.map(() => [] as TokenizerAnswer[]);
  for (let round = 0; round < rounds; round++)
    for (const [i, children] of contestants.entries()) {
      const answers = await Promise.all(children.map((child) => child.ask<TokenizerAnswer>({})));
      runs[i]!.push({
        seconds: Math.max(...answers.map(({ seconds }) => seconds)),
        cpuSeconds: answers.reduce((sum, { cpuSeconds }) => sum + cpuSeconds, 0),
        tokens: answers.reduce((sum, { tokens }) => sum + tokens, 0),
        sha256: answers[0]!.sha256,
      });
    }
  for (const child of contestants.flat()) child.stop();
  const counts = new Set(runs.flat().map(({ tokens, sha256 }) => `${tokens} ${threads === 1 ? sha256 : ""}`));
  if (counts.size > 1) throw new Error(`tokenizers differ on ${text}: ${[...counts].join(", ")}`);
  const bytes = task.timed.reduce((sum, piece) => sum + Buffer.byteLength(piece), 0);
  return contestants.map(([child], i) => {
    const seconds = median(runs[i]!.map((run) => run.seconds));
    const cpuSeconds = median(runs[i]!.map((run) => run.cpuSeconds));
    const { tokens } = runs[i]![0]!;
    const [tokensPerSec, tokensPerCpuSec] = [tokens / seconds, tokens / cpuSeconds];
    return { text, who: child!.ready, threads, tokensPerSec, tokensPerCpuSec, mbPerSec: bytes / seconds / 1e6 };
  });
}
