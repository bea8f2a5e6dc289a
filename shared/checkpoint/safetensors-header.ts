// The header of a safetensors file, proven before a byte of data is read: as strict as the reference library
// (huggingface/safetensors, Metadata::validate), and where its documentation is stricter ("duplicate keys are
// disallowed"), as that. Every byte of the data belongs to exactly one tensor.
import { brief } from "../check.ts";
import { ConfigError } from "../errors.ts";

/** Bits of one element. */
const bitsOf = {
  ...{ F64: 64, F32: 32, F16: 16, BF16: 16, C64: 64, F4: 4, F6_E2M3: 6, F6_E3M2: 6 },
  ...{ F8_E5M2: 8, F8_E4M3: 8, F8_E8M0: 8, F8_E4M3FNUZ: 8, F8_E5M2FNUZ: 8 },
  ...{ I64: 64, I32: 32, I16: 16, I8: 8, U64: 64, U32: 32, U16: 16, U8: 8, BOOL: 8 },
} as const;

export type Dtype = keyof typeof bitsOf;

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

/** The library's limit, in bytes. */
export const largestHeader = 100_000_000;
export const prefixBytes = 8;

/**
 * The length of the header that the first 8 bytes announce.
 * @throws ConfigError where no such header can be in a file of that length
 */
export function headerLength(path: string, prefix: Buffer, fileLength: number): number {
  if (fileLength < prefixBytes) throw new ConfigError(`${path}: not a safetensors file: it has ${fileLength} bytes`);
  const announced = prefix.readBigUInt64LE();
  if (announced > BigInt(Math.min(largestHeader, fileLength - prefixBytes)))
    throw new ConfigError(
      `${path}: not a safetensors file, or cut short: ${fileLength} bytes, header of ${announced} announced`,
    );
  return Number(announced);
}

/** @throws ConfigError that names the tensor and what is wrong with it */
export function parseHeader(path: string, json: Uint8Array, fileLength: number): SafetensorsHeader {
  const dataStart = prefixBytes + json.length;
  const tensors = new Map<string, TensorEntry>();
  let metadata: Record<string, string> = {};
  for (const [name, raw] of Object.entries(parseStrictly(path, json)))
    if (name === "__metadata__") metadata = metadataOf(path, raw);
    else tensors.set(name, entryOf(path, name, raw, dataStart));
  proveCovered(path, tensors, dataStart, fileLength);
  return { metadata, tensors, fileLength };
}

/** A JSON text without what stands in its strings, however long they are. */
function outsideStrings(text: string): string {
  let outside = "";
  for (let from = 0; ; ) {
    const open = text.indexOf('"', from);
    if (open < 0) return outside + text.slice(from);
    outside += `${text.slice(from, open)}""`;
    let close = open + 1;
    while (text[close] !== '"') close += text[close] === "\\" ? 2 : 1;
    from = close + 1;
  }
}

