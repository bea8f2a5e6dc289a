// Others' words reach a terminal or a log as text that can be seen: nothing in them sets a title, clears the screen,
// writes the clipboard, or poses as a line of ours.
import { readdirSync, readFileSync } from "node:fs";
import { cp, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterAll, afterEach, expect, test, vi } from "vitest";
import { createLog } from "../../cli/log.ts";
import { ModelText, onOneLine, printable } from "../../cli/terminal.ts";
import { killAll, temporary, text, weft } from "../system/weft.ts";

afterAll(killAll);
afterEach(() => {
  vi.restoreAllMocks();
});

const title = "\u001b]0;owned\u0007";
const clipboard = "\u009d52;c;b3duZWQ=\u009c";
const attack = `a${title}${clipboard}\u202etxt.exe\u2028b\u007f`;
const obeyed = /(?![\n\t])[\p{Cc}\u2028\u202e]/u;

test("what a terminal obeys is shown as its escape, the rest stays", () => {
  expect(printable(attack)).toBe("a\\u001b]0;owned\\u0007\\u009d52;c;b3duZWQ=\\u009c\\u202etxt.exe\\u2028b\\u007f");
  expect(printable("naïve\n\t👩‍👩‍👧 سلام 字")).toBe("naïve\n\t👩‍👩‍👧 سلام 字");
  expect(onOneLine(" one\r\n  two\nthree\u001b[2J\t")).toBe("one two three\\u001b[2J");
  expect(JSON.parse(printable(JSON.stringify({ attack })))).toEqual({ attack });
});

test("a log line, on a terminal and elsewhere", () => {
  const written: string[] = [];
  vi.spyOn(process.stderr, "write").mockImplementation((data) => written.push(String(data)) > 0);
  const isTTY = Object.getOwnPropertyDescriptor(process.stderr, "isTTY");
  Object.defineProperty(process.stderr, "isTTY", { value: true, configurable: true });
  try {
    createLog("test").log.warn(`worker ${attack}\nfinished 2000 steps joined`);
  } finally {
    if (isTTY) Object.defineProperty(process.stderr, "isTTY", isTTY);
    else Reflect.deleteProperty(process.stderr, "isTTY");
  }
  expect(written.join("")).toMatch(/^warning: worker a\\u001b.* finished 2000 steps joined\n$/);
  expect(written.join("")).not.toMatch(obeyed);
});

test("a model's text comes piece by piece; line breaks and tabs stay, --raw leaves everything", () => {
  const written: string[] = [];
  vi.spyOn(process.stdout, "write").mockImplementation((data) => written.push(String(data)) > 0);
  const pieces = ["a\r", "\nb\t", "\r", "c", title, "\r\n\r"];
  for (const raw of [false, true]) {
    const shown = new ModelText(raw);
    for (const piece of pieces) shown.write(piece);
    shown.end();
  }
  expect(written.join("")).toBe(`a\r\nb\t\\u000dc\\u001b]0;owned\\u0007\r\n\\u000d\n${pieces.join("")}\n`);
});

test("the commands write through terminal.ts alone", () => {
  const folder = join(import.meta.dirname, "../../cli");
  const own = ["terminal.ts", "log.ts", "progress.ts", "status-line.ts"];
  const writers = readdirSync(folder).filter(
    (name) =>
      !own.includes(name) &&
      /console\.|process\.std(out|err)\.write\((?!printable\()/.test(readFileSync(join(folder, name), "utf8")),
  );
  expect(writers).toEqual([]);
});

test("a server's error, a tokenizer's strings and a prompt, seen by a real terminal's eyes", async () => {
  const directory = temporary();
  const server = createServer((_, response) => response.writeHead(418).end(`${attack}\nweft: all is well`)).listen(0);
  await new Promise((resolve) => server.once("listening", resolve));
  const pull = weft([
    "pull",
    "--from",
    `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    "--out",
    directory,
  ]);
  expect(await pull.ended).toBe(1);
  server.close();
  expect(pull.stderr()).toMatch(/^http:\S+: a\\u001b.* weft: all is well\n$/);
  expect(pull.stderr()).not.toMatch(obeyed);

  const run = join(directory, "run");
  const small = [
    "--block-size",
    "8",
    "--n-layer",
    "1",
    "--n-head",
    "1",
    "--n-embd",
    "8",
    "--steps",
    "1",
    "--port",
    "0",
  ];
  const trained = weft(["train", "--data", text, ...small, "--workers", "1", "--sample-tokens", "0", "--out", run]);
  expect(await trained.ended, trained.stderr()).toBe(0);
  // A folder without a manifest is a Hugging Face model, whose tokenizer may say anything.
  const model = join(directory, "model");
  await cp(join(run, "step-000001"), model, { recursive: true, filter: (path) => !path.endsWith("manifest.json") });
  const file = join(model, "weft-tokenizer.json");
  const tokenizer = JSON.parse(await readFile(file, "utf8")) as { tokens: string[] };
  tokenizer.tokens[tokenizer.tokens.indexOf("e")] = "\u001b";
  await writeFile(file, JSON.stringify(tokenizer));
  for (const [flags, sees] of [
    [[], false],
    [["--raw"], true],
  ] as const) {
    const sample = weft(["sample", "--model", model, "--prompt", "\u001b", "--tokens", "20", ...flags]);
    expect(await sample.ended, sample.stderr()).toBe(0);
    expect(sample.stdout().startsWith(sees ? "\u001b" : "\\u001b")).toBe(true);
    expect(obeyed.test(sample.stdout())).toBe(sees);
  }
});
