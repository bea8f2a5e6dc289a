// What picoGPT's tutorial shows with OpenAI's own GPT-2 124M, on a folder that WEFT_GPT2_DIR names: the release
// (hparams.json and its TensorFlow checkpoint) or Hugging Face's.
import { expect, test } from "vitest";
import { loadModel } from "../../shared/rundir.ts";
import { continueText } from "../../shared/text.ts";
import { openTokenizer } from "../../shared/tokenizer.ts";
import { openEngine } from "../../worker/engines.ts";

const directory = process.env.WEFT_GPT2_DIR;

test.skipIf(!directory)(
  "GPT-2 124M continues Alan Turing's sentence (skipped unless WEFT_GPT2_DIR names the real weights)",
  async () => {
    const { model, layout, weights } = await loadModel(directory!, (why) => console.log(why));
    expect(layout.size).toBe(124_439_808);
    const tokenizer = await openTokenizer(directory!);
    const options = { model, maxRows: 1, precision: "float32", threads: 0, device: "cpu" } as const;
    const { engine } = await openEngine("auto", options);
    try {
      await engine.setWeights(weights);
      const prompt = "Alan Turing theorized that computers would one day become";
      const greedy = {
        tokens: 8,
        temperature: 0,
        topK: 0,
        topP: 1,
        repetitionPenalty: 1,
        samples: 1,
        seed: 0,
        stop: [],
      };
      let continuation = "";
      for await (const { text } of continueText(engine, tokenizer, prompt, greedy)) continuation += text;
      expect(continuation).toBe(" the most powerful machines on the planet.");
    } finally {
      await engine.dispose();
    }
  },
);
