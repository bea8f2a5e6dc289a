// What samples of a run begin with: --prompt, or the first token of its text where the vocabulary lacks what nobody asked for.
import { ConfigError } from "../../shared/errors.ts";
import type { Dataset } from "./dataset.ts";

export async function promptOf(prompt: string, dataset: Dataset): Promise<{ text: string; ids: Int32Array }> {
  const { tokenizer } = dataset;
  try {
    const ids = tokenizer.encode(prompt);
    if (ids.length > 0) return { text: prompt, ids };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
  }
  const ids = new Int32Array(1);
  await dataset.read("train", 0, 1, ids);
  return { text: tokenizer.decode(ids), ids };
}
