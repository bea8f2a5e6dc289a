// Mutations of a file, as data: an edit is a kind and three numbers, so that a failing input is a short list of edits
// which can be shortened, and every input is a function of (seed, run).
import { PhiloxStream } from "../../shared/arithmetic/philox.ts";

export interface Edit {
  readonly kind: number;
  readonly a: number;
  readonly b: number;
  readonly c: number;
}

const bytes = [0, 1, 0x22, 0x2c, 0x5b, 0x5c, 0x7b, 0x7d, 0x7f, 0x80, 0xc0, 0xff, 0x30, 0x2d];
const words = [0, 1, 2, 255, 256, 65_535, 65_536, 0x7fffffff, 0x80000000, 0xffffffff];
const longs = [0n, 1n, 2n ** 31n, 2n ** 32n, 2n ** 40n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n];
const numbers = [
  ...["0", "-1", "1", "2", "7", "65536", "1000001", "4294967296", "9007199254740993", "1e999", "-0", "1.5", "1e3"],
  ...["null", "true", '""', '"x"', "[]", "{}", "[[[[1]]]]", "NaN"],
];
const strings = [
  ...['"__proto__"', '"constructor"', '"toString"', '""', '"a/../b"', '"\\u0000"', '"\\ud800"', '"F8_E4M3"', '"I4"'],
  ...['"\\uFEFF"', '"🦊"', '"shape"', '"."', "[]", "{}", "7", "null"],
];
const lumps = [
  "\uFEFF",
  "//",
  ",",
  "]",
  "}",
  "[".repeat(3000),
  '{"a":'.repeat(3000),
  " ".repeat(5000),
  "\0",
  "0".repeat(400),
];

const pick = <T>(list: readonly T[], n: number): T => list[n % list.length]!;

function splice(file: Buffer, at: number, remove: number, insert: Uint8Array = Buffer.alloc(0)): Buffer {
  return Buffer.concat([file.subarray(0, at), insert, file.subarray(at + remove)]);
}

/** Replace the n-th place that a pattern finds. */
function replace(file: Buffer, pattern: RegExp, n: number, by: (found: string, all: string[]) => string): Buffer {
  const text = file.toString("latin1");
  const found = [...text.matchAll(pattern)];
  if (found.length === 0) return file;
  const chosen = found[n % found.length]!;
  const all = found.map(([match]) => match);
  return splice(file, chosen.index, chosen[0].length, Buffer.from(by(chosen[0], all), "latin1"));
}

const kinds: readonly ((file: Buffer, edit: Edit) => Buffer)[] = [
  (file, { a, b }) => splice(file, a % file.length, 1, Buffer.of(file[a % file.length]! ^ (1 << (b % 8)))),
  (file, { a, b }) => splice(file, a % file.length, 1, Buffer.of(pick(bytes, b))),
  (file, { a }) => file.subarray(0, a % file.length),
  (file, { a, b }) => splice(file, a % file.length, 1 + (b % 24)),
  (file, { a, b, c }) => splice(file, a % file.length, 0, file.subarray(b % file.length, (b % file.length) + (c % 64))),
  (file, { a, b }) => splice(file, a % file.length, 0, Buffer.from(pick(lumps, b))),
  (file, { a, b }) => {
    const word = Buffer.alloc(4);
    word.writeUInt32LE(pick(words, b));
    return splice(file, a % file.length, 4, word);
  },
  (file, { a, b }) => {
    const long = Buffer.alloc(8);
    long.writeBigUInt64LE(pick(longs, b));
    return splice(file, a % file.length, 8, long);
  },
  (file, { a, b }) => replace(file, /-?\d+(\.\d+)?/g, a, () => pick(numbers, b)),
  (file, { a, b }) => replace(file, /-?\d+/g, a, (found) => String(Number(found) + (b % 9) - 4)),
  (file, { a, b }) => replace(file, /"[^"\\]*"/g, a, () => pick(strings, b)),
  (file, { a, b }) => replace(file, /"[^"\\]*"/g, a, (_, all) => pick(all, b)),
  (file, { a, b }) =>
    replace(file, /"[^"\\]*"\s*:\s*("[^"]*"|[\d.]+|\[[^[\]]*\])/g, a, (found, all) => `${found},${pick(all, b)}`),
  (file, { a, b }) => replace(file, /\[[^[\]]*\]|\{[^{}]*\}/g, a, (_, all) => pick(all, b)),
];

/** The edits of one run: mostly few, so that most of the file stays whole. */
export function editsOf(seed: number, run: number): Edit[] {
  const random = new PhiloxStream(seed, 77, run);
  const count = 1 + Math.min(random.below(6), random.below(6));
  const draw = () => random.below(0x7fffffff);
  return Array.from({ length: count }, () => ({ kind: random.below(kinds.length), a: draw(), b: draw(), c: draw() }));
}

export function apply(file: Buffer, edits: readonly Edit[]): Buffer {
  return edits.reduce((whole, edit) => (whole.length === 0 ? whole : kinds[edit.kind]!(whole, edit)), file);
}
