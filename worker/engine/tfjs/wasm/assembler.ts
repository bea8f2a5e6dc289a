// A WebAssembly module from a few functions, written as nested expressions: enough of the binary format for kernels
// that work on a memory of someone else's. https://webassembly.github.io/spec/core/binary/
//
// An expression is its bytes; an operator's bytes follow its operands'. Addresses are i32 locals in bytes.

export type Code = readonly number[];

const unsigned = (value: number): number[] => {
  const bytes: number[] = [];
  do {
    const rest = Math.floor(value / 128);
    bytes.push((value % 128) + (rest > 0 ? 128 : 0));
    value = rest;
  } while (value > 0);
  return bytes;
};
const signed = (value: number): number[] => {
  const low = value & 0x7f;
  const rest = value >> 7;
  return (rest === 0 && !(low & 0x40)) || (rest === -1 && low & 0x40) ? [low] : [low | 0x80, ...signed(rest)];
};
const vector = (opcode: number): number[] => [0xfd, ...unsigned(opcode)];
/** Alignment hint (4 bytes) and offset of a memory access. */
const access = (offset: number): number[] => [2, ...unsigned(offset)];

export const join = (...parts: readonly Code[]): Code => parts.flat();
export const get = (local: number): Code => [0x20, ...unsigned(local)];
export const set = (local: number, value: Code): Code => [...value, 0x21, ...unsigned(local)];
export const i32 = (value: number): Code => [0x41, ...signed(value)];
export const add = (a: Code, b: Code): Code => [...a, ...b, 0x6a];
export const sub = (a: Code, b: Code): Code => [...a, ...b, 0x6b];
export const mul = (a: Code, b: Code): Code => [...a, ...b, 0x6c];
export const and = (a: Code, b: Code): Code => [...a, ...b, 0x71];
export const equal = (a: Code, b: Code): Code => [...a, ...b, 0x46];
export const atLeast = (a: Code, b: Code): Code => [...a, ...b, 0x4f];
export const below = (a: Code, b: Code): Code => [...a, ...b, 0x49];
/** a > b, as signed integers. */
export const above = (a: Code, b: Code): Code => [...a, ...b, 0x4a];
/** The smaller of two unsigned integers; both are evaluated twice. */
export const least = (a: Code, b: Code): Code => [...a, ...b, ...below(a, b), 0x1b];

export const f32Zero: Code = [0x43, 0, 0, 0, 0];
export const f32Load = (address: Code, offset = 0): Code => [...address, 0x2a, ...access(offset)];
export const f32Store = (address: Code, value: Code, offset = 0): Code => [
  ...address,
  ...value,
  0x38,
  ...access(offset),
];

export const zeros: Code = [...vector(0x0c), ...Array<number>(16).fill(0)];
/** Four floats. */
export const load = (address: Code, offset = 0): Code => [...address, ...vector(0x00), ...access(offset)];
/** One float four times. */
export const loadSplat = (address: Code, offset = 0): Code => [...address, ...vector(0x09), ...access(offset)];
export const store = (address: Code, value: Code, offset = 0): Code => [
  ...address,
  ...value,
  ...vector(0x0b),
  ...access(offset),
];
export const addFloats = (a: Code, b: Code): Code => [...a, ...b, ...vector(0xe4)];
export const mulFloats = (a: Code, b: Code): Code => [...a, ...b, ...vector(0xe6)];
/** Four floats out of the eight of a (0 to 3) and b (4 to 7). */
export const shuffle = (a: Code, b: Code, lanes: readonly number[]): Code => [
  ...a,
  ...b,
  ...vector(0x0d),
  ...lanes.flatMap((lane) => [4 * lane, 4 * lane + 1, 4 * lane + 2, 4 * lane + 3]),
];

export const when = (condition: Code, then: Code, otherwise: Code = []): Code => [
  ...condition,
  0x04,
  0x40,
  ...then,
  ...(otherwise.length > 0 ? [0x05, ...otherwise] : []),
  0x0b,
];
/** While the condition holds. */
export const loop = (condition: Code, body: Code): Code => [0x03, 0x40, ...when(condition, [...body, 0x0c, 1]), 0x0b];
export const call = (index: number, ...args: readonly Code[]): Code => [...args.flat(), 0x10, ...unsigned(index)];

const types = { i32: 0x7f, v128: 0x7b } as const;

/** A function of i32 parameters that returns nothing. */
export interface Kernel {
  readonly name: string;
  readonly parameters: number;
  readonly locals: readonly (keyof typeof types)[];
  readonly body: Code;
}

/** Allots the numbers of a function's parameters and locals. */
export class Locals {
  readonly list: (keyof typeof types)[] = [];
  #next: number;

  constructor(parameters: number) {
    this.#next = parameters;
  }

  add(type: keyof typeof types): number {
    this.list.push(type);
    return this.#next++;
  }
}

/** The bytes of a module that imports `env.memory` and exports its kernels; they call each other by position. */
export function assemble(kernels: readonly Kernel[]): Uint8Array<ArrayBuffer> {
  const list = (items: readonly Code[]): Code => [...unsigned(items.length), ...items.flat()];
  const section = (id: number, content: Code): Code => [id, ...unsigned(content.length), ...content];
  const text = (value: string): Code => list([...Buffer.from(value)].map((byte) => [byte]));
  const code = kernels.map(({ locals, body }) => {
    const content = [...list(locals.map((type) => [1, types[type]])), ...body, 0x0b];
    return [...unsigned(content.length), ...content];
  });
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, list(kernels.map(({ parameters }) => [0x60, ...list(Array(parameters).fill([types.i32])), 0]))),
    ...section(2, list([[...text("env"), ...text("memory"), 2, 0, 0]])),
    ...section(3, list(kernels.map((_, i) => unsigned(i)))),
    ...section(7, list(kernels.map(({ name }, i) => [...text(name), 0, ...unsigned(i)]))),
    ...section(10, list(code)),
  ]);
}
