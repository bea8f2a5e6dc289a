// The safetensors file format: an 8-byte little-endian header length, a JSON header naming each tensor's dtype, shape
// and byte range, then the bytes. No code in it, so opening one is safe. https://github.com/huggingface/safetensors
import { open } from "node:fs/promises";
import { z } from "zod";
import { ConfigError } from "../errors.ts";

const bytesOf = { F64: 8, F32: 4, F16: 2, BF16: 2, I64: 8, I32: 4, I16: 2, I8: 1, U8: 1, BOOL: 1 } as const;

export type Dtype = keyof typeof bytesOf;

export interface TensorEntry {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** Position and length in the file, in bytes. */
  readonly position: number;
  readonly length: number;
}

export interface SafetensorsHeader {
  readonly metadata: Readonly<Record<string, string>>;
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  /** Length of the whole file in bytes. */
  readonly fileLength: number;
}

const entrySchema = z.object({
  dtype: z.enum(Object.keys(bytesOf) as [Dtype, ...Dtype[]]),
  shape: z.array(z.int().min(0)),
  data_offsets: z.tuple([z.int().min(0), z.int().min(0)]),
});

const largestHeader = 100 * 2 ** 20;

/**
 * Read and check the header of a file.
 * @throws ConfigError where the file is truncated, foreign, or its ranges do not fit its shapes
 */
export async function readHeader(path: string): Promise<SafetensorsHeader> {
  const file = await open(path, "r").catch((error: NodeJS.ErrnoException) => {
    throw new ConfigError(`${path}: cannot be opened (${error.code})`, { cause: error });
  });
  try {
    const { size } = await file.stat();
    const prefix = Buffer.alloc(8);
    await file.read(prefix, 0, 8, 0);
    const headerLength = Number(prefix.readBigUInt64LE());
    if (size < 8 || headerLength > Math.min(largestHeader, size - 8))
      throw new ConfigError(
        `${path}: not a safetensors file, or cut short: ${size} bytes, header of ${headerLength} announced`,
      );
    const json = Buffer.alloc(headerLength);
    await file.read(json, 0, headerLength, 8);
    return parseHeader(path, json.toString("utf8"), 8 + headerLength, size);
  } finally {
    await file.close();
  }
}

function parseHeader(path: string, json: string, dataStart: number, fileLength: number): SafetensorsHeader {
  let header: Record<string, unknown>;
  try {
    header = z.record(z.string(), z.unknown()).parse(JSON.parse(json));
  } catch (error) {
    throw new ConfigError(`${path}: its safetensors header is not JSON`, { cause: error });
  }
  const { __metadata__: rawMetadata = {}, ...rest } = header;
  const tensors = new Map<string, TensorEntry>();
  for (const [name, raw] of Object.entries(rest)) {
    const entry = entrySchema.safeParse(raw);
    if (!entry.success)
      throw new ConfigError(`${path}: the entry of tensor ${name} is malformed: ${entry.error.message}`);
    const { dtype, shape, data_offsets } = entry.data;
    const length = shape.reduce((product, dimension) => product * dimension, bytesOf[dtype]);
    const [begin, end] = data_offsets;
    if (end - begin !== length)
      throw new ConfigError(
        `${path}: tensor ${name} has ${end - begin} bytes, its shape [${shape}] of ${dtype} needs ${length}`,
      );
    if (dataStart + end > fileLength)
      throw new ConfigError(
        `${path}: cut short: tensor ${name} ends at byte ${dataStart + end}, the file at ${fileLength}`,
      );
    tensors.set(name, { name, dtype, shape, position: dataStart + begin, length });
  }
  const metadata = z.record(z.string(), z.string()).safeParse(rawMetadata);
  if (!metadata.success) throw new ConfigError(`${path}: its __metadata__ is not a map of texts`);
  return { metadata: metadata.data, tensors, fileLength };
}

/**
 * Read one tensor of float32, float16, bfloat16 or float64 into float32.
 * @param out (product of shape) overwritten
 */
export async function readFloats(path: string, entry: TensorEntry, out: Float32Array): Promise<void> {
  const width = bytesOf[entry.dtype];
  if (out.length * width !== entry.length)
    throw new ConfigError(`${path}: tensor ${entry.name} has ${entry.length / width} values, expected ${out.length}`);
  if (entry.dtype === "F32") {
    await readBytes(path, entry, new Uint8Array(out.buffer, out.byteOffset, out.byteLength));
    return;
  }
  const bytes = new Uint8Array(entry.length);
  await readBytes(path, entry, bytes);
  const view = new DataView(bytes.buffer);
  const read = floatReaders[entry.dtype];
  if (!read) throw new ConfigError(`${path}: tensor ${entry.name} is ${entry.dtype}, expected floating point`);
  for (let i = 0; i < out.length; i++) out[i] = read(view, i);
}

const bits = new DataView(new ArrayBuffer(4));
const floatReaders: Partial<Record<Dtype, (view: DataView, i: number) => number>> = {
  F64: (view, i) => view.getFloat64(8 * i, true),
  BF16: (view, i) => {
    bits.setUint32(0, view.getUint16(2 * i, true) << 16);
    return bits.getFloat32(0);
  },
  F16: (view, i) => {
    const half = view.getUint16(2 * i, true);
    const sign = half & 0x8000 ? -1 : 1;
    const exponent = (half >>> 10) & 31;
    const fraction = half & 1023;
    if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
    return exponent ? sign * 2 ** (exponent - 15) * (1 + fraction / 1024) : (sign * fraction) / 2 ** 24;
  },
};

/** Read a tensor's bytes as they stand. @param out (entry.length) overwritten */
export async function readBytes(path: string, entry: TensorEntry, out: Uint8Array): Promise<void> {
  const file = await open(path, "r");
  try {
    // One read call takes at most 2 GiB.
    const piece = 2 ** 30;
    for (let done = 0; done < out.length; ) {
      const { bytesRead } = await file.read(out, done, Math.min(piece, out.length - done), entry.position + done);
      if (bytesRead === 0) throw new ConfigError(`${path}: cut short while reading tensor ${entry.name}`);
      done += bytesRead;
    }
  } finally {
    await file.close();
  }
}

export interface TensorToWrite {
  readonly name: string;
  readonly shape: readonly number[];
  readonly data: Float32Array | Int32Array | Uint8Array;
}

/** The bytes of a safetensors file as pieces to write one after another; the tensors' memory is not copied. */
export function encode(tensors: readonly TensorToWrite[], metadata: Record<string, string>): Uint8Array[] {
  const header: Record<string, unknown> = { __metadata__: metadata };
  let offset = 0;
  for (const { name, shape, data } of tensors) {
    const dtype = data instanceof Float32Array ? "F32" : data instanceof Int32Array ? "I32" : "U8";
    header[name] = { dtype, shape, data_offsets: [offset, offset + data.byteLength] };
    offset += data.byteLength;
  }
  const json = Buffer.from(JSON.stringify(header));
  // Data starts at a multiple of 8 bytes so that a mapped file can be viewed as it is.
  const padding = (8 - (json.length % 8)) % 8;
  const prefix = Buffer.alloc(8 + json.length + padding, " ");
  prefix.writeBigUInt64LE(BigInt(json.length + padding));
  json.copy(prefix, 8);
  return [prefix, ...tensors.map(({ data }) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength))];
}
