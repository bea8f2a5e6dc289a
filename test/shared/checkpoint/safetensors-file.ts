// The bytes of a safetensors file as a test wants them, right or wrong.

/** @param header an object, or the JSON as it shall stand there */
export function safetensors(header: object | string, data: Uint8Array | number = 0): Buffer {
  const json = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([prefix, json, typeof data === "number" ? Buffer.alloc(data) : data]);
}
