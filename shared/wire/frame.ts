// Tensors on the wire: one binary message a chunk, a fixed header of 40 bytes before at most 1 MiB of data, in order.
// All integers little-endian; the header's length keeps the data 8-byte aligned. Measured: 1 MiB chunks with a zero mask
// are the fastest that ws does under Node 20.
//
//   0  uint32 magic "WFT3"                            16 float64 id (lease, or step of the weights)
//   4  uint32 CRC-32 of all that follows              24 float64 offset in bytes
//   8  uint32 kind      12 uint32 bytes of data       32 float64 total bytes of the tensor
import * as zlib from "node:zlib";
import { blockSize, type Codec, stretchesOf } from "../arithmetic/codec.ts";
import { nativeAddon } from "../arithmetic/native.ts";
import { ProtocolError } from "../errors.ts";

export const headerBytes = 40;
export const chunkBytes = 2 ** 20;
const magic = 0x33544657;
const crc32: (bytes: Uint8Array) => number = nativeAddon()?.crc32 ?? zlib.crc32;

/**
 * What a tensor is: weights of a step, gradient of a lease, token windows of a lease, what changes the weights into a step's,
 * a part of the state after some steps of a lease's replica.
 */
const kinds = ["weights", "gradient", "windows", "update", "state"] as const;
export type TensorKind = (typeof kinds)[number];

export interface Frame {
  readonly kind: TensorKind;
  /** Step for weights and updates, lease id for the others. */
  readonly id: number;
  readonly offset: number;
  readonly total: number;
  /** View of the message's memory. */
  readonly data: Uint8Array;
  /** The whole message, to be sent on as it is. */
  readonly message: Buffer;
}

/**
 * The frames of one tensor, each with its own memory: ready to send to any number of peers while the tensor changes.
 * @param memory frames of a tensor of the same length that nobody needs any more, to be written over
 */
export function* framesOf(
  kind: TensorKind,
  id: number,
  bytes: Uint8Array,
  memory: readonly Buffer[] = [],
): Generator<Buffer> {
  const parts = [{ start: 0, bytes: bytes.length, chunk: chunkBytes }];
  yield* cut(kind, id, parts, memory, (data, offset) => data.set(bytes.subarray(offset, offset + data.length)));
}

/** The same of a vector that has been rounded by this codec: whole blocks in each, so that it is decoded by itself. */
export function* encodedFrames(
  kind: TensorKind,
  id: number,
  vector: Float32Array,
  codec: Codec,
  memory: readonly Buffer[] = [],
): Generator<Buffer> {
  const at = { seed: 0, step: 0, node: 0 }; // of no matter: rounding twice is rounding once
  yield* cut(kind, id, partsOf(vector, codec), memory, (data, offset, { start, block, chunk, values, codec }) => {
    const first = ((offset - start) / block) * blockSize;
    codec.encode(data, values.subarray(first, first + (chunk / block) * blockSize), { ...at, first });
  });
}

/** That travel in one frame. */
const blocksOf = (codec: Codec): number => Math.floor(chunkBytes / codec.bytes(blockSize));

/** Where the values of each of these frames end, in a vector of this length. */
export function frameEnds(length: number, codec: Codec): number[] {
  return stretchesOf(codec, length).flatMap(({ first, length, codec }) => {
    const each = blocksOf(codec) * blockSize;
    return Array.from({ length: Math.ceil(length / each) }, (_, i) => first + Math.min(length, (i + 1) * each));
  });
}

/** Bytes [start, start + bytes) of a tensor, which travel in chunks of their own. */
interface Part {
  readonly start: number;
  readonly bytes: number;
  readonly chunk: number;
}

/** The stretches of a vector, each in chunks of whole blocks. */
function partsOf(vector: Float32Array, codec: Codec) {
  let start = 0;
  return stretchesOf(codec, vector.length).map(({ first, length, codec }) => {
    const block = codec.bytes(blockSize);
    const bytes = codec.bytes(length);
    start += bytes;
    const values = vector.subarray(first, first + length);
    return {
      start: start - bytes,
      bytes,
      block,
      chunk: blocksOf(codec) * block,
      values,
      codec,
      end: first + length,
    };
  });
}

const totalOf = (parts: readonly Part[]): number => parts.reduce((sum, { bytes }) => sum + bytes, 0);

