import { describe, expect, test } from "vitest";
import { PhiloxStream } from "../../../shared/arithmetic/philox.ts";
import { type BeamOptions, beamSearch } from "../../../shared/decoding/beam.ts";
import { argmax, draw, largest, penalise, type SampleOptions, sample } from "../../../shared/decoding/decode.ts";
import { ToyModel } from "../../toy.ts";

const greedy: SampleOptions = {
  tokens: 20,
  temperature: 0,
  topK: 0,
  topP: 1,
  repetitionPenalty: 1,
  samples: 1,
  seed: 1,
  finished: () => false,
};
const prompt = Int32Array.of(3, 1, 4);

async function run(engine: ToyModel, changes: Partial<SampleOptions>, from = prompt): Promise<number[][]> {
  const options = { ...greedy, ...changes };
  const texts: number[][] = Array.from({ length: options.samples }, () => []);
  for await (const { sample: i, token } of sample(engine, from, options)) texts[i]!.push(token);
  expect(engine.open).toBe(0);
  return texts;
}

/** The definition, without a cache: nanoGPT's loop. */
function greedyByHand(engine: ToyModel, from: Int32Array, count: number): number[] {
  const all = [...from];
  for (let i = 0; i < count; i++) all.push(argmax(engine.logitsAfter(all.slice(-engine.model.blockSize))));
  return all.slice(from.length);
}

describe("greedy", () => {
  test("inside the block feeds every token once", async () => {
    const engine = new ToyModel(64, 11);
    expect(await run(engine, {})).toEqual([greedyByHand(engine, prompt, 20)]);
    expect(engine.fed).toBe(prompt.length + 19);
  });

  test("past the block sees the last blockSize tokens", async () => {
    for (const blockSize of [1, 2, 7]) {
      const engine = new ToyModel(blockSize, 11);
      expect(await run(engine, {})).toEqual([greedyByHand(engine, prompt, 20)]);
    }
  });

  test("from a prompt longer than the block", async () => {
    const long = Int32Array.from({ length: 30 }, (_, i) => i % 11);
    const engine = new ToyModel(8, 11);
    expect(await run(engine, {}, long)).toEqual([greedyByHand(engine, long, 20)]);
  });

  test("from nothing is refused", async () => {
    await expect(run(new ToyModel(8, 11), {}, new Int32Array(0))).rejects.toThrow("the prompt is empty");
  });

  test("with a repetition penalty never repeats where the penalty is huge", async () => {
    const [text] = await run(new ToyModel(64, 40), { repetitionPenalty: 1e9 });
    expect(new Set([...prompt, ...text!]).size).toBe(23);
  });
});

describe("ids without a token", () => {
  const has = (id: number): boolean => id % 3 === 1;

  test("are never drawn, greedy, hot, cut or penalised", async () => {
    for (const changes of [{}, { temperature: 5 }, { temperature: 1, topK: 20 }, { temperature: 1, topP: 0.999 }]) {
      const texts = await run(new ToyModel(8, 30), { ...changes, repetitionPenalty: 1.5, samples: 4, tokens: 60, has });
      expect(texts.flat()).toHaveLength(240);
      expect(texts.flat().filter((id) => !has(id))).toEqual([]);
    }
  });

  test("are in no beam, however wide the search", async () => {
    const options = { ...greedy, beams: 32, tokens: 3, lengthPenalty: 1, has };
    const found = await beamSearch(new ToyModel(8, 9), prompt, options);
    expect(found).toHaveLength(27); // 3 tokens in 3 places
    expect(found.flatMap(({ tokens }) => tokens).filter((id) => !has(id))).toEqual([]);
  });

  test("a model whose logits are not finite is refused instead of drawn from", async () => {
    const engine = new ToyModel(8, 11);
    const plain = engine.logitsAfter.bind(engine);
    engine.logitsAfter = (tokens) => plain(tokens).map((x, i) => (tokens.length === 5 && i === 7 ? Number.NaN : x));
    await expect(run(engine, {})).rejects.toThrow("the model's logit of id 7 after 5 tokens is NaN");
  });
});

describe("several samples", () => {
  const hot = { temperature: 1.5, samples: 3 };

  test("same seed, same text; another seed, another text", async () => {
    const first = await run(new ToyModel(8, 50), hot);
    expect(await run(new ToyModel(8, 50), hot)).toEqual(first);
    expect(await run(new ToyModel(8, 50), { ...hot, seed: 2 })).not.toEqual(first);
    expect(new Set(first.map(String)).size).toBe(3);
  });

  test("a sample does not depend on how many others there are, nor on one that ends early", async () => {
    const three = await run(new ToyModel(8, 50), hot);
    expect(await run(new ToyModel(8, 50), { ...hot, samples: 1 })).toEqual([three[0]]);
    const short = await run(new ToyModel(8, 50), { ...hot, finished: (text) => text.includes(three[0]![2]!) });
    for (const [i, text] of short.entries()) expect(text).toEqual(three[i]!.slice(0, text.length));
    expect(short[0]!.length).toBeLessThanOrEqual(3);
  });

  test("a reader who leaves early releases the engine's rows", async () => {
    const engine = new ToyModel(8, 50);
    for await (const _ of sample(engine, prompt, { ...greedy, ...hot })) break;
    expect(engine.open).toBe(0);
  });
});

