// What this machine reaches in one large matrix product, by our own kernels and by PyTorch's BLAS, and in reading its
// memory: what the shares of the other tables are of.
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { parametersOf, settings } from "./settings.ts";
import { type Peers, startPyTorch } from "./training.ts";

export interface PeakRow {
  readonly precision: "float32" | "bf16";
  readonly threads: number;
  readonly who: string;
  readonly gflops: number;
}

const size = 1536;

/** A yardstick of worker/engine/native/core/peak.cpp. */
function measured(...words: readonly string[]): number {
  return Number(
    execFileSync(join(import.meta.dirname, "../../worker/engine/native/core/build/peak"), words, { encoding: "utf8" }),
  );
}

/** Best GB/s of reading as much as the weights of setting c: what bounds generation. */
export function readRate(threads: number): number {
  return measured("read", String(threads), String(Math.round((4 * parametersOf(settings[2]!)) / 1e6)));
}

export async function measurePeak(
  threadCounts: readonly number[],
  precisions: readonly PeakRow["precision"][],
  peers: Peers,
): Promise<PeakRow[]> {
  const rows: PeakRow[] = [];
  for (const precision of precisions)
    for (const threads of threadCounts) {
      const gflops = measured("matmul", "auto", precision, String(threads), String(size));
      rows.push({ precision, threads, who: "native", gflops });
      for (const python of peers.pythons) {
        const child = await startPyTorch(python, peers, settings[0]!, threads, precision);
        try {
          const { gflops } = await child.ask<{ gflops: number }>({ matmul: size });
          rows.push({ precision, threads, who: child.ready, gflops });
        } finally {
          child.stop();
        }
      }
    }
  return rows;
}
