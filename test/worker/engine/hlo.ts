// What stands in a program that XLA has optimized (HloModuleProtoWithConfig, xla/service/hlo.proto): enough of it to look
// for kernels and buffers.
import { type Message, numberField, parseMessage, readVarint } from "../../../shared/checkpoint/protobuf.ts";

export interface Instruction {
  readonly opcode: string;
  /** "f32[8,1024]"; of a tuple, its parts with commas. */
  readonly shape: string;
  /** Of a custom call: "__cublas$lt$matmul". */
  readonly target: string;
  /** Of a custom call: its backend_config. */
  readonly config: string;
  readonly operands: readonly string[];
  /** Whether it has memory of its own: inside a fusion nothing has. */
  readonly stored: boolean;
}

const types: Readonly<Record<number, string>> = {
  1: "pred",
  4: "s32",
  6: "u8",
  8: "u32",
  9: "u64",
  11: "f32",
  16: "bf16",
};
const parts = (message: Message, field: number): Uint8Array[] => (message.get(field) ?? []) as Uint8Array[];
const text = (message: Message, field: number): string => Buffer.from(parts(message, field).at(-1) ?? []).toString();

/** Repeated numbers, packed or one by one. */
function numbers(message: Message, field: number): number[] {
  return (message.get(field) ?? []).flatMap((value) => {
    if (typeof value === "number") return [value];
    const out: number[] = [];
    for (let at = 0; at < value.length; ) {
      const [number, next] = readVarint(value, at);
      out.push(number);
      at = next;
    }
    return out;
  });
}

function shapeOf(bytes: Uint8Array | undefined): string {
  if (!bytes) return "";
  const shape = parseMessage(bytes);
  const tuple = parts(shape, 4);
  if (tuple.length > 0) return tuple.map(shapeOf).join(", ");
  const type = numberField(shape, 2);
  return `${types[type] ?? `type ${type}`}[${numbers(shape, 3).join(",")}]`;
}

/** A field's last value in a message that has numbers of 64 bits, which parseMessage refuses. */
function lastField(message: Uint8Array, field: number): Uint8Array | bigint | undefined {
  let at = 0;
  let found: Uint8Array | bigint | undefined;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = message[at++]!;
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  while (at < message.length) {
    const tag = Number(varint());
    const [type, start] = [tag & 7, at];
    const number = type === 0 || type === 2 ? varint() : 0n;
    if (type === 1 || type === 5) at = start + (type === 1 ? 8 : 4);
    const from = at;
    if (type === 2) at += Number(number);
    const value = type === 0 ? number : message.subarray(from, at);
    if (tag >>> 3 === field) found = value;
  }
  return found;
}

/** Flags that decide bits, as they were in force when the program was compiled (DebugOptions, xla/xla.proto). */
export function flagsOf(program: Uint8Array): Record<string, bigint> {
  const config = parts(parseMessage(program), 2)[0]!;
  const debug = lastField(config, 14) as Uint8Array;
  // Zero may stand there, or nothing.
  const flag = (field: number) => (lastField(debug, field) as bigint | undefined) ?? 0n;
  return {
    xla_gpu_deterministic_ops: flag(148),
    xla_gpu_autotune_level: flag(123),
    xla_gpu_enable_triton_gemm: flag(188),
    xla_allow_excess_precision: flag(122),
    xla_gpu_dot_merger_threshold_mb: flag(331),
  };
}

export function instructionsOf(program: Uint8Array): Instruction[] {
  const module = parseMessage(parts(parseMessage(program), 1)[0]!);
  const computations = parts(module, 3).map(parseMessage);
  const parsed = computations.map((computation) => parts(computation, 2).map(parseMessage));
  const inFusions = new Set(
    parsed.flat().flatMap((instruction) => (text(instruction, 2) === "fusion" ? numbers(instruction, 38) : [])),
  );
  const shapes = new Map(parsed.flat().map((one) => [numberField(one, 35), shapeOf(parts(one, 3)[0])]));
  return computations.flatMap((computation, c) =>
    parsed[c]!.map((one) => ({
      opcode: text(one, 2),
      shape: shapeOf(parts(one, 3)[0]),
      target: text(one, 28),
      config: text(one, 43),
      operands: numbers(one, 36).map((id) => shapes.get(id) ?? "?"),
      stored: !inFusions.has(numberField(computation, 5)),
    })),
  );
}
