// A text drawn from a lease's prompt with the weights as they are. An engine that cannot go on gives what it has: no run
// ends, and no worker goes, for want of a sample.
import { optionTable } from "../../shared/config.ts";
import { sample } from "../../shared/decoding/decode.ts";
import { ConfigError, EngineError } from "../../shared/errors.ts";
import type { Task } from "./task.ts";

const { temperature, topK, topP, repetitionPenalty } = optionTable;
const style = {
  temperature: temperature.default,
  topK: topK.default,
  topP: topP.default,
  repetitionPenalty: repetitionPenalty.default,
};

export const sampleTask: Task = async (engine, { order, windows, seed, signal }) => {
  const { prompt, tokens, ids } = order.sample!;
  const losses = Array<number>(tokens).fill(-1);
  const has = (id: number): boolean => id < ids;
  const options = { ...style, samples: 1, seed, tokens, has, finished: () => signal.aborted };
  try {
    let count = 0;
    for await (const { token } of sample(engine, Int32Array.from(windows.subarray(0, prompt)), options))
      losses[count++] = token;
  } catch (error) {
    if (!(error instanceof EngineError || error instanceof ConfigError)) throw error;
  }
  return signal.aborted ? undefined : { losses };
};
