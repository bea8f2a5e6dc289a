// What can go wrong between Weft and a plugin of XLA, each with its message: plugins are shared objects made here.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { EngineError } from "../../../shared/errors.ts";
import { compileOptions } from "../../../worker/engine/xla/compile-options.ts";
import { pluginFor } from "../../../worker/engine/xla/engine.ts";
import { xla } from "../../../worker/engine/xla/kind.ts";
import { openClient, openPlugin } from "../../../worker/engine/xla/pjrt.ts";
import { findCompiler, run } from "../../../worker/install/tools.ts";
import { addonFile } from "../../../worker/install/xla-addon.ts";
import type { XlaPlugin } from "../../../worker/install/xla-plugin.ts";

const asked = process.env.WEFT_XLA_PLUGIN;
afterEach(() => {
  if (asked === undefined) delete process.env.WEFT_XLA_PLUGIN;
  else process.env.WEFT_XLA_PLUGIN = asked;
});

test("a plugin that is named and not there is no reason to take another", async () => {
  process.env.WEFT_XLA_PLUGIN = "/nowhere/plugin.so";
  const { usable, why } = await xla.probe({ device: "cpu" });
  expect(usable).toBe(false);
  expect(why).toBe("xla: WEFT_XLA_PLUGIN: there is no file /nowhere/plugin.so");
});

describe.skipIf(!addonFile())("a plugin (skipped without the addon: weft install xla)", () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "weft-plugin-"));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  async function pluginOf(source: string): Promise<XlaPlugin> {
    const file = join(folder, `${Math.random().toString(36).slice(2)}.so`);
    writeFileSync(`${file}.cpp`, source);
    const made = await run(await findCompiler(), ["-shared", "-fPIC", "-o", file, `${file}.cpp`]);
    expect(made.status, made.stderr).toBe(0);
    return { file, gpu: false, identity: "test" };
  }

  test.each([
    ["that is no library", "", /file too short|invalid ELF header/],
    ["without PJRT", "int nothing;", /is no PJRT plugin: it has no GetPjrtApi/],
    ["that lacks a library of its own", "int missing(); int use = missing();", /undefined symbol: .*missing/],
    [
      "of another major version",
      'long api[999] = {8000, 0, 24, 0, 7L}; extern "C" void* GetPjrtApi() { return api; }',
      /speaks version 7\.0 of the PJRT API.*needed are version 0 and at least \d+ bytes/,
    ],
    [
      "that is too old to have all functions",
      'long api[999] = {80, 0, 24, 0, 5L << 32}; extern "C" void* GetPjrtApi() { return api; }',
      /speaks version 0\.5 of the PJRT API, which has 80 bytes of functions/,
    ],
  ])("%s", async (_, source, message) => {
    const plugin = await pluginOf(source);
    if (source === "") writeFileSync(plugin.file, "");
    const opening = openPlugin(plugin);
    await expect(opening).rejects.toThrow(message);
    await expect(opening).rejects.toThrow(EngineError);
  });
});

describe.skipIf(!(await xla.probe({ device: "cpu" })).usable)(
  "XLA (skipped without it: weft install xla --cpu)",
  () => {
    const client = () => openClient(pluginFor({ device: "cpu" })!, { cpu_device_count: 1 });

    test("a bad program and bad options bring XLA's words", async () => {
      const { pjrt, handle } = await client();
      await expect(pjrt.compile(handle, "module {", compileOptions({}))).rejects.toThrow(/error: expected/);
      const nothing = "func.func public @main(%0: tensor<f32>) -> tensor<f32> { return %0 : tensor<f32> }";
      await expect(pjrt.compile(handle, nothing, compileOptions({ no_such_flag: true }))).rejects.toThrow(
        /no_such_flag/,
      );
      await expect(pjrt.compile(handle, nothing, Uint8Array.of(255))).rejects.toThrow();
    });

    test("memory that is not there is RESOURCE_EXHAUSTED, and the next call computes", async () => {
      const { pjrt, handle } = await client();
      const program = (size: number) =>
        `func.func public @main(%0: tensor<f32>) -> tensor<${size}xf32> { %1 = stablehlo.broadcast_in_dim %0, dims = [] : (tensor<f32>) -> tensor<${size}xf32> return %1 : tensor<${size}xf32> }`;
      const [large, small] = await Promise.all(
        [2 ** 38, 2].map((size) => pjrt.compile(handle, program(size), compileOptions({}))),
      );
      const one = await pjrt.upload(handle, Float32Array.of(1), [], 0);
      const failed = await pjrt.execute(large!, [one], 0).catch((error: unknown) => error);
      expect(failed).toMatchObject({ message: "Out of memory allocating 1099511627776 bytes.", xlaCode: 8 });
      const [sum] = await pjrt.execute(small!, [one], 0);
      const out = new Float32Array(2);
      await pjrt.download(sum!, out);
      expect([...out]).toEqual([1, 1]);
      await expect(pjrt.download(sum!, new Float32Array(3))).rejects.toThrow("a buffer of 8 bytes into one of 12");
      await expect(pjrt.execute(small!, [one], 7)).rejects.toThrow("device 7 of 1");
    });

    test("what is no handle, or was released, is refused", async () => {
      const { pjrt, handle } = await client();
      const buffer = await pjrt.upload(handle, Float32Array.of(1), [1], 0);
      await pjrt.release([buffer]);
      await pjrt.release([buffer]);
      expect(() => pjrt.download(buffer, new Float32Array(1))).toThrow("this buffer was released");
      expect(() => pjrt.download(handle as never, new Float32Array(1))).toThrow("expected a buffer");
      expect(() => pjrt.upload(handle, Float32Array.of(1, 2), [3], 0)).toThrow("2 of them do not fill a shape of 3");
      expect(() => pjrt.upload(handle, new Float64Array(1) as never, [1], 0)).toThrow("32-bit");
    });

    test("the event loop turns while XLA compiles", async () => {
      const { pjrt, handle } = await client();
      const lines = Array.from({ length: 500 }, (_, i) => `%${i + 1} = stablehlo.sine %${i} : tensor<64xf32>`);
      const program = `func.func public @main(%0: tensor<64xf32>) -> tensor<64xf32> {\n${lines.join("\n")}\nreturn %500 : tensor<64xf32> }`;
      let turns = 0;
      let done = false;
      const compiling = pjrt.compile(handle, program, compileOptions({})).finally(() => {
        done = true;
      });
      while (!done) {
        await new Promise((resolve) => setImmediate(resolve));
        turns++;
      }
      await compiling;
      expect(turns).toBeGreaterThan(20);
    });
  },
);
