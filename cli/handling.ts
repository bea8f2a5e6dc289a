// What a vector costs a processor on its way: rounding, encoding, checksums, decoding and adding, for each wire, and an
// optimizer's step. Measured here on a short vector: all of it is in proportion to the length.
import { type Codec, type WireFormat, wireFormats } from "../shared/arithmetic/codec.ts";
import { bestCodec, bestOps } from "../shared/arithmetic/native.ts";
import { Arrival, encodedFrames, parseFrame } from "../shared/wire/frame.ts";
import type { Means } from "./step-model.ts";

export interface Handling {
  /** Seconds for a value, both ends of the wire together. */
  readonly valueSeconds: Readonly<Record<WireFormat, number>>;
  readonly updateValueSeconds: number;
}

const length = 2 ** 18;
const tries = 20;

/** The shortest of several times, for each value. */
function secondsEach(act: () => void): number {
  const times = Array.from({ length: tries }, () => {
    const start = performance.now();
    act();
    return performance.now() - start;
  });
  return Math.min(...times) / 1000 / length;
}

/** @param threads of the coordinator and of each worker */
export function measureHandling(threads: number): Handling {
  const ops = bestOps(threads);
  const vector = new Float32Array(length).map((_, i) => Math.sin(i) / 100);
  const arrived = new Float32Array(length);
  const memory = new Map<Codec, Buffer[]>();
  const travel = (codec: Codec): void => {
    codec.round(vector, { seed: 1, step: 0, node: 1 });
    const frames = [...encodedFrames("gradient", 1, vector, codec, memory.get(codec))];
    memory.set(codec, frames);
    const arrival = Arrival.ofVector("gradient", 1, arrived, codec);
    for (const frame of frames) arrival.take(parseFrame(frame));
    ops.add(arrived, vector);
  };
  const valueSeconds = Object.fromEntries(
    wireFormats.map((wire) => {
      const codec = bestCodec(wire, threads);
      return [wire, secondsEach(() => travel(codec))];
    }),
  ) as Record<WireFormat, number>;
  const [m, v] = [new Float32Array(length), new Float32Array(length)];
  const step = { learningRate: 1e-4, beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0.1, count: 1, gradientScale: 1 };
  const updateValueSeconds = secondsEach(() => {
    ops.sumOfSquares(vector);
    ops.adamw(arrived, vector, m, v, step);
    ops.digest(arrived);
  });
  return { valueSeconds, updateValueSeconds };
}

/** Of a model's: behind the first of its vectors come moments, which small wires send in bf16. */
export function handlingOf(
  { valueSeconds, updateValueSeconds }: Handling,
  wire: WireFormat,
  vectors: number,
  parameters: number,
): Pick<Means, "handlingSeconds" | "updateSeconds"> {
  const behind = valueSeconds[wire === "float32" ? "float32" : "bf16"];
  return {
    handlingSeconds: parameters * (valueSeconds[wire] + (vectors - 1) * behind),
    updateSeconds: parameters * updateValueSeconds,
  };
}
