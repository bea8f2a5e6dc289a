// From characters to batches, as the character GPT after Karpathy's lecture begins: vocabulary, encoding, windows, and
// the loss of a model that has learned nothing.
import { describe, expect, test } from "vitest";
import { type Dataset, openDataset } from "../../coordinator/data/dataset.ts";
import { layoutOf } from "../../shared/family/layout.ts";
import { CharTokenizer } from "../../shared/tokenizers/char.ts";
import { gpt2Tokenizer } from "../../shared/tokenizers/gpt2.ts";
import { openEngine } from "../../worker/engine/choose.ts";
import { shakespearePath, testWithShakespeare } from "../text.ts";
import { TorchRandom } from "../torch-random.ts";
import { bigram } from "./bigram.ts";

const open = (): Promise<Dataset> => openDataset({ source: shakespearePath, blockSize: 8 });

/** The first batch of the lecture: seed 1337, four windows of eight tokens. */
async function firstBatch(data: Dataset) {
  const starts = new TorchRandom(1337).randint(0, data.train.length - 8, 4);
  return data.windows("train", starts);
}

testWithShakespeare("tiny Shakespeare has 65 characters and 1,115,394 tokens", async () => {
  const { tokenizer, train, val, ...data } = await open();
  expect(tokenizer.vocabSize).toBe(65);
  expect(tokenizer.decode(Array(65).keys())).toBe("\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz");
  expect(train.length + val.length).toBe(1_115_394);
  expect(data.name).toBe(shakespearePath);
});

testWithShakespeare("its characters are numbers, in their order, and back", async () => {
  const { tokenizer } = await open();
  for (const [text, ids] of [
    ["First Cit", [18, 47, 56, 57, 58, 1, 15, 47, 58]],
    ["hi there!", [46, 47, 1, 58, 46, 43, 56, 43, 2]],
    ["hii there", [46, 47, 47, 1, 58, 46, 43, 56, 43]],
  ] as const) {
    expect([...tokenizer.encode(text)]).toEqual(ids);
    expect(tokenizer.decode(ids)).toBe(text);
  }
});

test("the same text is three tokens to GPT-2: 71 4178 612", () => {
  expect([...gpt2Tokenizer().encode("hii there")]).toEqual([71, 4178, 612]);
});

describe("PyTorch's random stream", () => {
  test("randn(4, 8, 2) of seed 1337", () => {
    const x = new TorchRandom(1337).randn(4 * 8 * 2);
    expect([...x.subarray(0, 6)].map((value) => value.toFixed(4))).toEqual(
      ["0.1808", "-0.0700", "-0.3596", "-0.9152", "0.6258", "0.0255"], //
    );
  });

  test("randint(0, 10, (3, 2)) of seed 42", () => {
    expect([...new TorchRandom(42).randint(0, 10, 6)]).toEqual([2, 7, 6, 4, 6, 5]);
  });
});

testWithShakespeare("the first batch of seed 1337 is the lecture's", async () => {
  const data = await open();
  const { tokens, targets } = await firstBatch(data);
  const rows = (ids: Int32Array) => [0, 1, 2, 3].map((b) => data.tokenizer.decode(ids.subarray(8 * b, 8 * b + 8)));
  expect(rows(tokens)).toEqual(["Let's he", "for that", "nt that ", "MEO:\nI p"]);
  expect(rows(targets)).toEqual(["et's hea", "or that ", "t that h", "EO:\nI pa"]);
});

testWithShakespeare("an untrained bigram has loss 4.8786 there; guessing would have ln 65 = 4.1744", async () => {
  const { tokens, targets } = await firstBatch(await open());
  const model = bigram(65);
  const { engine } = await openEngine("tfjs", {
    model,
    maxRows: 4,
    precision: "float32",
    threads: 1,
    device: "cpu",
  });
  try {
    await engine.setWeights(new TorchRandom(1337).randn(layoutOf(model).size));
    const losses = await engine.losses(tokens, targets, 4);
    expect(losses.reduce((a, b) => a + b) / 4).toBeCloseTo(4.8786, 4);
    await engine.setWeights(new Float32Array(layoutOf(model).size));
    for (const loss of await engine.losses(tokens, targets, 4)) expect(loss).toBeCloseTo(4.1744, 4);
  } finally {
    await engine.dispose();
  }
});

test("an unknown character is an error that names it, not a KeyError", () => {
  expect(() => CharTokenizer.of("hello world").encode("help!")).toThrow('character "p" (U+0070) at position 3');
});
