// Weights on their way out.
import { expect, test } from "vitest";
import { WeightsSnapshot } from "../../coordinator/weights.ts";
import { bestCodec } from "../../shared/arithmetic/native.ts";
import { encodedFrames, framesOf, parseFrame } from "../../shared/wire/frame.ts";

const exact = bestCodec("float32");

test("whole weights are their bytes, cut into frames of a mebibyte", () => {
  const weights = Float32Array.from({ length: 2 ** 19 + 3 }, (_, i) => i / 3);
  const frames = new WeightsSnapshot(7, weights, exact, undefined).frames(undefined);
  expect(frames.map((frame) => parseFrame(frame).data.length)).toEqual([2 ** 20, 2 ** 20, 12]);
  const bytes = new Uint8Array(weights.buffer);
  expect(Buffer.concat(frames).equals(Buffer.concat([...framesOf("weights", 7, bytes)]))).toBe(true);
});

test("they may be longer than the 4 GiB that an array of bytes holds", () => {
  const long = new Float32Array(2 ** 30 + 5);
  const { value } = encodedFrames("weights", 0, long, exact).next();
  expect(parseFrame(value as Buffer)).toMatchObject({ kind: "weights", offset: 0, total: 4 * long.length });
});