function parseStrictly(path: string, json: Uint8Array): Record<string, unknown> {
  let text: string;
  let header: unknown;
  try {
    // A byte order mark is no JSON here: it stays, and is refused.
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(json);
    header = JSON.parse(text);
  } catch (error) {
    throw new ConfigError(`${path}: its safetensors header is not JSON`, { cause: error });
  }
  if (!isObject(header)) throw new ConfigError(`${path}: its safetensors header is not a JSON object`);
  const odd = /[\d.][eE.]|-/.exec(outsideStrings(text));
  if (odd) throw new ConfigError(`${path}: its safetensors header has a number that is not written in digits alone`);
  // JSON.stringify escapes what is half a character, and nothing else, in this way.
  if (/\\ud[89a-f]/i.test(JSON.stringify(header)))
    throw new ConfigError(`${path}: its safetensors header has half a character (a lone surrogate)`);
  const repeated = repeatedKey(text);
  if (repeated !== undefined)
    throw new ConfigError(`${path}: its header has ${brief(repeated)} twice; which one counts is not said`);
  return header;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The first key that stands twice in one object of a text that is JSON. */
export function repeatedKey(json: string): string | undefined {
  // Keys of the objects around a place; undefined for a list.
  const around: (Set<string> | undefined)[] = [];
  for (let i = 0; i < json.length; i++) {
    const sign = json[i];
    if (sign === "{") around.push(new Set());
    else if (sign === "[") around.push(undefined);
    else if (sign === "}" || sign === "]") around.pop();
    else if (sign === '"') {
      const start = i;
      for (i++; json[i] !== '"'; i++) if (json[i] === "\\") i++;
      let after = i + 1;
      while (" \t\r\n".includes(json[after] ?? "-")) after++;
      if (json[after] !== ":") continue;
      const key = JSON.parse(json.slice(start, i + 1)) as string;
      const keys = around.at(-1)!;
      if (keys.has(key)) return key;
      keys.add(key);
    }
  }
  return undefined;
}

function metadataOf(path: string, raw: unknown): Record<string, string> {
  if (raw === null) return {};
  if (!isObject(raw) || Object.values(raw).some((value) => typeof value !== "string"))
    throw new ConfigError(`${path}: its __metadata__ is not a map of texts`);
  return raw as Record<string, string>;
}

const isSize = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

function entryOf(path: string, name: string, raw: unknown, dataStart: number): TensorEntry {
  const refuse = (what: string): never => {
    throw new ConfigError(`${path}: tensor ${shown(name)}: ${what}`);
  };
  if (!isObject(raw)) return refuse("its entry is not an object");
  const { dtype, shape, data_offsets: offsets } = raw;
  if (typeof dtype !== "string" || !Object.hasOwn(bitsOf, dtype))
    return refuse(`its dtype is ${shown(dtype)}, expected one of ${Object.keys(bitsOf).join(", ")}`);
  if (!Array.isArray(shape) || !shape.every(isSize)) return refuse(`its shape is ${shown(shape)}, expected sizes`);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize))
    return refuse(`its data_offsets are ${shown(offsets)}, expected begin and end`);
  let bits: number = bitsOf[dtype as Dtype];
  for (const size of shape) {
    bits *= size;
    if (!Number.isSafeInteger(bits)) return refuse(`its shape [${shown(shape.join())}] has more values than can be`);
  }
  const [begin, end] = offsets as [number, number];
  if (end - begin !== bits / 8)
    return refuse(`has ${end - begin} bytes, its shape [${shown(shape.join())}] of ${dtype} needs ${bits / 8}`);
  return { name, dtype: dtype as Dtype, shape, position: dataStart + begin, length: end - begin };
}

/** One after another, without a gap, from the header to the end of the file. */
function proveCovered(
  path: string,
  tensors: ReadonlyMap<string, TensorEntry>,
  dataStart: number,
  fileLength: number,
): void {
  const inOrder = [...tensors.values()].sort((a, b) => a.position - b.position || a.length - b.length);
  let covered = dataStart;
  for (const { name, position, length } of inOrder) {
    if (position !== covered)
      throw new ConfigError(
        position < covered
          ? `${path}: tensor ${shown(name)} begins at byte ${position}, inside the one before it, which ends at ${covered}`
          : `${path}: ${position - covered} bytes before tensor ${shown(name)} belong to no tensor`,
      );
    covered = position + length;
    if (covered > fileLength)
      throw new ConfigError(
        `${path}: cut short: tensor ${shown(name)} ends at byte ${covered}, the file at ${fileLength}`,
      );
  }
  if (covered !== fileLength)
    throw new ConfigError(`${path}: its last ${fileLength - covered} bytes belong to no tensor of its header`);
}

/** Of others' words a message shows the beginning. */
export function shown(value: unknown): string {
  const text = (typeof value === "string" ? value : (JSON.stringify(value) ?? "absent")).replace(/\p{Cc}/gu, "?");
  return text.length <= 200 ? text : `${text.slice(0, 200)}...`;
}
