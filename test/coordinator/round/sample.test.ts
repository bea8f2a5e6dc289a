// A sample's two halves: what the coordinator takes, and what a worker draws.
import { expect, test } from "vitest";
import { History } from "../../../coordinator/history.ts";
import { SampleRound } from "../../../coordinator/round/sample.ts";
import { EngineError } from "../../../shared/errors.ts";
import type { LeaseMessage } from "../../../shared/wire/protocol.ts";
import type { Engine } from "../../../worker/engine/contract.ts";
import { sampleTask } from "../../../worker/task/sample.ts";
import type { Assignment } from "../../../worker/task/task.ts";
import { ToyModel } from "../../toy.ts";

const [blockSize, vocabSize] = [6, 20];
const window = new Uint16Array(blockSize + 1);
window.set([3, 4]);
const node = { first: 0, count: 1 };
const work = { step: 7, window, prompt: 2, tokens: 12, ids: 15 };

function assignment(round: SampleRound, signal = new AbortController().signal): Assignment {
  const { count: windows, read } = round.windows();
  const ids = read();
  const order = {
    type: "lease",
    lease: 1,
    round: "sample",
    step: 7,
    units: 1,
    ...node,
    rows: 1,
    windows,
    sample: round.sample,
  };
  return { order: order as LeaseMessage, windows: ids, seed: 5, signal } as Assignment;
}

test("what a worker draws, a coordinator takes: as many ids as asked for, all of the tokenizer, the same each time", async () => {
  const draw = async () => {
    const round = new SampleRound(work);
    const outcome = await sampleTask(new ToyModel(blockSize, vocabSize) as unknown as Engine, assignment(round));
    expect(outcome!.losses).toHaveLength(round.expects().losses);
    expect(round.refusal(node, outcome!.losses)).toBeUndefined();
    round.take(node, outcome!.losses);
    return round.result();
  };
  const drawn = await draw();
  expect(drawn).toHaveLength(12);
  expect(drawn.every((id) => id >= 0 && id < work.ids)).toBe(true);
  expect(await draw()).toEqual(drawn);
});

test("an engine that cannot go on gives what it has; one that is told to stop gives nothing", async () => {
  const round = new SampleRound(work);
  const model = new ToyModel(blockSize, vocabSize);
  let calls = 0;
  const failing = {
    model: model.model,
    generation: async (rows: number) => {
      const generation = await model.generation(rows);
      const feed = async (tokens: readonly Int32Array[]) => {
        if (++calls === 3) throw new EngineError("the device is gone");
        return await generation.feed(tokens);
      };
      return { ...generation, feed };
    },
  } as unknown as Engine;
  const outcome = await sampleTask(failing, assignment(round));
  expect(outcome!.losses.slice(2)).toEqual(Array(10).fill(-1));
  round.take(node, outcome!.losses);
  expect(round.result()).toHaveLength(2);
  expect(await sampleTask(model as unknown as Engine, assignment(round, AbortSignal.abort()))).toBeUndefined();
  expect(model.open).toBe(0);
});

test.each([[15], [-2], [0.5], [Number.NaN], [1e300]])("an id of %d is no id", (id) => {
  const round = new SampleRound(work);
  expect(round.refusal(node, [1, id, 2])).toBe(`an id of ${id}`);
});

test("samples stay with the curves: the newest, up to the step that a run goes on from", () => {
  const history = new History();
  for (let step = 1; step <= 60; step++) history.addSample({ step, text: `text ${step}` });
  expect(history.samples(2)).toEqual([
    { step: 59, text: "text 59" },
    { step: 60, text: "text 60" },
  ]);
  expect(history.curves().samples).toHaveLength(40);
  expect(history.curves(58).samples.map(({ step }) => step)).toEqual([59, 60]);
  expect(History.from(history.curves(), 30).samples().at(-1)!.step).toBe(30);
});
