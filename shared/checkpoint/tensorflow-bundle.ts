// A TensorFlow V2 checkpoint ("tensor bundle"): PREFIX.index, a LevelDB table from tensor names to protocol-buffer
// entries, and PREFIX.data-NNNNN-of-NNNNN with the bytes. Formats: leveldb/doc/table_format.md (blocks, footer, masked
// CRC-32C) and tensorflow/core/protobuf/tensor_bundle.proto (entries).
import { firstNonFinite } from "../arithmetic/finite.ts";
import { ConfigError } from "../errors.ts";
import { StoredFile } from "../stored-file.ts";
import { crc32c } from "./crc32c.ts";
import { type Message, numberField, parseMessage, readVarint } from "./protobuf.ts";
import { placeOf } from "./safetensors.ts";

export interface BundleEntry {
  readonly name: string;
  readonly shape: readonly number[];
  /** DataType of types.proto; 1 is float32. */
  readonly dtype: number;
  readonly dataPath: string;
  /** Position and length in the data file, in bytes. */
  readonly position: number;
  readonly length: number;
  /** Masked CRC-32C of the tensor's bytes. */
  readonly crc: number;
}

const footerBytes = 48;
const tableMagic = 0xdb4775248b80fb57n;
const float32 = 1;
/** In bytes; that of a thousand blocks has one million. */
const largestIndex = 2 ** 28;
const longestKey = 4096;

/**
 * Read the index of a bundle.
 * @param prefix path without ".index"
 * @throws ConfigError where a file is absent, truncated, damaged or of another format
 */
export async function readBundle(prefix: string): Promise<Map<string, BundleEntry>> {
  const path = `${prefix}.index`;
  const file = await StoredFile.open(path);
  if (file.size > largestIndex)
    throw new ConfigError(`${path}: ${file.size} bytes are no index of a model's checkpoint`);
  const table = Buffer.alloc(file.size);
  await file.read(table, 0).finally(() => file.close());
  if (table.length < footerBytes || table.readBigUInt64LE(table.length - 8) !== tableMagic)
    throw new ConfigError(
      `${path}: not the index of a TensorFlow checkpoint, or cut short: its ${table.length} bytes do not end in a table's footer`,
    );
  const [, afterMeta] = readHandle(table, table.length - footerBytes);
  const [indexHandle] = readHandle(table, afterMeta);
  const entries = new Map<string, BundleEntry>();
  let shards = 0;
  for (const [, handle] of readBlock(path, table, indexHandle))
    for (const [key, value] of readBlock(path, table, readHandle(handle, 0)[0])) {
      const message = parseMessage(value);
      // The empty key, which sorts first, is the bundle's header.
      if (key === "") {
        shards = numberField(message, 1);
        if (numberField(message, 2) !== 0)
          throw new ConfigError(`${path}: written big-endian; Weft reads little-endian`);
      } else entries.set(key, entryOf(prefix, key, message, shards));
    }
  return entries;
}

function entryOf(prefix: string, name: string, message: Message, shards: number): BundleEntry {
  const [shape] = message.get(2) ?? [];
  const dimensions = shape instanceof Uint8Array ? (parseMessage(shape).get(2) ?? []) : [];
  const five = (n: number): string => String(n).padStart(5, "0");
  if (message.has(7)) throw new ConfigError(`${prefix}.index: tensor ${name} is stored in slices; save it whole`);
  return {
    name,
    shape: dimensions.map((dimension) => numberField(parseMessage(dimension as Uint8Array), 1)),
    dtype: numberField(message, 1),
    dataPath: `${prefix}.data-${five(numberField(message, 3))}-of-${five(shards)}`,
    position: numberField(message, 4),
    length: numberField(message, 5),
    crc: numberField(message, 6),
  };
}

/** @param out (product of shape) overwritten */
export async function readBundleFloats(entry: BundleEntry, out: Float32Array): Promise<void> {
  const { name, dataPath, dtype, position, length } = entry;
  if (dtype !== float32)
    throw new ConfigError(`${dataPath}: tensor ${name} is of TensorFlow's type ${dtype}, not float32`);
  if (length !== out.byteLength)
    throw new ConfigError(`${dataPath}: tensor ${name} has ${length / 4} values, expected ${out.length}`);
  const bytes = new Uint8Array(out.buffer, out.byteOffset, out.byteLength);
  const file = await StoredFile.open(dataPath);
  try {
    if (position + length > file.size)
      throw new ConfigError(
        `${dataPath}: cut short: tensor ${name} ends at byte ${position + length}, the file at ${file.size}`,
      );
    const piece = 2 ** 24;
    let crc = 0;
    for (let done = 0; done < length; done += piece) {
      const part = bytes.subarray(done, done + piece);
      await file.read(part, position + done);
      crc = crc32c(part, crc);
    }
    if (masked(crc) !== entry.crc) throw new ConfigError(`${dataPath}: tensor ${name} is damaged (CRC-32C)`);
  } finally {
    await file.close();
  }
  const bad = firstNonFinite(out);
  if (bad >= 0) throw new ConfigError(`${dataPath}: tensor ${name}[${placeOf(bad, entry.shape)}] is ${out[bad]}`);
}

/** LevelDB stores checksums rotated, because a checksum of data that holds its checksum is a poor one. */
export function masked(crc: number): number {
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

interface Handle {
  readonly offset: number;
  readonly size: number;
}

/** @returns the handle of a block and the position after it */
function readHandle(bytes: Uint8Array, at: number): [Handle, number] {
  const [offset, afterOffset] = readVarint(bytes, at);
  const [size, end] = readVarint(bytes, afterOffset);
  return [{ offset, size }, end];
}

/** The keys and values of a block: keys share a prefix with the key before; restart points follow the entries. */
function* readBlock(path: string, table: Buffer, { offset, size }: Handle): Generator<[string, Uint8Array]> {
  const trailer = offset + size;
  if (size < 4 || trailer + 5 > table.length)
    throw new ConfigError(`${path}: cut short: a block ends at ${trailer + 5}`);
  if (masked(crc32c(table.subarray(offset, trailer + 1))) !== table.readUInt32LE(trailer + 1))
    throw new ConfigError(`${path}: the block at byte ${offset} is damaged (CRC-32C)`);
  if (table[trailer] !== 0)
    throw new ConfigError(
      `${path}: the block at byte ${offset} is compressed; TensorFlow writes plain ones, save it again`,
    );
  const end = trailer - 4 - 4 * table.readUInt32LE(trailer - 4);
  let key = Buffer.alloc(0);
  for (let at = offset; at < end; ) {
    const [shared, afterShared] = readVarint(table, at);
    const [fresh, afterFresh] = readVarint(table, afterShared);
    const [valueLength, start] = readVarint(table, afterFresh);
    const valueStart = start + fresh;
    if (shared + fresh > longestKey)
      throw new ConfigError(`${path}: a key of ${shared + fresh} bytes is no variable's`);
    if (valueStart + valueLength > end) throw new ConfigError(`${path}: an entry at byte ${at} leaves its block`);
    key = Buffer.concat([key.subarray(0, shared), table.subarray(start, valueStart)]);
    at = valueStart + valueLength;
    yield [key.toString("utf8"), table.subarray(valueStart, at)];
  }
}
