// How far back the answers of a liar reach: the first step in the history of the weights that counts one of its answers
// which nobody had confirmed.
import { type ChainLine, contributorsOf, stepAfter } from "./chain.ts";

/** @returns that step, and after which step the run's options last changed; undefined where there is none */
export async function firstTainted(
  lines: AsyncIterable<ChainLine>,
  isLiar: (worker: string) => boolean,
): Promise<{ readonly step: number; readonly changedAfter: number } | undefined> {
  let tainted: number | undefined;
  let changedAfter = 0;
  for await (const line of lines) {
    if (line.kind === "change") changedAfter = line.change.after;
    if (line.kind === "undone" && tainted !== undefined && tainted > stepAfter(line)!) tainted = undefined;
    if (line.kind !== "step" || tainted !== undefined) continue;
    const { step, parts } = line.entry;
    if (parts.some((part) => part.second === undefined && contributorsOf(part).some(isLiar))) tainted = step;
  }
  return tainted === undefined ? undefined : { step: tainted, changedAfter };
}
