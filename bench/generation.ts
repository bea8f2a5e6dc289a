// Tokens a second of setting c growing one token at a time. Every token reads all weights once, so the memory's read
// rate over their bytes is the limit for one sequence.
import { layoutOf } from "../shared/family/layout.ts";
import { openEngine } from "../worker/engine/choose.ts";
import { quickWeights, settings } from "./settings.ts";
import { median } from "./training.ts";

export interface GenerationRow {
  readonly precision: "float32" | "bf16";
  readonly threads: number;
  readonly rows: number;
  readonly tokensPerSec: number;
  /** Tokens a second at which one sequence would read the weights at the memory's full rate. */
  readonly limit: number;
}

export async function measureGeneration(
  precision: GenerationRow["precision"],
  threads: number,
  rows: number,
  readGbPerSec: number,
): Promise<GenerationRow> {
  const { model } = settings[2]!;
  const layout = layoutOf(model);
  const { engine } = await openEngine("native", { model, maxRows: 1, precision, threads, device: "cpu" });
  await engine.setWeights(quickWeights(model));
  const generation = await engine.generation(rows);
  const token = (i: number) => Int32Array.of((i * 7919) % model.vocabSize);
  const every = (ids: Int32Array) => Array.from({ length: rows }, () => ids);
  await generation.feed(every(Int32Array.from({ length: 16 }, (_, i) => i)));
  const seconds: number[] = [];
  for (let i = 0; i < 64; i++) {
    const started = process.hrtime.bigint();
    await generation.feed(every(token(i)));
    seconds.push(Number(process.hrtime.bigint() - started) / 1e9);
  }
  generation.dispose();
  await engine.dispose();
  // The position embedding is not read whole; the head is the token embedding.
  const bytes = (layout.size - model.blockSize * model.nEmbd) * (precision === "bf16" ? 2 : 4);
  return { precision, threads, rows, tokensPerSec: rows / median(seconds), limit: (readGbPerSec * 1e9) / bytes };
}