function* cut<P extends Part>(
  kind: TensorKind,
  id: number,
  parts: readonly P[],
  memory: readonly Buffer[],
  fill: (data: Uint8Array, offset: number, part: P) => void,
): Generator<Buffer> {
  const total = totalOf(parts);
  const chunks = parts.flatMap((part) =>
    Array.from({ length: Math.ceil(part.bytes / part.chunk) }, (_, i) => ({
      part,
      offset: part.start + i * part.chunk,
    })),
  );
  for (const [i, { part, offset }] of chunks.entries()) {
    const bytes = Math.min(part.chunk, part.start + part.bytes - offset);
    const frame = memory[i] ?? Buffer.allocUnsafe(headerBytes + bytes);
    fill(frame.subarray(headerBytes), offset, part);
    frame.writeUInt32LE(magic, 0);
    frame.writeUInt32LE(kinds.indexOf(kind), 8);
    frame.writeUInt32LE(bytes, 12);
    frame.writeDoubleLE(id, 16);
    frame.writeDoubleLE(offset, 24);
    frame.writeDoubleLE(total, 32);
    frame.writeUInt32LE(crc32(frame.subarray(8)), 4);
    yield frame;
  }
}

/** @throws ProtocolError that says what is wrong with the message */
export function parseFrame(message: Buffer): Frame {
  if (message.length < headerBytes)
    throw new ProtocolError(`a binary message of ${message.length} bytes is shorter than the header of ${headerBytes}`);
  if (message.readUInt32LE(0) !== magic) throw new ProtocolError("a binary message does not begin with WFT3");
  if (message.readUInt32LE(4) !== crc32(message.subarray(8)))
    throw new ProtocolError("a tensor's frame arrived damaged (CRC-32)");
  const kind = kinds[message.readUInt32LE(8)];
  if (!kind) throw new ProtocolError(`a tensor of unknown kind ${message.readUInt32LE(8)}`);
  const data = message.subarray(headerBytes);
  if (message.readUInt32LE(12) !== data.length)
    throw new ProtocolError(`a ${kind} frame has ${data.length} bytes, its header says ${message.readUInt32LE(12)}`);
  const total = message.readDoubleLE(32);
  if (data.length === 0 && total > 0)
    throw new ProtocolError(`a ${kind} frame without data, of a tensor of ${total} bytes`);
  return { kind, id: message.readDoubleLE(16), offset: message.readDoubleLE(24), total, data, message };
}

/** One tensor on its way in: its chunks must come in order and fill the target exactly. */
export class Arrival {
  readonly kind: TensorKind;
  readonly id: number;
  readonly #total: number;
  #put: (data: Uint8Array, offset: number) => number;
  #received = 0;
  /** Values of the vector that are there, from its beginning on. */
  known = 0;

  /**
   * @param put takes the data of a chunk into the target, which is the arrival's until it is complete, and tells where the
   * values end that are known then
   */
  private constructor(kind: TensorKind, id: number, total: number, put: (data: Uint8Array, offset: number) => number) {
    this.kind = kind;
    this.id = id;
    this.#total = total;
    this.#put = put;
  }

  static ofBytes(kind: TensorKind, id: number, target: Uint8Array): Arrival {
    return new Arrival(kind, id, target.length, (data, offset) => {
      target.set(data, offset);
      return offset + data.length;
    });
  }

  /** Checked, and dropped. */
  static ofNothing(kind: TensorKind, id: number, total: number): Arrival {
    return new Arrival(kind, id, total, () => 0);
  }

  /** Nobody needs it any more: what comes is checked, and its target left alone. */
  discard(): void {
    this.#put = () => 0;
  }

  /** Decoded chunk by chunk: each but the last holds whole blocks. */
  static ofVector(kind: TensorKind, id: number, target: Float32Array, codec: Codec): Arrival {
    const parts = partsOf(target, codec);
    return new Arrival(kind, id, totalOf(parts), (data, offset) => {
      const { start, bytes, block, values, codec, end } = parts.findLast(({ start }) => start <= offset)!;
      const first = ((offset - start) / block) * blockSize;
      const isEnd = offset + data.length === start + bytes;
      const last = isEnd ? values.length : first + Math.ceil(data.length / block) * blockSize;
      codec.decode(values.subarray(first, last), data);
      return end - values.length + last;
    });
  }

  get complete(): boolean {
    return this.#received === this.#total;
  }

  /** @throws ProtocolError on a chunk of another tensor, length or position */
  take(frame: Frame): void {
    const what = `${this.kind} ${this.id}`;
    if (frame.kind !== this.kind || frame.id !== this.id)
      throw new ProtocolError(`expected a chunk of ${what}, got one of ${frame.kind} ${frame.id}`);
    if (frame.total !== this.#total)
      throw new ProtocolError(
        `${what}: ${frame.total.toLocaleString("en")} bytes, expected ${this.#total.toLocaleString("en")}; the model differs`,
      );
    if (frame.offset !== this.#received || frame.offset + frame.data.length > this.#total)
      throw new ProtocolError(`${what}: chunk at byte ${frame.offset}, expected ${this.#received}`);
    this.known = this.#put(frame.data, frame.offset);
    this.#received += frame.data.length;
  }
}

/** The bytes of a typed array, without a copy. */
export function bytesOf(array: Float32Array | Uint16Array | Uint32Array | Int32Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}
