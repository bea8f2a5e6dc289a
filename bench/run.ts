// The whole program against the whole program: `weft train` with the preset that `npm start` takes, two workers, against
// nanoGPT's train.py with the same setting on two threads, in turns. The difference of a long and a short run leaves
// start-up and the evaluations that both have out.
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openShakespeare } from "../coordinator/data/shakespeare.ts";
import { fairEnvironment } from "./child.ts";
import { settings, tokensOf } from "./settings.ts";
import { median, type Peers } from "./training.ts";

export interface RunRow {
  readonly who: string;
  readonly tokensPerSec: number;
}

const [short, long] = [100, 500];

/** Tokens a second between the ends of a short and a long run. */
function difference(run: (steps: number) => void): number {
  const seconds = [short, long].map((steps) => {
    const started = process.hrtime.bigint();
    run(steps);
    return Number(process.hrtime.bigint() - started) / 1e9;
  });
  return ((long - short) * tokensOf(settings[0]!)) / (seconds[1]! - seconds[0]!);
}

function weft(folder: string, steps: number): void {
  const out = mkdtempSync(join(folder, "weft-"));
  const flags = `train --preset shakespeare-cpu --steps ${steps} --decay-steps 2000 --eval-interval 0 --checkpoint-interval 0
    --sample-tokens 0 --eval-sample-tokens 0 --port 0 --workers 2 --threads 1 --engine native --out ${out}`;
  execFileSync(process.execPath, [join(import.meta.dirname, "../cli/weft.js"), ...flags.split(/\s+/)], {
    stdio: "ignore",
  });
}

/** What train.py expects in its working folder: its configurator and the data as uint16 files. */
async function prepare(folder: string, nanogpt: string, python: string): Promise<void> {
  const document = await openShakespeare({ substitute: false, notify: console.log });
  let text = "";
  for await (const piece of document.pieces()) text += String(piece);
  const characters = [...new Set(text)].sort();
  const ids = Uint16Array.from(text, (character) => characters.indexOf(character));
  const data = join(folder, "data/shakespeare_char");
  mkdirSync(data, { recursive: true });
  const split = Math.floor(ids.length * 0.9);
  writeFileSync(join(data, "train.bin"), ids.subarray(0, split));
  writeFileSync(join(data, "val.bin"), ids.subarray(split));
  execFileSync(python, [
    "-c",
    "import pickle, sys; pickle.dump({'vocab_size': 65}, open(sys.argv[1], 'wb'))",
    join(data, "meta.pkl"),
  ]);
  for (const file of ["configurator.py", "config"]) symlinkSync(join(nanogpt, file), join(folder, file));
}

/** The command of nanoGPT's README for a CPU, without its evaluations. */
function nanoGPT(folder: string, nanogpt: string, python: string, steps: number): void {
  const flags = `config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=1 --eval_interval=100000
    --log_interval=1000 --block_size=64 --batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --max_iters=${steps}
    --lr_decay_iters=2000 --dropout=0.0`;
  execFileSync(python, [join(nanogpt, "train.py"), ...flags.split(/\s+/)], {
    cwd: folder,
    stdio: "ignore",
    env: fairEnvironment(2),
  });
}

export async function measureRuns(peers: Peers, rounds: number): Promise<RunRow[]> {
  const folder = mkdtempSync(join(tmpdir(), "weft-bench-"));
  try {
    const programs = [{ who: "weft train, 2 workers", run: (steps: number) => weft(folder, steps) }];
    for (const [i, python] of peers.pythons.entries()) {
      const place = join(folder, `peer-${i}`);
      mkdirSync(place);
      await prepare(place, peers.nanogpt!, python);
      const version = execFileSync(python, ["-c", "import torch; print(torch.__version__)"], { encoding: "utf8" });
      const run = (steps: number) => nanoGPT(place, peers.nanogpt!, python, steps);
      programs.push({ who: `nanoGPT train.py, PyTorch ${version.trim()}`, run });
    }
    const rates: number[][] = programs.map(() => []);
    for (let round = 0; round < rounds; round++)
      for (const [i, { run }] of programs.entries()) rates[i]!.push(difference(run));
    return programs.map(({ who }, i) => ({ who, tokensPerSec: median(rates[i]!) }));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
