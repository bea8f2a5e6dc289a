// How fast the vector arithmetic of shared/arithmetic/vector.ts streams over the 124 million parameters of setting c, native and in
// JavaScript, in bytes that must move: 12 a float for the sum, 28 for AdamW, 4 for norm and digest, 6 for bf16; for the small wires 8 to
// round in place, 4 and what is encoded to encode and decode.
import { codecOver } from "../shared/arithmetic/codec.ts";
import { type Addon, nativeOps } from "../shared/arithmetic/native.ts";
import { scalarOps, type VectorOps } from "../shared/arithmetic/vector.ts";
import { parametersOf, settings } from "./settings.ts";
import { median } from "./training.ts";

export interface StreamingRow {
  readonly operation: string;
  readonly who: string;
  readonly threads: number;
  readonly ms: number;
  readonly gbPerSec: number;
}

const at = { seed: 1337, step: 1, node: 1 };

function time(operation: () => void, rounds: number): number {
  operation();
  const seconds: number[] = [];
  for (let i = 0; i < rounds; i++) {
    const started = process.hrtime.bigint();
    operation();
    seconds.push(Number(process.hrtime.bigint() - started) / 1e9);
  }
  return median(seconds);
}

export function measureStreaming(addon: Addon, threadCounts: readonly number[], rounds: number): StreamingRow[] {
  const n = parametersOf(settings[2]!);
  const floats = () => new Float32Array(n).fill(0.01);
  const [w, g, m, v] = [floats(), floats(), floats(), floats()];
  const half = new Uint16Array(n);
  const rows: StreamingRow[] = [];
  const row = (operation: string, who: string, threads: number, bytes: number, run: () => void, times = rounds) => {
    const seconds = time(run, times);
    rows.push({ operation, who, threads, ms: seconds * 1e3, gbPerSec: (bytes * n) / seconds / 1e9 });
  };
  const step = {
    learningRate: 1e-4,
    beta1: 0.9,
    beta2: 0.95,
    eps: 1e-8,
    weightDecay: 0.1,
    count: 1,
    gradientScale: 1,
  };
  const all = (ops: VectorOps, threads: number, times: number) => {
    row("gradient add", ops.name, threads, 12, () => ops.add(w, g), times);
    row("AdamW", ops.name, threads, 28, () => ops.adamw(w, g, m, v, step), times);
    row("sum of squares", ops.name, threads, 4, () => ops.sumOfSquares(g), times);
    row("digest", ops.name, threads, 4, () => ops.digest(w), times);
  };
  for (const threads of threadCounts) {
    all(nativeOps(new addon.Vectors(threads, "auto")), threads, rounds);
    const vectors = new addon.Vectors(threads, "auto");
    const name = `native ${vectors.isa()}`;
    row("float32 to bf16", name, threads, 6, () => vectors.toBf16(half, g));
    row("bf16 to float32", name, threads, 6, () => vectors.fromBf16(g, half));
    for (const format of ["bf16", "int8", "int4"] as const) {
      const codec = codecOver(format, vectors, nativeOps(vectors));
      const bytes = new Uint8Array(codec.bytes(n));
      const perFloat = bytes.length / n;
      row(`wire ${format}: round`, name, threads, 8, () => codec.round(m, at));
      row(`wire ${format}: encode`, name, threads, 4 + perFloat, () => codec.encode(bytes, v, at));
      row(`wire ${format}: decode`, name, threads, 4 + perFloat, () => codec.decode(m, bytes));
    }
  }
  all(scalarOps, 1, 1);
  return rows;
}
