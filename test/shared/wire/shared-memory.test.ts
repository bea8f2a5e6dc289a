import { spawnSync } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { expect } from "vitest";
import { nativeAddon } from "../../../shared/arithmetic/native.ts";
import { openSharedVector, SharedVector } from "../../../shared/wire/shared-memory.ts";
import { testWhere } from "../../where.ts";

const there = testWhere(nativeAddon()?.createShared !== undefined, "the native addon, to share memory");

there("what one writes the other reads, both ways", () => {
  const vector = SharedVector.create(1000)!;
  const reader = openSharedVector(vector.address, 1000, false)!;
  const writer = openSharedVector(vector.address, 1000, true)!;
  expect(reader).toEqual(new Float32Array(1000));
  vector.values[0] = 1;
  writer[999] = 2;
  expect([reader[0], reader[999], vector.values[999]]).toEqual([1, 2, 2]);
  expect(reader.byteOffset % 64).toBe(0);
  vector.close();
  vector.close();
  expect(openSharedVector(vector.address, 1000, false)).toBeUndefined();
  vector.values[1] = 3;
  expect(reader[1]).toBe(3);
});

there("another process reads it", () => {
  const vector = SharedVector.create(10)!;
  vector.values.fill(0.5);
  const compiled = pathToFileURL(join(import.meta.dirname, "../../../dist/shared/wire/shared-memory.js"));
  const program = `import { openSharedVector } from "${compiled}";
    const values = openSharedVector(${JSON.stringify(vector.address)}, 10, true);
    console.log(values.reduce((a, b) => a + b));
    values[3] = 7;`;
  const { stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", program], { encoding: "utf8" });
  expect(stdout, stderr).toBe("5\n");
  expect(vector.values[3]).toBe(7);
  vector.close();
});

there("memory that the system does not give is none, and ends nothing", () => {
  expect(SharedVector.create(2 ** 50)).toBeUndefined();
  // Node.js 20 takes no more than 4 GiB.
  expect(SharedVector.create(2 ** 30)?.values.length ?? 2 ** 30).toBe(2 ** 30);
  expect(SharedVector.create(10)).toBeDefined();
});

there("what is something else is out of reach", () => {
  const vector = SharedVector.create(10)!;
  const { path, key } = vector.address;
  expect(openSharedVector({ path, key }, 11, false)).toBeUndefined();
  expect(openSharedVector({ path, key: key.replaceAll(/./g, "0") }, 10, false)).toBeUndefined();
  expect(openSharedVector({ path: "/proc/self/../1/fd/1", key }, 10, false)).toBeUndefined();
  const file = openSync(import.meta.filename, "r");
  expect(() => nativeAddon()!.openShared!(`/proc/self/fd/${file}`, 104, false)).toThrow(/none of 104 bytes/);
  closeSync(file);
  expect(() => nativeAddon()!.openShared!("/proc/self/fd/99999", 104, false)).toThrow(
    /cannot be opened \(No such file/,
  );
  expect(() => nativeAddon()!.createShared!(0)).toThrow(/positive integer/);
  vector.close();
});
