// What PyTorch's GPTs say next: greedy past the block's end, and four beams, token for token, on a real engine.
import { describe, expect, test } from "vitest";
import { nativeStatus } from "../../../shared/arithmetic/native.ts";
import { beamSearch } from "../../../shared/decoding/beam.ts";
import { sample } from "../../../shared/decoding/decode.ts";
import { type EngineName, openEngine } from "../../../worker/engine/choose.ts";
import { openOracle, startWeights } from "../../oracle.ts";

// Where native is not built, the contract suite says so, and fails in CI.
const engines: EngineName[] = nativeStatus().built ? ["tfjs", "native"] : ["tfjs"];
const finished = (): boolean => false;

describe("PyTorch oracles", () => {
  for (const name of engines)
    test.each(["gpt2-tiny", "gpt2-nobias", "gpt2-odd"])(`%s on ${name}: greedy and beam4`, async (file) => {
      const oracle = await openOracle(file);
      const { engine } = await openEngine(name, {
        model: oracle.model,
        maxRows: 4,
        precision: "float32",
        threads: 1,
        device: "cpu",
      });
      try {
        await engine.setWeights(await startWeights(oracle));
        const greedy = oracle.meta<number[]>("greedy");
        const prompt = Int32Array.from(greedy.slice(0, 4));
        const plain = { temperature: 0, topK: 0, topP: 1, repetitionPenalty: 1, samples: 1, seed: 0, finished };
        const text = [...prompt];
        for await (const { token } of sample(engine, prompt, { ...plain, tokens: greedy.length - 4 })) text.push(token);
        expect(text).toEqual(greedy);

        const expected = oracle.meta<{ tokens: number[]; logProb: number }[]>("beam4");
        const search = { beams: 4, tokens: 8, lengthPenalty: 0, repetitionPenalty: 1, finished };
        const found = await beamSearch(engine, prompt, search);
        expect(found.map(({ tokens }) => [...prompt, ...tokens])).toEqual(expected.map(({ tokens }) => tokens));
        for (const [i, { logProb }] of expected.entries()) expect(found[i]!.logProb).toBeCloseTo(logProb, 4);
      } finally {
        await engine.dispose();
      }
    });
});
