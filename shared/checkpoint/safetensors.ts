// The safetensors file format: an 8-byte little-endian header length, a JSON header naming each tensor's dtype, shape
// and byte range, then the bytes. No code in it, so opening one is safe. https://github.com/huggingface/safetensors
import { firstNonFinite } from "../arithmetic/finite.ts";
import { ConfigError } from "../errors.ts";
import { StoredFile } from "../stored-file.ts";
import {
  type Dtype,
  headerLength,
  parseHeader,
  prefixBytes,
  type SafetensorsHeader,
  type TensorEntry,
} from "./safetensors-header.ts";

/**
 * Read and prove the header of a file: safetensors-header.ts says what it must hold.
 * @throws ConfigError where the file is truncated, foreign, or its bytes are not one tensor after another
 */
export async function readHeader(path: string): Promise<SafetensorsHeader> {
  const file = await StoredFile.open(path);
  try {
    const prefix = Buffer.alloc(prefixBytes);
    await file.read(prefix.subarray(0, Math.min(prefixBytes, file.size)), 0);
    const json = new Uint8Array(headerLength(path, prefix, file.size));
    await file.read(json, prefixBytes);
    return parseHeader(path, json, file.size);
  } finally {
    await file.close();
  }
}

/** Bytes of a tensor that are converted at once. */
const pieceBytes = 2 ** 24;

/**
 * Read one tensor of float32, float16, bfloat16 or float64 into float32.
 * @param out (product of shape) overwritten
 * @throws ConfigError on another type or length, and on a value that is NaN or infinite (as float32), with its place
 */
export async function readFloats(path: string, entry: TensorEntry, out: Float32Array): Promise<void> {
  const convert = floatReaders[entry.dtype];
  if (!convert)
    throw new ConfigError(
      `${path}: tensor ${entry.name} is of ${entry.dtype}, weights are read from ${Object.keys(floatReaders).join(", ")}`,
    );
  const { width, read } = convert;
  if (out.length * width !== entry.length)
    throw new ConfigError(`${path}: tensor ${entry.name} has ${entry.length / width} values, expected ${out.length}`);
  const file = await StoredFile.open(path);
  try {
    if (entry.dtype === "F32")
      await file.read(new Uint8Array(out.buffer, out.byteOffset, out.byteLength), entry.position);
    else
      for (let start = 0; start < entry.length; start += pieceBytes) {
        const bytes = new Uint8Array(Math.min(pieceBytes, entry.length - start));
        await file.read(bytes, entry.position + start);
        const view = new DataView(bytes.buffer);
        for (let i = 0; i * width < bytes.length; i++) out[start / width + i] = read(view, i);
      }
  } finally {
    await file.close();
  }
  const bad = firstNonFinite(out);
  if (bad >= 0)
    throw new ConfigError(
      `${path}: tensor ${entry.name}[${placeOf(bad, entry.shape)}] is ${out[bad]}; a model with such weights computes nothing but NaN: take an earlier checkpoint, or make it anew`,
    );
}

/** Indices of the i-th element of a row-major array. */
export function placeOf(i: number, shape: readonly number[]): string {
  const place: number[] = [];
  let rest = i;
  for (const size of [...shape].reverse()) {
    place.unshift(rest % size);
    rest = Math.floor(rest / size);
  }
  return place.join(", ");
}

const bits = new DataView(new ArrayBuffer(4));

interface FloatReader {
  /** Bytes of a value. */
  readonly width: number;
  read(view: DataView, i: number): number;
}

const floatReaders: Partial<Record<Dtype, FloatReader>> = {
  F32: { width: 4, read: (view, i) => view.getFloat32(4 * i, true) },
  F64: { width: 8, read: (view, i) => view.getFloat64(8 * i, true) },
  BF16: {
    width: 2,
    read: (view, i) => {
      bits.setUint32(0, view.getUint16(2 * i, true) << 16);
      return bits.getFloat32(0);
    },
  },
  F16: { width: 2, read: (view, i) => halfFloat(view.getUint16(2 * i, true)) },
};

function halfFloat(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >>> 10) & 31;
  const fraction = half & 1023;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return exponent ? sign * 2 ** (exponent - 15) * (1 + fraction / 1024) : (sign * fraction) / 2 ** 24;
}

/** Read a tensor's bytes as they stand. @param out (entry.length) overwritten */
export async function readBytes(path: string, entry: TensorEntry, out: Uint8Array): Promise<void> {
  const file = await StoredFile.open(path);
  try {
    await file.read(out, entry.position);
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
