import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { sampleCommand } from "../../cli/sample.ts";
import { PhiloxStream } from "../../shared/arithmetic/philox.ts";
import { digestOf } from "../../shared/arithmetic/vector.ts";
import { writeCheckpoint } from "../../shared/checkpoint/checkpoint.ts";
import { initialWeights } from "../../shared/family/init.ts";
import { layoutOf } from "../../shared/family/layout.ts";
import type { ModelConfig } from "../../shared/model.ts";
import { CharTokenizer } from "../../shared/tokenizers/char.ts";
import { type ServedRun, serveRun } from "../coordinator/served-run.ts";

const tokenizer = CharTokenizer.of("abcdefghijklmnopqrstuvwxyz \n");
const model: ModelConfig = {
  family: "gpt2",
  vocabSize: tokenizer.vocabSize,
  blockSize: 16,
  nLayer: 1,
  nHead: 2,
  nEmbd: 16,
  bias: true,
  dropout: 0,
  activation: "gelu",
  tiedHead: true,
  layerNormEps: 1e-5,
};

let served: ServedRun;
let run: string;
beforeAll(async () => {
  served = await serveRun({ steps: [] });
  run = served.runDirectory;
  const random = new PhiloxStream(8, 0);
  const weights = initialWeights(layoutOf(model), 8).map((w) => w + 0.3 * random.normal());
  const zeros = new Float32Array(weights.length);
  await writeCheckpoint(run, {
    model,
    weights,
    optimizer: { m: zeros, v: zeros },
    tokenizer: tokenizer.toFiles(),
    state: {
      step: 7,
      seed: 1,
      options: {},
      arithmetic: "none",
      weightsDigest: digestOf(weights),
      ledger: { lines: 7, head: "" },
      dataset: { name: "letters", fingerprint: "" },
      tokensSeen: 0,
    },
  });
  await served.shelf.refresh(() => {});
});
afterAll(() => served[Symbol.asyncDispose]());

const wasm = ["--engine", "tfjs", "--backend", "wasm"];

/** @returns what came on standard output */
async function weft(...words: string[]): Promise<string> {
  let out = "";
  vi.spyOn(process.stderr, "write").mockReturnValue(true);
  vi.spyOn(process.stdout, "write").mockImplementation((text) => {
    out += text;
    return true;
  });
  const command = sampleCommand().exitOverride();
  try {
    await command.parseAsync([...wasm, "--tokens", "30", ...words], { from: "user" });
  } finally {
    vi.restoreAllMocks();
  }
  return out;
}

const from = (...words: string[]) => weft("--checkpoint", run, "--prompt", "the ", ...words);

test("same seed, same text, from a run's folder or its coordinator; the prompt first", async () => {
  const text = await from();
  expect(text).toMatch(/^the [a-z \n]{30}\n$/);
  const file = join(run, "prompt.txt");
  await writeFile(file, "the ");
  expect(await weft("--from", served.url, "--prompt-file", file)).toBe(text);
  vi.spyOn(process, "stdin", "get").mockReturnValue(Readable.from([Buffer.from("the ")]) as typeof process.stdin);
  expect(await weft("--checkpoint", run, "--prompt", "-", "--seed", "2")).not.toBe(text);
});

test("several samples, each of which ends before a stop string", async () => {
  const separator = "\n---------------\n";
  const texts = (await from("--samples", "3")).slice(0, -1).split(separator);
  expect(texts).toHaveLength(3);
  const stop = texts[1]!.slice(14, 16);
  const cut = (await from("--samples", "3", "--stop", stop)).slice(0, -1).split(separator);
  expect(cut).toEqual(texts.map((text) => `the ${text.slice(4).split(stop)[0]}`));
});

test("greedy is temperature 0 and top-k 1", async () => {
  expect(await from("--top-k", "1", "--seed", "9")).toBe(await from("--temperature", "0"));
});

test("the two best of four beams", async () => {
  expect(await from("--beams", "4", "--samples", "2")).toMatch(/^the [a-z \n]{30}\n-{15}\nthe [a-z \n]{30}\n$/);
});

test.each([
  [["--model", "x"], /name one of --checkpoint, --model and --from; got 2/],
  [["--top-p", "0"], /--top-p must be a number above 0 and at most 1, got 0/],
  [["--tokens", "many"], /--tokens must be a whole number at least 1, got "many"/],
  [["--temperature", ""], /--temperature must be a number at least 0, got ""/],
  [["--beams", "4", "--top-k", "3"], /--beams searches for the likeliest text and draws nothing; leave out --top-k/],
  [["--beams", "2", "--samples", "3"], /2 beams end in 2 texts at most, got --samples 3/],
  [["--length-penalty", "2"], /--length-penalty belongs to a beam search/],
  [["--stop", ""], /--stop is empty/],
  [["--checkpoint", "/nowhere"], /\/nowhere: no such directory/],
  [["--prompt", ""], /the prompt is empty/],
  [["--prompt", "the Q"], /"Q"/],
  [["--prompt-file", "/nowhere"], /--prompt-file \/nowhere: cannot be read \(ENOENT\)/],
])("%s is refused", async (words, message) => {
  await expect(from(...words)).rejects.toThrow(message);
});
