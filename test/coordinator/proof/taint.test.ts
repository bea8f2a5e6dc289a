// How far back a liar's answers reach.
import { expect, test } from "vitest";
import type { ChainLine } from "../../../coordinator/proof/chain.ts";
import { firstTainted } from "../../../coordinator/proof/taint.ts";

const line = (step: number, part: object) =>
  ({ kind: "step", entry: { step, parts: [{ shards: "0", worker: "honest", leases: 1, ...part }] } }) as ChainLine;

test("whoever took steps of an answer that nobody confirmed taints it, though another went on from them", async () => {
  const tainted = async (...lines: ChainLine[]) =>
    (
      await firstTainted(
        (async function* () {
          yield* lines;
        })(),
        (name) => name === "liar",
      )
    )?.step;
  const begun = [
    { worker: "other", steps: 1 },
    { worker: "liar", steps: 2 },
  ];
  expect(await tainted(line(4, {}), line(8, { begun }), line(12, { worker: "liar" }))).toBe(8);
  expect(await tainted(line(4, { begun: [begun[0]] }), line(8, { worker: "liar", second: "x" }))).toBeUndefined();
});
