// A conversation's turns: the same text as one sample gives, each token computed once.
import { expect, test } from "vitest";
import { Conversation } from "../../../shared/decoding/conversation.ts";
import { continueText } from "../../../shared/decoding/text.ts";
import { CharTokenizer } from "../../../shared/tokenizers/char.ts";
import { ToyModel } from "../../toy.ts";

const tokenizer = CharTokenizer.of("abcdefgh ");
const style = { temperature: 1, topK: 0, topP: 1, repetitionPenalty: 1.1, seed: 9, stop: [] as string[], tokens: 10 };

async function textOf(pieces: AsyncIterable<string | { text: string }>): Promise<string> {
  let text = "";
  for await (const piece of pieces) text += typeof piece === "string" ? piece : piece.text;
  return text;
}

test("the first turn is what a sample is; the next go on from all that was written, with the cache kept", async () => {
  const model = new ToyModel(200, tokenizer.vocabSize);
  const conversation = new Conversation(model, tokenizer, style);
  expect(conversation.isEmpty).toBe(true);
  const first = await textOf(conversation.goOn("abc"));
  expect(first).toBe(
    await textOf(continueText(new ToyModel(200, tokenizer.vocabSize), tokenizer, "abc", { ...style, samples: 1 })),
  );
  expect(model.fed).toBe(3 + 9);
  const second = await textOf(conversation.goOn(" fed"));
  expect(second).toHaveLength(10);
  // The last token of the first turn, the four of the second, and all but its last: nothing twice.
  expect(model.fed).toBe(12 + 1 + 4 + 9);
  const third = await textOf(conversation.goOn(""));
  expect(third).toHaveLength(10);
  expect(model.fed).toBe(26 + 1 + 9);
  // Greedy, the whole text so far is a prompt like any other.
  const greedy = { ...style, temperature: 0 };
  const again = new Conversation(new ToyModel(200, tokenizer.vocabSize), tokenizer, greedy);
  const begun = await textOf(again.goOn("bad"));
  const whole = { ...greedy, samples: 1 };
  expect(await textOf(again.goOn("ge"))).toBe(
    await textOf(continueText(new ToyModel(200, tokenizer.vocabSize), tokenizer, `bad${begun}ge`, whole)),
  );
  conversation.reset();
  again.reset();
  expect([conversation.isEmpty, model.open]).toEqual([true, 0]);
});

test("a turn that is stopped, or cannot be read, leaves a conversation that goes on", async () => {
  const model = new ToyModel(8, tokenizer.vocabSize);
  const conversation = new Conversation(model, tokenizer, style);
  await expect(textOf(conversation.goOn("§"))).rejects.toThrow("§");
  await expect(textOf(conversation.goOn(""))).rejects.toThrow("the prompt is empty");
  expect(conversation.isEmpty).toBe(true);
  let tokens = 0;
  expect(await textOf(conversation.goOn("ab", () => ++tokens === 4))).toHaveLength(4);
  await expect(textOf(conversation.goOn("a§"))).rejects.toThrow("§");
  // Beyond the block, whose end the model sees.
  expect(await textOf(conversation.goOn("cab"))).toHaveLength(10);
  conversation.reset();
  expect(model.open).toBe(0);
});
