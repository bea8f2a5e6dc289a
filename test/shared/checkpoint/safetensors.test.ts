// What the reference library (safetensors 0.8.0 of PyPI) takes and refuses, transcribed; scripts/ci-safetensors.sh asks
// the library itself about random files. Where its documentation is stricter than its code (duplicate keys), so are we.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readFloats, readHeader } from "../../../shared/checkpoint/safetensors.ts";
import { repeatedKey } from "../../../shared/checkpoint/safetensors-header.ts";
import { safetensors } from "./safetensors-file.ts";

let path: string;
beforeAll(async () => {
  path = join(await mkdtemp(join(tmpdir(), "weft-safetensors-")), "m.safetensors");
});
afterAll(() => rm(join(path, ".."), { recursive: true }));

const header = async (bytes: Uint8Array) => {
  await writeFile(path, bytes);
  return await readHeader(path);
};
const f32 = (begin: number, end: number, shape: unknown = [1]) => ({ dtype: "F32", shape, data_offsets: [begin, end] });
const one = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}';

describe("taken", () => {
  const taken: Record<string, [Buffer, string[]]> = {
    "no tensor at all": [safetensors({}), []],
    "a scalar": [safetensors({ a: f32(0, 4, []) }, 4), ["a"]],
    "tensors without values, anywhere": [
      safetensors({ a: f32(4, 4, [0]), b: f32(0, 4), c: f32(0, 0, [3, 0]) }, 4),
      ["a", "b", "c"],
    ],
    "tensors in another order than their bytes": [safetensors({ a: f32(4, 8), b: f32(0, 4) }, 8), ["a", "b"]],
    "white space around the header": [safetensors(`  {"a":${one}} \n\t `, 4), ["a"]],
    "metadata that is null": [safetensors('{"__metadata__":null}'), []],
    "a field that is not known": [safetensors({ a: { ...f32(0, 4), note: "1.5e3" } }, 4), ["a"]],
    "a name like another's": [safetensors(`{"__proto__":${one}}`, 4), ["__proto__"]],
    "four elements in two bytes": [safetensors({ a: { dtype: "F4", shape: [4], data_offsets: [0, 2] } }, 2), ["a"]],
  };
  test.each(Object.entries(taken))("%s", async (_, [bytes, names]) => {
    expect([...(await header(bytes)).tensors.keys()].sort()).toEqual(names);
  });
});

