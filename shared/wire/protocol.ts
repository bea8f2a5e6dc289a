// What coordinator and worker say to each other beside tensors: msgpack maps told apart by `type`, every field checked
// before use. ARCHITECTURE.md tells a step from start to finish.
//
// A control message is "C", the CRC-32 (little-endian) of its number in the conversation and its body, then the body. The
// number, counted by both ends from 0, is not sent: a message that is lost, repeated, out of turn or damaged does not fit
// its checksum.
import * as zlib from "node:zlib";
import { Packr } from "msgpackr";
import { z } from "zod";
import { wireFormats } from "../arithmetic/codec.ts";
import { nativeAddon } from "../arithmetic/native.ts";
import { explain } from "../check.ts";
import { ProtocolError } from "../errors.ts";
import { modelSchema, precisions } from "../model.ts";
import { titleSchema } from "./names.ts";

export const protocolVersion = 8;
export const subprotocol = "weft.v1";

/** Largest control message in bytes: the losses of a lease are the longest. */
export const controlLimit = 2 ** 20;
/** Largest number of units in one lease: shards, or groups of windows. */
export const largestLease = 65_536;

/** The kinds of work there are: coordinator/round/ and worker/task/ have a file for each. */
export const roundKinds = ["gradient", "local", "evaluation", "sample"] as const;
export type RoundKind = (typeof roundKinds)[number];
/** Whose windows a worker can draw from the same data: those that are trained on. */
export const canBeDrawn = (round: RoundKind): boolean => round === "gradient" || round === "local";

const name = titleSchema;
const sentence = z.string().max(2000);
const id = z.int().min(0);
/** Of data: sha256 of all ids in order. */
const fingerprint = z.string().max(128);
const packedLosses = z
  .instanceof(Uint8Array)
  .refine((bytes) => bytes.length % 8 === 0 && bytes.length <= 8 * largestLease);
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
    /** Fingerprint of the data that it has: the welcome's. It draws the windows that it trains on itself. */
    data: fingerprint.optional(),
    /** It has opened the welcome's shared memory: weights and gradients go through that, not as frames. */
    sharesMemory: z.literal(true).optional(),
    /** It goes on with a replica that another has begun. */
    takesOver: z.literal(true).optional(),
  }),
  /**
   * After the frames of a vector (or with it in shared memory), or alone: float64 losses, little-endian, one for each
   * shard or window. Also what is not finite: the run has to hear that it diverges.
   */
  z.strictObject({
    type: z.literal("answer"),
    lease: id,
    losses: packedLosses,
    /** Milliseconds that the computation took. */
    computeMs: z.number().min(0),
  }),
  /** What it computes with, where that has changed: a relay's workers come and go. */
  z.strictObject({ type: z.literal("device"), device: sentence }),
  /** So many of the losses of a lease's answer are known by now, or parts of the next one: more than before. */
  z.strictObject({ type: z.literal("progress"), lease: id, losses: z.number().positive() }),
  /** The rest of this lease's vector comes later: what it is the sum of is not there yet. */
  z.strictObject({ type: z.literal("paused"), lease: id }),
  /** Who leaves would stop in this lease's first replica and hand over its state; until that is accepted it goes on. */
  z.strictObject({ type: z.literal("offer"), lease: id }),
  /**
   * The lease goes back unanswered, with the reason, after so many of its units had been computed, or parts of one. Instead,
   * after the frames of a state that was accepted: the loss of each step of the first replica that it is the state after.
   */
  z.strictObject({
    type: z.literal("handback"),
    lease: id,
    reason: sentence,
    units: z.number().min(0).optional(),
    state: packedLosses.optional(),
  }),
  /** No more leases, please: the worker finishes what it holds and goes. */
  z.strictObject({ type: z.literal("leaving"), reason: sentence }),
]);

/** What the steps of a replica are, but for their windows. */
const localTerms = z.strictObject({
  /** Of every step, that a replica computes: replica r has those from r * shards on. */
  shards: z.int().min(1),
  /** One of each step that is to be taken. */
  learningRates: z.array(z.number().min(0)).min(1).max(largestLease),
  /** Updates that the moments have seen before. */
  updates: id,
  /** Steps that others have taken from the lease's weights before these; the state after them follows the windows. */
  begun: z.int().min(1).optional(),
  optimizer: z.strictObject({
    beta1: z.number(),
    beta2: z.number(),
    eps: z.number(),
    weightDecay: z.number(),
    gradientClip: z.number(),
  }),
});

/** What a worker draws. */
const sampleTerms = z.strictObject({
  /** How many ids of the window are gone on with. */
  prompt: z.int().min(1),
  tokens: z.int().min(1).max(largestLease),
  /** Of the tokenizer: those from here on are padding of the model's. */
  ids: z.int().min(1),
});

