// Python's pickle, the part of it that dictionaries, lists, texts and numbers need. Whatever could name or call code
// (GLOBAL, REDUCE, BUILD, ...) is refused: reading one is safe. Opcodes: CPython's Lib/pickletools.py.
import { ConfigError } from "../errors.ts";

export type PickleValue = string | number | boolean | null | PickleValue[] | Map<PickleValue, PickleValue>;

const mark = Symbol("mark");

/**
 * The value of a pickle of protocol 2 or later; a tuple is a list.
 * @throws ConfigError that names the file and the byte where it is no such pickle
 */
export function readPickle(bytes: Uint8Array, path: string): PickleValue {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const stack: (PickleValue | typeof mark)[] = [];
  const memo = new Map<number, PickleValue>();
  let at = 0;
  let frameEnd = 0;

  const refuse = (what: string): never => {
    throw new ConfigError(
      `${path}: ${what} at byte ${at}; expected a pickle of dictionaries, lists, texts and numbers`,
    );
  };
  /** Where the next n bytes begin. */
  const take = (n: number): number => {
    if (at + n > bytes.length) refuse("is cut short");
    if (at < frameEnd && at + n > frameEnd) refuse("leaves its frame");
    at += n;
    return at - n;
  };
  const frame = (length: number): void => {
    if (at + length > bytes.length) refuse("is cut short");
    frameEnd = at + length;
  };
  const uint8 = () => view.getUint8(take(1));
  const uint32 = () => view.getUint32(take(4), true);
  const uint64 = () => Number(view.getBigUint64(take(8), true));
  const text = (length: number): string => {
    const start = take(length);
    try {
      return new TextDecoder("utf-8", { ignoreBOM: true, fatal: true }).decode(bytes.subarray(start, start + length));
    } catch {
      return refuse("has a text that is not UTF-8");
    }
  };
  const pop = (): PickleValue => {
    const value = stack.pop();
    return value === undefined || value === mark ? refuse("has nothing to take") : value;
  };
  const top = (): PickleValue => {
    const value = stack.at(-1);
    return value === undefined || value === mark ? refuse("has nothing to take") : value;
  };
  const sinceMark = (): PickleValue[] => {
    const start = stack.lastIndexOf(mark);
    if (start < 0) refuse("has no mark");
    return stack.splice(start).slice(1) as PickleValue[];
  };
  const put = (values: PickleValue[]): void => {
    const map = top();
    if (!(map instanceof Map) || values.length % 2 !== 0) return void refuse("puts items into no dictionary");
    for (let i = 0; i < values.length; i += 2) {
      if (typeof values[i] === "object" && values[i] !== null)
        return void refuse("has a key that is no text or number");
      map.set(values[i]!, values[i + 1]!);
    }
  };
  const append = (values: PickleValue[]): void => {
    const list = top();
    if (!Array.isArray(list)) return void refuse("appends to no list");
    for (const value of values) list.push(value);
  };
  const recall = (id: number): void => {
    const value = memo.get(id);
    stack.push(value === undefined ? refuse(`recalls ${id}, which was not kept`) : value);
  };
  /** A little-endian two's complement number of at most 8 bytes. */
  const long = (length: number): number => {
    if (length > 8) refuse("has a number beyond 64 bits");
    const start = take(length);
    let value = 0n;
    for (let i = length - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[start + i]!);
    return Number(BigInt.asIntN(8 * length, value));
  };
  const tuple = (n: number): number => stack.push(stack.splice(-n, n) as PickleValue[]);

  const opcodes: Readonly<Record<string, () => unknown>> = {
    "\x80": () => uint8() > 5 && refuse("is of a protocol that is not known"),
    "\x95": () => frame(uint64()),
    "(": () => stack.push(mark),
    "}": () => stack.push(new Map()),
    "]": () => stack.push([]),
    ")": () => stack.push([]),
    N: () => stack.push(null),
    "\x88": () => stack.push(true),
    "\x89": () => stack.push(false),
    K: () => stack.push(uint8()),
    M: () => stack.push(view.getUint16(take(2), true)),
    J: () => stack.push(view.getInt32(take(4), true)),
    G: () => stack.push(view.getFloat64(take(8))),
    "\x8a": () => stack.push(long(uint8())),
    "\x8c": () => stack.push(text(uint8())),
    X: () => stack.push(text(uint32())),
    "\x8d": () => stack.push(text(uint64())),
    "\x94": () => memo.set(memo.size, top()),
    q: () => memo.set(uint8(), top()),
    r: () => memo.set(uint32(), top()),
    h: () => recall(uint8()),
    j: () => recall(uint32()),
    t: () => stack.push(sinceMark()),
    "\x85": () => tuple(1),
    "\x86": () => tuple(2),
    "\x87": () => tuple(3),
    s: () => {
      const value = pop();
      put([pop(), value]);
    },
    u: () => put(sinceMark()),
    a: () => append([pop()]),
    e: () => append(sinceMark()),
  };

  for (;;) {
    const opcode = String.fromCharCode(uint8());
    if (opcode === ".") return pop();
    const act = opcodes[opcode];
    if (!act) refuse(`has opcode 0x${opcode.charCodeAt(0).toString(16).padStart(2, "0")}, which is not read here,`);
    act!();
  }
}