describe("refused", () => {
  const refused: Record<string, [Buffer, string]> = {
    "an empty file": [Buffer.alloc(0), "not a safetensors file: it has 0 bytes"],
    "seven bytes": [Buffer.alloc(7), "not a safetensors file: it has 7 bytes"],
    "a header of no bytes": [Buffer.alloc(8), "header is not JSON"],
    "a header beyond the file": [
      Buffer.concat([Buffer.alloc(8, 255), Buffer.from("{}")]),
      "header of 18446744073709551615 announced",
    ],
    "a hole": [safetensors({ a: f32(0, 4), b: f32(8, 12) }, 12), "4 bytes before tensor b belong to no tensor"],
    "a hole at the beginning": [safetensors({ a: f32(4, 8) }, 8), "4 bytes before tensor a belong"],
    "a hole before nothing": [safetensors({ a: f32(9, 9, [0]), b: f32(0, 4) }, 4), "5 bytes before tensor a belong"],
    "an overlap": [safetensors({ a: f32(0, 4), b: f32(2, 6) }, 6), "tensor b begins at byte"],
    "the same bytes twice": [safetensors({ a: f32(0, 4), b: f32(0, 4) }, 4), "inside the one before it"],
    "bytes after the last tensor": [safetensors({ a: f32(0, 4) }, 5), "its last 1 bytes belong to no tensor"],
    "data without a tensor": [safetensors({}, 3), "its last 3 bytes belong to no tensor"],
    "data cut short": [safetensors({ a: f32(0, 4) }, 3), "cut short: tensor a ends at byte"],
    "offsets turned round": [safetensors({ a: f32(4, 0) }, 4), "tensor a: has -4 bytes"],
    "offsets below 0": [safetensors({ a: f32(-4, 0) }, 4), "has a number that is not written in digits alone"],
    "three offsets": [safetensors({ a: { ...f32(0, 4), data_offsets: [0, 4, 4] } }, 4), "data_offsets are [0,4,4]"],
    "a shape of other bytes": [safetensors({ a: f32(0, 4, [2]) }, 4), "has 4 bytes, its shape [2] of F32 needs 8"],
    "a shape beyond numbers": [safetensors({ a: f32(0, 0, [2 ** 40, 2 ** 40, 0]) }), "has more values than can be"],
    "half a byte": [safetensors({ a: { dtype: "F4", shape: [3], data_offsets: [0, 2] } }, 2), "of F4 needs 1.5"],
    "a dtype of nobody": [
      safetensors({ a: { ...f32(0, 4), dtype: "F31" } }, 4),
      "its dtype is F31, expected one of F64,",
    ],
    "a dtype of Object": [safetensors({ a: { ...f32(0, 4), dtype: "toString" } }, 4), "its dtype is toString"],
    "half a character": [safetensors(`{"\\ud800":${one}}`, 4), "has half a character"],
    "a size of 1e0": [
      safetensors(`{"a":${one.replace("[1]", "[1e0]")}}`, 4),
      "has a number that is not written in digits",
    ],
    "a size of 1.0": [
      safetensors(`{"a":${one.replace("[1]", "[1.0]")}}`, 4),
      "has a number that is not written in digits",
    ],
    "an offset of -0": [
      safetensors(`{"a":${one.replace("[0,", "[-0,")}}`, 4),
      "has a number that is not written in digits",
    ],
    "an entry that is a list": [safetensors({ a: ["F32", [1], [0, 4]] }, 4), "tensor a: its entry is not an object"],
    "a header that is a list": [safetensors("[]"), "not a JSON object"],
    "a byte order mark": [safetensors(`\uFEFF{"a":${one}}`, 4), "header is not JSON"],
    "NULs after the header": [safetensors(`{"a":${one}}\0\0`, 4), "header is not JSON"],
    "metadata of numbers": [safetensors('{"__metadata__":{"a":1}}'), "__metadata__ is not a map of texts"],
    "the same tensor twice": [safetensors(`{"a":${one},"a":${one}}`, 4), 'its header has "a" twice'],
    "the same name spelled otherwise": [safetensors(`{"a":${one},"\\u0061":${one}}`, 4), 'its header has "a" twice'],
    "the same field twice": [safetensors(`{"a":${one.replace("{", '{"shape":[1],')}}`, 4), 'has "shape" twice'],
    "the same metadata twice": [safetensors('{"__metadata__":{"k":"1","k":"2"}}'), 'has "k" twice'],
  };
  test.each(Object.entries(refused))("%s", async (_, [bytes, why]) => {
    await expect(header(bytes)).rejects.toThrow(`${path}: `);
    await expect(header(bytes)).rejects.toThrow(why);
  });

  test("a header beyond the library's limit, before memory is taken", async () => {
    const prefix = Buffer.alloc(8);
    prefix.writeBigUInt64LE(100_000_001n);
    await expect(header(Buffer.concat([prefix, Buffer.alloc(100_000_001, " ")]))).rejects.toThrow(
      "100000001 announced",
    );
  });

  test("a folder, and a pipe that nobody writes to", async () => {
    await expect(readHeader(join(path, ".."))).rejects.toThrow("is a folder, expected a file");
    await expect(readHeader("/dev/null")).rejects.toThrow("is a pipe or device, expected a file");
  });
});

test("keys are the same only in one object", () => {
  expect(repeatedKey('{"a":{"b":"a"},"b":["a","a",{"a":1}],"c":"\\"a\\":"}')).toBeUndefined();
  expect(repeatedKey('[{"x":[{}],"y":{"q" :1,"q":2}}]')).toBe("q");
});

test("half and double precision become float32, and what does not fit is named", async () => {
  const halves = Buffer.from(Uint16Array.of(0x3c00, 0xc000, 0x0001, 0x7bff).buffer);
  const doubles = Buffer.from(Float64Array.of(0.1, 1e39).buffer);
  const tensors = {
    h: { dtype: "F16", shape: [4], data_offsets: [0, 8] },
    d: { dtype: "F64", shape: [2, 1], data_offsets: [8, 24] },
  };
  const { tensors: found } = await header(safetensors(tensors, Buffer.concat([halves, doubles])));
  const out = new Float32Array(4);
  await readFloats(path, found.get("h")!, out);
  expect([...out]).toEqual([1, -2, 2 ** -24, 65_504]);
  await expect(readFloats(path, found.get("d")!, new Float32Array(2))).rejects.toThrow("tensor d[1, 0] is Infinity");
});
