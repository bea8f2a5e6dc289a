// Second opinions: which answers are held against another worker's before they count, and what is compared. A worker
// cannot know whether it is one of these: the draw is by Philox under a key that is this process's secret. Nothing of the
// draw reaches the numbers.
import { createHash } from "node:crypto";
import { PhiloxStream, stream } from "../../shared/arithmetic/philox.ts";
import type { VectorOps } from "../../shared/arithmetic/vector.ts";
import type { Answer } from "./connection.ts";

/** Draws by the number of a lease. @param secret a safe integer that no worker knows */
export class Lots {
  readonly #seed: number;

  constructor(secret: number, seed: number) {
    this.#seed = Number((BigInt(secret) ^ BigInt(seed)) & BigInt(Number.MAX_SAFE_INTEGER));
  }

  /** Is it one of this share, 0 to 1, of the leases? */
  draws(lease: number, share: number): boolean {
    return new PhiloxStream(this.#seed, stream.opinion, lease % 2 ** 32, Math.floor(lease / 2 ** 32)).uniform() < share;
  }
}

/** Names the bits of an answer: two that are computed rightly have the same. */
export function digestOf({ losses, vector }: Answer, ops: Pick<VectorOps, "digest">): string {
  const bits = Float64Array.from(losses);
  const ofLosses = createHash("sha256").update(new Uint8Array(bits.buffer)).digest("hex");
  return `${ofLosses}${vector ? ops.digest(vector) : ""}`;
}
