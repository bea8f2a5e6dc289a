// What local steps and small wires cost in loss at equal tokens, as measured: docs/local-steps.md shows this table, `weft
// doctor` advises by it. Of one small model on little text: a direction for others, not a promise.
import type { WireFormat } from "../shared/arithmetic/codec.ts";

/** A way to train, as far as the loss depends on it. */
export interface Exchange {
  readonly localSteps: number;
  /** One where every step is exchanged. */
  readonly replicas: number;
  readonly wire: WireFormat;
}

export interface LossRow extends Exchange {
  /** Mean over the seeds, in nats. */
  readonly valLossNats: number;
  /** Against every step exchanged in float32 with the same seeds, in percent. */
  readonly percent: number;
}

/** Of the preset shakespeare-cpu, moments averaged; docs/local-steps.md says how long and how often. */
export const lossTable: readonly LossRow[] = [
  { localSteps: 1, replicas: 1, wire: "float32", valLossNats: 1.6646, percent: 0 },
  { localSteps: 5, replicas: 4, wire: "int8", valLossNats: 1.6804, percent: 1 },
  { localSteps: 20, replicas: 4, wire: "float32", valLossNats: 1.6732, percent: 0.5 },
  { localSteps: 20, replicas: 4, wire: "bf16", valLossNats: 1.6731, percent: 0.5 },
  { localSteps: 20, replicas: 4, wire: "int8", valLossNats: 1.6728, percent: 0.5 },
  { localSteps: 20, replicas: 4, wire: "int4", valLossNats: 1.6749, percent: 0.6 },
  { localSteps: 20, replicas: 2, wire: "int8", valLossNats: 1.6296, percent: -2.1 },
  { localSteps: 20, replicas: 8, wire: "int8", valLossNats: 1.7303, percent: 3.9 },
  { localSteps: 50, replicas: 4, wire: "int8", valLossNats: 1.7426, percent: 4.7 },
  { localSteps: 100, replicas: 4, wire: "int8", valLossNats: 1.815, percent: 9 },
];

/** What is known of it, as words: of so many local steps, of the nearest replicas that were measured, and of the wire. */
export function lossOf({ localSteps, replicas, wire }: Exchange): string {
  if (localSteps === 1 && wire === "float32") return "no loss";
  // Replicas cost more than wires do.
  const far = (row: LossRow) => Math.abs(Math.log2(row.replicas / replicas)) + (row.wire === wire ? 0 : 0.5);
  const [row] = lossTable
    .filter((row) => row.localSteps === localSteps && (localSteps > 1 || row.wire === wire))
    .sort((a, b) => far(a) - far(b));
  if (!row) return "a loss that has not been measured";
  const others = [
    ...(row.replicas === replicas ? [] : [`with ${row.replicas} replicas`]),
    ...(row.wire === wire ? [] : [`in ${row.wire}`]),
  ];
  return [`${signed(row.percent)} loss, measured`, ...others].join(" ");
}

const signed = (percent: number): string => `${percent < 0 ? "" : "+"}${percent.toFixed(1)}%`;
