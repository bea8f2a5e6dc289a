// What this machine reaches in one large matrix product: by our own kernels and by PyTorch's BLAS. The best of them is
// what the training table's shares are of.
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { settings } from "./settings.ts";
import { type Peers, startPyTorch } from "./training.ts";

export interface PeakRow {
  readonly precision: "float32" | "bf16";
  readonly threads: number;
  readonly who: string;
  readonly gflops: number;
}

const size = 1536;
const program = join(import.meta.dirname, "../../worker/native/build/peak");

export async function measurePeak(
  threadCounts: readonly number[],
  precisions: readonly PeakRow["precision"][],
  peers: Peers,
): Promise<PeakRow[]> {
  const rows: PeakRow[] = [];
  for (const precision of precisions)
    for (const threads of threadCounts) {
      const printed = execFileSync(program, ["auto", precision, String(threads), String(size)], { encoding: "utf8" });
      rows.push({ precision, threads, who: "native", gflops: Number(printed) });
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
