// TensorBoard's event files: TFRecords (a length, its masked CRC-32C, the bytes, theirs) of Event messages
// (tensorflow/core/util/event.proto), written here by hand: five fields do not want a protocol compiler.
import { crc32c } from "../shared/checkpoint/crc32c.ts";

export interface Scalar {
  readonly tag: string;
  readonly step: number;
  readonly value: number;
  /** Seconds since 1970. */
  readonly wallTime: number;
}

/** What a file begins with. */
export function firstEvent(wallTime: number): Buffer {
  return record(Buffer.concat([double(1, wallTime), bytes(3, Buffer.from("brain.Event:2"))]));
}

export function eventOf({ tag, step, value, wallTime }: Scalar): Buffer {
  const scalar = Buffer.concat([bytes(1, Buffer.from(tag)), float(2, value)]);
  return record(Buffer.concat([double(1, wallTime), int(2, step), bytes(5, bytes(1, scalar))]));
}

function record(data: Buffer): Buffer {
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(data.length));
  return Buffer.concat([length, masked(length), data, masked(data)]);
}

function masked(data: Buffer): Buffer {
  const crc = crc32c(data);
  const sum = Buffer.alloc(4);
  sum.writeUInt32LE((((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0);
  return sum;
}

// Protocol Buffers: a key is the field's number and its wire type (0 varint, 1 eight bytes, 2 with a length, 5 four).
function varint(value: number): Buffer {
  const out: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return Buffer.from([...out, rest]);
    out.push((rest % 128) | 128);
  }
}

const key = (field: number, type: number): Buffer => varint(field * 8 + type);
const int = (field: number, value: number): Buffer => Buffer.concat([key(field, 0), varint(value)]);
const bytes = (field: number, data: Buffer): Buffer => Buffer.concat([key(field, 2), varint(data.length), data]);

function double(field: number, value: number): Buffer {
  const data = Buffer.alloc(8);
  data.writeDoubleLE(value);
  return Buffer.concat([key(field, 1), data]);
}

function float(field: number, value: number): Buffer {
  const data = Buffer.alloc(4);
  data.writeFloatLE(value);
  return Buffer.concat([key(field, 5), data]);
}
