// What local steps cost in loss at equal tokens, as measured: docs/local-steps.md shows this table, `weft doctor` advises
// by it. Of a small model on little text: a direction for others, not a promise.
import type { WireFormat } from "../shared/arithmetic/codec.ts";

export interface LossRow {
  readonly localSteps: number;
  readonly wire: WireFormat;
  /** Mean over the seeds, in nats. */
  readonly valLossNats: number;
  /** Against every step exchanged in float32, in percent. */
  readonly percent: number;
}

/** A small model with 4 replicas, moments averaged; docs/local-steps.md says which, how long and how often. */
export const lossTable: readonly LossRow[] = [
  { localSteps: 1, wire: "float32", valLossNats: 2.3844, percent: 0 },
  { localSteps: 5, wire: "float32", valLossNats: 2.3821, percent: -0.1 },
  { localSteps: 20, wire: "float32", valLossNats: 2.3761, percent: -0.3 },
  { localSteps: 20, wire: "bf16", valLossNats: 2.3763, percent: -0.3 },
  { localSteps: 20, wire: "int8", valLossNats: 2.3758, percent: -0.4 },
  { localSteps: 20, wire: "int4", valLossNats: 2.3751, percent: -0.4 },
  { localSteps: 50, wire: "float32", valLossNats: 2.4147, percent: 1.3 },
  { localSteps: 100, wire: "float32", valLossNats: 2.4456, percent: 2.6 },
];

/** What is known of it, as words. */
export function lossOf(localSteps: number, wire: WireFormat): string {
  const of = (format: WireFormat) => lossTable.find((row) => row.localSteps === localSteps && row.wire === format);
  if (localSteps === 1 && wire === "float32") return "no loss";
  const exact = of(wire);
  if (exact) return `${signed(exact.percent)} loss, measured`;
  const near = of("float32");
  if (localSteps > 1 && near) return `${signed(near.percent)} loss, measured in float32`;
  return "a loss that has not been measured";
}

const signed = (percent: number): string => `${percent < 0 ? "" : "+"}${percent.toFixed(1)}%`;
