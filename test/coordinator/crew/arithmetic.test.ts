// Who may take part, by what it computes with.
import { expect, test } from "vitest";
import { whyForeign } from "../../../coordinator/crew/arithmetic.ts";

const options = { engine: "auto", isa: "auto", precision: "float32", anyArithmetic: false } as const;

test("a relay of any arithmetic takes part where any may, else the flag is named", () => {
  expect(whyForeign("any", { ...options, anyArithmetic: true })).toBeUndefined();
  expect(whyForeign("any", options)).toMatch(/--any-arithmetic/);
  expect(whyForeign("native avx2 float32", options)).toBeUndefined();
  expect(whyForeign("native avx2 float32", { ...options, isa: "avx512" })).toMatch(/--isa avx512/);
  expect(whyForeign("abacus float32", options)).toMatch(/is no arithmetic/);
});