const fromCoordinator = z.discriminatedUnion("type", [
  /** What the run computes; the worker opens its engine for it. */
  z.strictObject({
    type: z.literal("welcome"),
    version: z.int(),
    run: name,
    model: modelSchema,
    parameters: z.int().min(1),
    /** Vectors (P) that travel as one, weights or a gradient first; the others are AdamW's moments m and v. */
    vectors: z.union([z.literal(1), z.literal(3)]),
    /** Rounds of local steps end at multiples of it, and at the last step of the run. */
    localSteps: z.int().min(1),
    seed: z.int().min(0),
    /** The run's data, and what the windows of a step are drawn by; none where a file names them. */
    data: z.strictObject({ fingerprint, positions: z.int().min(1), batchSize: z.int().min(1) }).optional(),
    /** Of a step, and sequences of one of them. */
    shards: z.int().min(1),
    rowsPerShard: z.int().min(1),
    precision: z.enum(precisions),
    /** What every node's sum is rounded to, and how gradients and updates of the weights travel. */
    wire: z.enum(wireFormats),
    timeoutMs: z.number().min(1),
    /** Of a relay: what it is called by, and those of the relays above it, the nearest first. */
    above: z.array(name).max(64).optional(),
    /** Who leaves in the middle of a replica may hand over its state. */
    handsOver: z.literal(true).optional(),
    /** To a worker that may be on the coordinator's machine: (vectors * P) of its weights and of this worker's gradient. */
    sharedMemory: z.strictObject({ weights: sharedVector, gradient: sharedVector }).optional(),
  }),
  /** The weights of this step are in shared memory. They stay until every lease of the step is over. */
  z.strictObject({ type: z.literal("weights"), step: id }),
  /** The vector that came with this answer has been taken out of shared memory. */
  z.strictObject({ type: z.literal("taken"), lease: id }),
  /**
   * Units [first, first + count), an aligned node of the tree over `units`, of a round on the weights of `step`, followed
   * by `windows` windows: (windows, T + 1) ids of uint16, or uint32 above 65,536 tokens; where they are `drawn`, the worker
   * draws them and none follow. `gradient`: units are shards of `rows`
   * windows, the answer is the tree sum of their gradients. `local`: units are replicas, each with its windows of one step
   * after another, the answer is the tree sum of their outer gradients (and moments) and the loss of each replica's steps.
   * Where some of the steps are `begun`, the lease is of those that are left, and so are its windows and losses.
   * `evaluation`: units are groups of `rows` windows, the last one perhaps of fewer, the answer is the loss of each window.
   * `sample`: one window, whose first ids are gone on with; the answer is ids in place of losses, -1 where there are no more.
   */
  z
    .strictObject({
      type: z.literal("lease"),
      lease: id,
      round: z.enum(roundKinds),
      step: id,
      units: z.int().min(1),
      first: id,
      count: z.int().min(1).max(largestLease),
      rows: z.int().min(1),
      windows: z.int().min(1),
      drawn: z.literal(true).optional(),
      local: localTerms.optional(),
      sample: sampleTerms.optional(),
    })
    .refine(({ round, drawn }) => !drawn || canBeDrawn(round), "windows that cannot be drawn")
    .refine(({ round, sample }) => (round === "sample") === (sample !== undefined), "not a sample")
    .refine(({ first, count }) => Number.isInteger(Math.log2(count)) && first % count === 0, "not a node of the tree")
    .refine(({ round, local }) => (round === "local") === (local !== undefined), "local steps without their terms")
    .refine(({ count, local }) => !local?.begun || count === 1, "a state for more than one replica")
    .refine(({ count, rows, windows, local }) => {
      const each = local ? rows * local.shards * local.learningRates.length : rows;
      return windows <= count * each && windows > (count - 1) * each;
    }, "not its windows"),
  /** There is room for the state that was offered: stop after this step and hand it over, or finish all the same. */
  z.strictObject({ type: z.literal("accept"), lease: id }),
  /** The lease was answered by another: drop it. Of what follows it no more comes. */
  z.strictObject({ type: z.literal("cancel"), lease: id }),
  /** The run is over; the worker ends. */
  z.strictObject({ type: z.literal("finish"), reason: sentence }),
  /** The worker cannot take part, and trying again will not help. */
  z.strictObject({ type: z.literal("refuse"), reason: sentence }),
]);

export type FromWorker = z.infer<typeof fromWorker>;
export type FromCoordinator = z.infer<typeof fromCoordinator>;
export type LeaseMessage = Extract<FromCoordinator, { type: "lease" }>;
export type LocalTerms = z.infer<typeof localTerms>;
export type SampleTerms = z.infer<typeof sampleTerms>;
export type Welcome = Extract<FromCoordinator, { type: "welcome" }>;

