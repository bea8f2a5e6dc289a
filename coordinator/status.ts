// What anyone may see of a run: the answer of GET /status, and the one source of the metrics, the health check and the
// dashboard. Plain data with units in the names; a number that does not exist yet is null, never NaN.
import { z } from "zod";
import { checkpointName } from "../shared/checkpoint/checkpoint.ts";
import { checkpointNameSchema, titleSchema } from "../shared/wire/names.ts";
import { quarantinedSchema } from "./crew/quarantine.ts";
import { sampleSchema } from "./history.ts";

/**
 * Where the seconds of a step go, in the order in which a step meets them; the first six add up to it. `compute`: what the
 * worker whose answer was the last to come says that it took; `wire`: the rest of the wait, messages on their way and
 * workers that are not there. `eval` and `checkpoint` come between steps.
 */
export const phases = ["compute", "wire", "sum", "apply", "broadcast", "ledger", "eval", "checkpoint"] as const;
export type Phase = (typeof phases)[number];

const count = z.int().min(0);
const seconds = z.number().min(0);
const bytes = z.int().min(0);
const measured = z.number().nullable();

const workerSchema = z.object({
  id: titleSchema,
  host: z.string(),
  /** Such as "AVX-512, 2 threads" or "NVIDIA H100 (CUDA 12.4)". */
  device: z.string(),
  /** What decides the last bits of its results: Engine.arithmetic. */
  arithmetic: z.string(),
  /** `connected`: speaks the protocol but holds no weights yet; `contributing`: computes; `leaving`: hands back. */
  state: z.enum(["connected", "contributing", "leaving"]),
  /** Step of the weights it holds. */
  step: count,
  /** Why it computes only what somebody else computes too; null where it is trusted. */
  probation: z.string().nullable(),
  leasesHeld: count,
  /** Share of the oldest of them that it says is done; null where it says nothing yet. */
  leaseProgress: measured,
  /** Leases that others answered before it, and that it has not said a word about yet. */
  leasesOwed: count,
  shardsDone: count,
  /** What it gave the run over the last steps: all workers together make the run's speed. */
  tokensPerSec: measured,
  /** Share of the time of the last steps in which it computed, as it says; of a relay, in which its workers did its part. */
  utilisation: measured.default(null),
  bytesIn: bytes,
  bytesOut: bytes,
  roundTripMs: measured,
  connectedSeconds: seconds,
});

const goneSchema = z.object({
  id: z.string(),
  host: z.string(),
  device: z.string(),
  shardsDone: count,
  at: z.iso.datetime(),
  why: z.string(),
});

export const checkpointSchema = z
  .object({
    /** Folder name, such as "step-000400". */
    name: checkpointNameSchema,
    step: count,
    valLossNats: measured,
    /** Of all its files together. */
    bytes,
    /** Of model.safetensors: what the weights are known by outside. */
    sha256: z.string(),
    best: z.boolean(),
    final: z.boolean(),
    ageSeconds: seconds,
  })
  .refine(({ name, step }) => name === checkpointName(step), "the name is not the one of this step");

export const statusSchema = z.object({
  run: z.object({ name: titleSchema, id: z.string(), startedAt: z.iso.datetime() }),
  versions: z.object({ weft: z.string(), protocol: z.string(), node: z.string() }),
  model: z.object({ summary: z.string(), parameters: count, blockSize: count }),
  /** What decides the last bits of the weights; null until the first worker has come. */
  arithmetic: z.string().nullable(),

  state: z.enum(["waiting", "training", "evaluating", "finished", "stopping"]),
  /** Why the loop is not computing, as a sentence; null while it is. */
  waitingFor: z.string().nullable(),
  /** Since the loop last got something done, and how long that may take before the run counts as stalled. */
  idleSeconds: seconds,
  stallAfterSeconds: seconds,

  /** Steps done, of all that will be done. */
  step: count,
  steps: count,
  tokens: count,
  shards: count,
  tokensPerStep: count,
  lossNats: measured,
  valLossNats: measured,
  bestValLossNats: measured,
  gradientNorm: measured,
  learningRate: measured,
  /** Over the last steps, not since the start. */
  tokensPerSec: measured,
  stepSeconds: measured,
  etaSeconds: measured,
  /** Mean seconds a step over the last steps. */
  phaseSeconds: z.record(z.enum(phases), seconds),

  /** `confirmed`: two workers gave the same answer before it counted. */
  leases: z.object({ counted: count, hedged: count, lost: count, refused: count, confirmed: count }),
  /** All sockets together since the start, also those that are gone. */
  bytesIn: bytes,
  bytesOut: bytes,
  workers: z.array(workerSchema),
  /** Workers that left and have not come back, the last first. */
  gone: z.array(goneSchema),
  /** Workers that are not let in, and why. */
  quarantined: z.array(quarantinedSchema),
  checkpoints: z.array(checkpointSchema),
  /** What the weights wrote after the newest evaluations, the last one last. */
  samples: z.array(sampleSchema).default([]),
  /** Why the newest state is not on the disk, as a sentence; null where it is. */
  checkpointTrouble: z.string().nullable(),
  /** Of the disk of the run's folder, when it was last looked at. */
  diskFreeBytes: bytes.nullable(),
  /** sha256 of the weights after `step`, when the loop has taken it. */
  weightsDigest: z.string().nullable(),
});

export type WorkerStatus = z.infer<typeof workerSchema>;
export type GoneWorker = z.infer<typeof goneSchema>;
export type CheckpointStatus = z.infer<typeof checkpointSchema>;
export type RunStatus = z.infer<typeof statusSchema>;

/** Is the run well? It is when it makes progress, is over, or waits for a reason that it can name. */
export function healthOf(status: RunStatus): { healthy: boolean; why: string } {
  if (status.state === "finished") return { healthy: true, why: `finished ${status.steps} steps` };
  if (status.waitingFor !== null) return { healthy: true, why: `waiting: ${status.waitingFor}` };
  const idle = `${status.idleSeconds.toFixed(1)} s since it last got something done`;
  if (status.idleSeconds > status.stallAfterSeconds)
    return { healthy: false, why: `${idle}, more than the ${status.stallAfterSeconds.toFixed(1)} s that are normal` };
  return { healthy: true, why: `${status.state}: step ${status.step} of ${status.steps}, ${idle}` };
}
