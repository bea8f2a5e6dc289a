// What coordinator and worker say to each other beside tensors: msgpack maps told apart by `type`, every field checked
// before use. README.md tells a step from start to finish.
import { Packr } from "msgpackr";
import { z } from "zod";
import { ProtocolError } from "../errors.ts";
import { modelSchema } from "../model.ts";
import { titleSchema } from "./names.ts";

export const protocolVersion = 2;
export const subprotocol = "weft.v1";

/** Largest control message in bytes: the losses of an evaluation lease are the longest. */
export const controlLimit = 2 ** 20;
/** Largest number of units (shards, or groups of windows) in one lease. */
export const largestLease = 65_536;

const name = titleSchema;
const sentence = z.string().max(2000);
const id = z.int().min(0);
const sharedVector = z.strictObject({ path: z.string().max(64), key: z.string().max(256) });

const fromWorker = z.discriminatedUnion("type", [
  /** First message on a connection. */
  z.strictObject({ type: z.literal("hello"), version: z.int(), name, host: name, processId: id }),
  /** The engine is open and the worker wants weights. */
  z.strictObject({
    type: z.literal("ready"),
    arithmetic: name,
    device: sentence,
    plannedBytes: z.number().min(0),
    /** It has opened the welcome's shared memory: weights and gradients go through that, not as frames. */
    sharesMemory: z.literal(true).optional(),
  }),
  /**
   * After the frames of a gradient (or with it in shared memory), or alone for an evaluation: one mean loss for each shard
   * or each window.
   */
  z.strictObject({
    type: z.literal("answer"),
    lease: id,
    // Also what is not finite: the run has to hear that it diverges.
    losses: z.array(z.custom<number>((value) => typeof value === "number")).max(largestLease),
  }),
  /** The lease goes back unanswered, with the reason. */
  z.strictObject({ type: z.literal("handback"), lease: id, reason: sentence }),
  /** No more leases, please: the worker finishes what it holds and goes. */
  z.strictObject({ type: z.literal("leaving"), reason: sentence }),
]);

const fromCoordinator = z.discriminatedUnion("type", [
  /** What the run computes; the worker opens its engine for it. */
  z.strictObject({
    type: z.literal("welcome"),
    version: z.int(),
    run: name,
    model: modelSchema,
    parameters: z.int().min(1),
    seed: z.int().min(0),
    /** Sequences of one shard. */
    rowsPerShard: z.int().min(1),
    precision: z.enum(["float32", "bf16"]),
    timeoutMs: z.number().min(1),
    /** To a worker that may be on the coordinator's machine: vectors (P) of its weights and this worker's gradient. */
    sharedMemory: z.strictObject({ weights: sharedVector, gradient: sharedVector }).optional(),
  }),
  /** The weights of this step are in shared memory. They stay until every lease of the step is over. */
  z.strictObject({ type: z.literal("weights"), step: id }),
  /** The gradient that came with this answer has been taken out of shared memory. */
  z.strictObject({ type: z.literal("taken"), lease: id }),
  /**
   * Units [first, first + count) of a step, followed by their windows: (count * rows, T + 1) ids of uint16, or uint32
   * above 65,536 tokens. `train`: units are shards, the answer is the tree sum of their gradients. `eval`: units are
   * groups of at most rowsPerShard windows, the answer is the loss of each window.
   */
  z.strictObject({
    type: z.literal("lease"),
    lease: id,
    purpose: z.enum(["train", "eval"]),
    step: id,
    first: id,
    count: z.int().min(1).max(largestLease),
    rows: z.int().min(1),
  }),
  /** The lease was answered by another: drop it if it has not begun. */
  z.strictObject({ type: z.literal("cancel"), lease: id }),
  /** The run is over; the worker ends. */
  z.strictObject({ type: z.literal("finish"), reason: sentence }),
  /** The worker cannot take part, and trying again will not help. */
  z.strictObject({ type: z.literal("refuse"), reason: sentence }),
]);

export type FromWorker = z.infer<typeof fromWorker>;
export type FromCoordinator = z.infer<typeof fromCoordinator>;

const packr = new Packr({ useRecords: false });

export function encodeMessage(message: FromWorker | FromCoordinator): Buffer {
  // The first byte tells a control message (a map: 0x8n or 0xde) from a tensor frame ("W"): both are binary messages.
  return packr.pack(message);
}

/** Control messages are msgpack maps; tensor frames begin with "W". */
export function isControl(message: Buffer): boolean {
  return message.length === 0 || (message[0]! & 0xf0) === 0x80 || message[0] === 0xde;
}

function decode<T extends z.ZodType>(schema: T, message: Buffer, sender: string): z.infer<T> {
  if (message.length > controlLimit)
    throw new ProtocolError(`a control message of ${message.length} bytes from ${sender}, at most ${controlLimit}`);
  let value: unknown;
  try {
    value = packr.unpack(message);
  } catch (error) {
    throw new ProtocolError(`a message from ${sender} is not msgpack`, { cause: error });
  }
  const parsed = schema.safeParse(value);
  if (!parsed.success)
    throw new ProtocolError(`a message from ${sender} is malformed: ${z.prettifyError(parsed.error)}`);
  return parsed.data;
}

/** @throws ProtocolError */
export const decodeFromWorker = (message: Buffer): FromWorker => decode(fromWorker, message, "the worker");
/** @throws ProtocolError */
export const decodeFromCoordinator = (message: Buffer): FromCoordinator =>
  decode(fromCoordinator, message, "the coordinator");

/** Every time of the protocol in milliseconds, from the one knob `--timeout`. */
export function timesOf(timeoutMs: number) {
  return {
    pingEveryMs: timeoutMs / 5,
    /** Longest time without a sign of life. */
    silenceMs: timeoutMs,
    /** From the connection to the hello. */
    handshakeMs: timeoutMs,
    /** From the connection to an open engine: large models and GPU libraries take their time. */
    openMs: 20 * timeoutMs,
    /** How long one lease may take at a worker whose speed is not known yet. */
    leaseMs: 20 * timeoutMs,
    /** How much later than its speed says a lease must be before it is given to another as well. */
    graceMs: timeoutMs / 60,
  };
}