const packr = new Packr({ useRecords: false });
const crc32: (bytes: Uint8Array) => number = nativeAddon()?.crc32 ?? zlib.crc32;

const mark = 0x43; // "C"; a tensor's frame begins with "W"
const headBytes = 5;

/** @param sequence how many control messages went this way before */
export function encodeMessage(message: FromWorker | FromCoordinator, sequence: number): Buffer {
  const body = packr.pack(message);
  const whole = Buffer.allocUnsafe(headBytes + body.length);
  whole[0] = mark;
  whole.set(body, headBytes);
  whole.writeUInt32LE(checksum(whole, sequence), 1);
  return whole;
}

/** Of the bytes after the mark, with the message's number in the checksum's place, which is written over. */
function checksum(message: Buffer, sequence: number): number {
  message.writeUInt32LE(sequence % 2 ** 32, 1);
  return crc32(message.subarray(1));
}

/** Is it a control message, or was it before something damaged it? A tensor's frame begins with "W". */
export function isControl(message: Buffer): boolean {
  return message[0] !== 0x57;
}

function decode<T extends z.ZodType>(schema: T, message: Buffer, sequence: number, sender: string): z.infer<T> {
  if (message.length > controlLimit)
    throw new ProtocolError(`a control message of ${message.length} bytes from ${sender}, at most ${controlLimit}`);
  if ((message[0]! & 0xf0) === 0x80 || message[0] === 0xde)
    throw new ProtocolError(`${sender} speaks an older version of the protocol; run the same version of weft on both`);
  if (message[0] !== mark || message.length < headBytes)
    throw new ProtocolError(`a message of ${message.length} bytes from ${sender} is neither control nor tensor`);
  if (message.readUInt32LE(1) !== checksum(message, sequence))
    throw new ProtocolError(`message ${sequence} from ${sender} arrived damaged or out of turn (CRC-32)`);
  let value: unknown;
  try {
    value = packr.unpack(message.subarray(headBytes));
  } catch (error) {
    throw new ProtocolError(`message ${sequence} from ${sender} is not msgpack`, { cause: error });
  }
  const parsed = schema.safeParse(value);
  if (!parsed.success)
    throw new ProtocolError(
      `message ${sequence} from ${sender} is malformed: ${explain(parsed.error, value).slice(0, 300)}`,
    );
  return parsed.data;
}

/** @throws ProtocolError */
export const decodeFromWorker = (message: Buffer, sequence: number): FromWorker =>
  decode(fromWorker, message, sequence, "the worker");
/** @throws ProtocolError */
export const decodeFromCoordinator = (message: Buffer, sequence: number): FromCoordinator =>
  decode(fromCoordinator, message, sequence, "the coordinator");

/** What changes the weights of one step into those of a later one, and whole what follows them; as they are laid out. */
export interface WeightsUpdate {
  readonly from: number;
  readonly vector: Float32Array;
}

/** The step from which an update to `step` leads: the multiple of --local-steps before it. */
export const stepBefore = (step: number, localSteps: number): number => (Math.ceil(step / localSteps) - 1) * localSteps;

/** Losses as they travel. */
export function packLosses(losses: readonly number[]): Buffer<ArrayBuffer> {
  const bytes = Buffer.allocUnsafe(8 * losses.length);
  losses.forEach((loss, i) => {
    bytes.writeDoubleLE(loss, 8 * i);
  });
  return bytes;
}

export function unpackLosses(bytes: Uint8Array): number[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: bytes.length / 8 }, (_, i) => view.getFloat64(8 * i, true));
}

/** Every time of the protocol in milliseconds, from the one knob `--timeout`. */
export function timesOf(timeoutMs: number) {
  return {
    pingEveryMs: timeoutMs / 5,
    /** Longest time without a sign of life, or without anything leaving for a peer. */
    silenceMs: timeoutMs,
    /** How often a worker says how far it is with a long lease. */
    progressEveryMs: timeoutMs / 5,
    /** From the connection to the hello. */
    handshakeMs: timeoutMs,
    /** From the connection to an open engine: large models and GPU libraries take their time. */
    openMs: 20 * timeoutMs,
    /** After so long a lease is late while no worker's speed is known. */
    unmeasuredMs: timeoutMs,
    /** A lease unanswered for so long, and for ten times what it should take, costs its worker the connection. */
    leaseMs: 20 * timeoutMs,
    /** How much later than its speed says a lease must be before it is given to another as well. */
    graceMs: timeoutMs / 60,
  };
}
