import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { mobyDick, openShakespeare } from "../../../coordinator/data/shakespeare.ts";
import { dataDir, shakespearePath, testWithShakespeare } from "../../text.ts";

let folder: string;
let server: Server | undefined;
let lines: string[];
const notify = (line: string): void => void lines.push(line);

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "weft-shakespeare-"));
  lines = [];
});
afterEach(async () => {
  server?.closeAllConnections();
  server?.close();
  server = undefined;
  await rm(folder, { recursive: true });
});

/** An address that answers with these bytes; without any it accepts and stays silent. */
async function serve(content?: Uint8Array): Promise<string> {
  server = createServer((_, response) => {
    if (content) response.end(content);
  });
  await new Promise<void>((resolve) => server!.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/input.txt`;
}

async function textOf(document: { pieces(): AsyncIterable<unknown> }): Promise<string> {
  let text = "";
  for await (const piece of document.pieces()) text += String(piece);
  return text;
}

testWithShakespeare("WEFT_DATA_DIR comes first, without a word", async () => {
  const document = await openShakespeare({ substitute: false, notify, environment: { WEFT_DATA_DIR: dataDir } });
  expect(document.name).toBe(shakespearePath);
  expect(lines).toEqual([]);
});

testWithShakespeare("a download is checked, kept, and found in the cache the next time", async () => {
  const environment = { XDG_CACHE_HOME: folder };
  const content = await readFile(shakespearePath);
  const first = await openShakespeare({ substitute: false, notify, environment, address: await serve(content) });
  expect(await textOf(first)).toBe(content.toString("utf8"));
  expect(content.equals(await readFile(join(folder, "weft", "tinyshakespeare.txt")))).toBe(true);
  expect(lines).toHaveLength(1);
  const address = "http://127.0.0.1:1/";
  const second = await openShakespeare({ substitute: false, notify, environment, address });
  expect(await textOf(second)).toBe(content.toString("utf8"));
  expect(lines).toHaveLength(1);
});

test("a damaged copy in the cache is not trusted", async () => {
  await mkdir(join(folder, "weft"));
  await writeFile(join(folder, "weft", "tinyshakespeare.txt"), "First Citizen?");
  const environment = { XDG_CACHE_HOME: folder };
  const address = "http://127.0.0.1:1/";
  await expect(openShakespeare({ substitute: false, notify, environment, address })).rejects.toThrow(
    /cannot be downloaded/,
  );
});

test("a wrong file in WEFT_DATA_DIR is refused by its digest", async () => {
  await writeFile(join(folder, "tinyshakespeare.txt"), "To be?");
  const environment = { WEFT_DATA_DIR: folder };
  await expect(openShakespeare({ substitute: true, notify, environment })).rejects.toThrow(
    /its sha256 is .*expected 86c4/,
  );
});

test("wrong bytes and silence are refused with the reason and the cure", async () => {
  const environment = { XDG_CACHE_HOME: folder };
  const wrong = { substitute: false, notify, environment, address: await serve(Buffer.from("Hello")) };
  await expect(openShakespeare(wrong)).rejects.toThrow(/sha256 of the 5 bytes.*WEFT_DATA_DIR/);
  server!.close();
  const silent = { ...wrong, address: await serve(), timeoutMs: 50 };
  await expect(openShakespeare(silent)).rejects.toThrow(/nothing came for 50 ms/);
});

test("where there is no network one line says so and Moby Dick takes its place", async () => {
  const environment = { XDG_CACHE_HOME: folder };
  const document = await openShakespeare({ substitute: true, notify, environment, address: "http://127.0.0.1:1/" });
  const text = await textOf(document);
  expect(text).toContain("Call me Ishmael. Some years ago--never mind how long precisely--");
  expect(lines[1]).toMatch(/cannot be downloaded .*Moby Dick takes its place/);
  expect(lines).toHaveLength(2);
});

test("Moby Dick is 1.19 million characters of plain ASCII", () => {
  const text = mobyDick();
  const characters = new Set(text);
  expect(characters.size).toBe(80);
  expect([...characters].every((character) => character === "\n" || /[ -~]/.test(character))).toBe(true);
  expect(text.length).toBeGreaterThan(1_190_000);
});
