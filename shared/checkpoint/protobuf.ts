// Just enough of protocol buffers to read a message without its schema: fields by number.
// https://protobuf.dev/programming-guides/encoding/
import { ConfigError } from "../errors.ts";

/** Values of each field in order: a number for varint and fixed32, bytes for what has a length. */
export type Message = ReadonlyMap<number, readonly (number | Uint8Array)[]>;

/** @throws ConfigError where the bytes are no message */
export function parseMessage(bytes: Uint8Array): Message {
  const fields = new Map<number, (number | Uint8Array)[]>();
  for (let at = 0; at < bytes.length; ) {
    const [tag, afterTag] = readVarint(bytes, at);
    const [value, end] = readValue(bytes, tag & 7, afterTag);
    if (end > bytes.length) throw new ConfigError(`a protocol buffer is cut short: ${bytes.length} bytes of ${end}`);
    const values = fields.get(tag >>> 3);
    if (values) values.push(value);
    else fields.set(tag >>> 3, [value]);
    at = end;
  }
  return fields;
}

function readValue(bytes: Uint8Array, wireType: number, at: number): [number | Uint8Array, number] {
  if (wireType === 0) return readVarint(bytes, at);
  if (wireType === 2) {
    const [length, start] = readVarint(bytes, at);
    return [bytes.subarray(start, start + length), start + length];
  }
  if (wireType === 5 && at + 4 <= bytes.length)
    return [new DataView(bytes.buffer, bytes.byteOffset).getUint32(at, true), at + 4];
  throw new ConfigError(
    `a protocol buffer has wire type ${wireType} at byte ${at} of ${bytes.length}, expected 0, 2 or 5`,
  );
}

/** The field's last value, 0 where it is absent, as proto3 leaves out zeros. */
export function numberField(message: Message, field: number): number {
  const value = message.get(field)?.at(-1) ?? 0;
  if (typeof value !== "number")
    throw new ConfigError(`field ${field} of a protocol buffer is bytes, expected a number`);
  return value;
}

/** An unsigned integer of seven bits a byte, low ones first. @returns the number and the position after it */
export function readVarint(bytes: Uint8Array, at: number): [number, number] {
  let value = 0;
  for (let i = 0; i < 8; i++) {
    const byte = bytes[at + i];
    if (byte === undefined) break;
    value += (byte & 127) * 128 ** i;
    if (byte < 128) {
      if (!Number.isSafeInteger(value)) break;
      return [value, at + i + 1];
    }
  }
  throw new ConfigError(`a number at byte ${at} of ${bytes.length} is cut short or too large`);
}
