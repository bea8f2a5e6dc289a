// Which form a file of token ids has: bare uint16 as nanoGPT writes it, bare uint32, llm.c's header of 256 integers, or
// NumPy's .npy. What is recognised and cannot be read is refused by its name.
import { ConfigError } from "../../shared/errors.ts";
import type { ReadableFile } from "../../shared/stored-file.ts";
import { widthOf } from "../../shared/token-array.ts";

export interface TokenFormat {
  /** For people. */
  readonly name: string;
  /** Bytes of one id, little-endian and unsigned. */
  readonly width: 2 | 4;
  /** Byte at which the ids begin. */
  readonly start: number;
  readonly length: number;
}

/** Read of a file to recognise it. */
const looked = 2 ** 20;
/** Ids that decide whether a bare file is wider than its vocabulary needs; fewer say too little. */
const enoughIds = 16;

/**
 * @param stated the width that a description beside the file states; no bare file is guessed at then
 * @throws ConfigError on a form that is recognised and not read, and on a length that is no whole number of ids
 */
export async function formatOf(file: ReadableFile, vocabSize: number, stated?: 2 | 4): Promise<TokenFormat> {
  const head = Buffer.alloc(Math.min(looked, file.size));
  await file.read(head, 0);
  if (stated === undefined) {
    if (head.subarray(0, 6).equals(numpyMagic)) return numpy(file, head);
    const llmc = head.length >= llmcBytes ? llmcWidths.get(head.readInt32LE(0)) : undefined;
    if (llmc) return llmC(file, head, llmc);
  }
  const width = stated ?? bareWidth(file, head, vocabSize);
  return { name: `uint${8 * width}`, width, start: 0, length: wholeIds(file, file.size, width) };
}

function wholeIds(file: ReadableFile, bytes: number, width: 2 | 4): number {
  if (bytes % width === 0) return bytes / width;
  throw new ConfigError(
    `${file.path}: ${bytes} bytes is no multiple of ${width}, the bytes of a uint${8 * width} id; ` +
      "the file is cut short or is not a token file",
  );
}

/** Ids of a vocabulary that fits into 16 bits, written wider, have zeros in their upper halves throughout. */
function bareWidth(file: ReadableFile, head: Buffer, vocabSize: number): 2 | 4 {
  const ids = new Uint16Array(head.buffer, head.byteOffset, head.length >> 1);
  const zeros = (every: number) => ids.every((id, i) => i % every === 0 || id === 0) && ids.some((id) => id !== 0);
  if (ids.length >= 4 * enoughIds && file.size % 8 === 0 && zeros(4))
    throw new ConfigError(`${file.path}: holds ids of 64 bits; save them as uint16 or uint32, as with numpy's astype`);
  return widthOf(vocabSize) === 2 && ids.length >= 2 * enoughIds && file.size % 4 === 0 && zeros(2)
    ? 4
    : widthOf(vocabSize);
}

// ---- llm.c (karpathy/llm.c, dev/data/data_common.py): magic, version, number of ids, in 256 int32 ----

const llmcBytes = 1024;
const llmcWidths = new Map<number, 2 | 4>([
  [20_240_520, 2],
  [20_240_801, 4],
]);

function llmC(file: ReadableFile, head: Buffer, width: 2 | 4): TokenFormat {
  const [version, length] = [head.readInt32LE(4), head.readInt32LE(8)];
  const bytes = llmcBytes + width * length;
  if (file.size !== bytes)
    throw new ConfigError(
      `${file.path}: its llm.c header (version ${version}) announces ${length} ids, ${bytes} bytes; it has ${file.size}`,
    );
  return { name: `llm.c, uint${8 * width}`, width, start: llmcBytes, length };
}

// ---- https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html ----

const numpyHeader =
  /^\{\s*(?:'(?:descr|fortran_order|shape)'\s*:\s*(?:'[!-&(-~]*'|True|False|\((?:|\d+ ?,|\d+(?: ?, ?\d+)+ ?,?)\))\s*(?:,\s*|(?=\}))){3}\}[ \n]*$/;
const numpyMagic = Buffer.from("\x93NUMPY", "latin1");
/** Signed ids are not negative: as unsigned ones they would be out of every vocabulary. */
const numpyWidths = new Map<string, 2 | 4>([
  ["<u2", 2],
  ["<i2", 2],
  ["<u4", 4],
  ["<i4", 4],
]);

function numpy(file: ReadableFile, head: Buffer): TokenFormat {
  const lengthBytes = head[6] === 1 ? 2 : 4;
  const start = 8 + lengthBytes;
  const end = start + (head.length >= start ? head.readUIntLE(8, lengthBytes) : 0);
  const text = head.subarray(start, end).toString("latin1");
  const isWhole = end <= head.length && numpyHeader.test(text) && [1, 2, 3].includes(head[6]!) && head[7] === 0;
  const field = (name: string, value: string) => new RegExp(`'${name}':\\s*(${value})`).exec(text)?.[1];
  const type = field("descr", "'[^']*'|\\[.*?\\]")?.replaceAll("'", "");
  const shape = field("shape", "\\([\\d, ]*\\)");
  if (!isWhole || type === undefined || shape === undefined)
    throw new ConfigError(`${file.path}: its .npy header cannot be read; save the ids again, as uint16`);
  const width = numpyWidths.get(type);
  if (!width)
    throw new ConfigError(
      `${file.path}: a .npy file of ${type.slice(0, 40).replace(/\p{Cc}/gu, "?")}; save the ids as uint16 or uint32 (astype)`,
    );
  const sizes = shape.match(/\d+/g) ?? [];
  if (sizes.length > 1 && field("fortran_order", "True"))
    throw new ConfigError(`${file.path}: a .npy file in Fortran's order; save it as one row of ids`);
  const length = sizes.reduce((product, size) => product * Number(size), 1);
  if (file.size !== end + width * length)
    throw new ConfigError(
      `${file.path}: its .npy header announces ${length} ids of ${width} bytes after byte ${end}; the file has ${file.size} bytes`,
    );
  return { name: `.npy, uint${8 * width}`, width, start: end, length };
}