describe("one draw", () => {
  const logits = Float32Array.of(2, 0, 1, 1, -1);
  const frequencies = (options: { temperature: number; topK: number; topP: number }): number[] => {
    const random = new PhiloxStream(5, 4);
    const scratch = new Float32Array(5);
    const counts = [0, 0, 0, 0, 0];
    for (let i = 0; i < 40_000; i++) counts[draw(logits, options, random, scratch)]!++;
    return counts.map((count) => count / 40_000);
  };
  // Softmax by hand over the tokens that are left.
  const expected = (kept: number[], temperature: number): number[] => {
    const weights = [...logits].map((x, i) => (kept.includes(i) ? Math.exp(x / temperature) : 0));
    return weights.map((w) => w / weights.reduce((a, b) => a + b));
  };
  const cases = [
    { name: "all", options: { temperature: 1, topK: 0, topP: 1 }, kept: [0, 1, 2, 3, 4] },
    { name: "temperature 0.5", options: { temperature: 0.5, topK: 0, topP: 1 }, kept: [0, 1, 2, 3, 4] },
    { name: "top-k 1", options: { temperature: 1, topK: 1, topP: 1 }, kept: [0] },
    { name: "top-k 2 keeps the equal third", options: { temperature: 1, topK: 2, topP: 1 }, kept: [0, 2, 3] },
    { name: "top-k above V", options: { temperature: 1, topK: 9, topP: 1 }, kept: [0, 1, 2, 3, 4] },
    // Probabilities .53 .07 .19 .19 .03: 0.5 needs one token, 0.6 a second, whose equal stays.
    { name: "top-p 0.5", options: { temperature: 1, topK: 0, topP: 0.5 }, kept: [0] },
    { name: "top-p 0.6", options: { temperature: 1, topK: 0, topP: 0.6 }, kept: [0, 2, 3] },
    { name: "top-p 0.95", options: { temperature: 1, topK: 0, topP: 0.95 }, kept: [0, 1, 2, 3] },
    { name: "top-k 4, then top-p", options: { temperature: 1, topK: 4, topP: 0.95 }, kept: [0, 1, 2, 3] },
  ];
  for (const { name, options, kept } of cases)
    test(name, () => {
      const wanted = expected(kept, options.temperature);
      const got = frequencies(options);
      for (const [i, p] of wanted.entries()) {
        if (p === 0) expect(got[i]).toBe(0);
        expect(Math.abs(got[i]! - p), `token ${i}: ${got[i]} of ${p}`).toBeLessThan(0.01);
      }
    });

  test("the k largest of any numbers, equal ones too", () => {
    const random = new PhiloxStream(6, 4);
    for (let round = 0; round < 300; round++) {
      const x = Float32Array.from({ length: 1 + random.below(40) }, () => random.below(12) - 6);
      const k = 1 + random.below(x.length);
      const expected = [...x].sort((a, b) => b - a).slice(0, k);
      expect([...largest(x, k)], `round ${round}`).toEqual(expected);
    }
  });

  test("the penalty divides what is above zero and multiplies what is below, once a token", () => {
    const x = Float32Array.of(4, -1, 3, -2);
    penalise(x, [0, 3, 0], 2);
    expect([...x]).toEqual([2, -1, 3, -4]);
  });
});

describe("beam search", () => {
  const options: BeamOptions = {
    beams: 4,
    tokens: 8,
    lengthPenalty: 1,
    repetitionPenalty: 1,
    finished: () => false,
  };
  const logProbs = (logits: Float32Array): number[] => {
    const total = logits.reduce((sum, x) => sum + Math.exp(x), 0);
    return [...logits].map((x) => x - Math.log(total));
  };

  test("of width 1 is greedy", async () => {
    const engine = new ToyModel(5, 11);
    const [only] = await beamSearch(engine, prompt, { ...options, beams: 1 });
    expect(only!.tokens).toEqual(greedyByHand(engine, prompt, 8));
    expect(engine.open).toBe(0);
  });

  test("wide enough finds what trying everything finds, past the block too", async () => {
    for (const blockSize of [4, 20]) {
      const engine = new ToyModel(blockSize, 4);
      let all = [{ tokens: [] as number[], logProb: 0 }];
      for (let i = 0; i < 4; i++)
        all = all.flatMap(({ tokens, logProb }) =>
          logProbs(engine.logitsAfter([...prompt, ...tokens].slice(-blockSize))).map((p, token) => ({
            tokens: [...tokens, token],
            logProb: logProb + p,
          })),
        );
      all.sort((a, b) => b.logProb - a.logProb);
      const found = await beamSearch(engine, prompt, { ...options, beams: 64, tokens: 4 });
      expect(found.map(({ tokens }) => tokens)).toEqual(all.slice(0, 64).map(({ tokens }) => tokens));
      for (const [i, { logProb }] of found.entries()) expect(logProb).toBeCloseTo(all[i]!.logProb, 4);
    }
  });

  test("of equal continuations the lower token of the better beam comes first", async () => {
    class Undecided extends ToyModel {
      override logitsAfter(): Float32Array {
        return new Float32Array(5);
      }
    }
    const found = await beamSearch(new Undecided(20, 5), prompt, { ...options, tokens: 2 });
    expect(found.map(({ tokens }) => tokens)).toEqual([0, 1, 2, 3].map((token) => [0, token]));
  });

  test("the length penalty decides between short and long", async () => {
    const engine = new ToyModel(20, 6);
    const finished = (text: readonly number[]): boolean => text.at(-1) === 2;
    const lengths: number[] = [];
    for (const lengthPenalty of [0, 3]) {
      const [best] = await beamSearch(engine, prompt, { ...options, beams: 6, lengthPenalty, finished });
      expect(best!.score).toBeCloseTo(best!.logProb / best!.tokens.length ** lengthPenalty, 6);
      lengths.push(best!.tokens.length);
    }
    expect(lengths[0]).toBeLessThan(lengths[1]!);
  });
});
