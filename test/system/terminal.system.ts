// The commands in a real terminal, on a small and a large screen: sentences, bar, results and prompt stay apart.
import { execFileSync } from "node:child_process";
import { rmSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { type Terminal, terminal } from "./tmux.ts";
import { temporary, text } from "./weft.ts";

const program = join(import.meta.dirname, "../../dist/cli/weft.js");
const directory = temporary();
let runs = 0;
afterAll(() => rmSync(directory, { recursive: true }));

/** A small run in a folder of its own. */
const train = (more: string): string =>
  `node ${program} train --data ${text} --block-size 32 --n-layer 2 --n-head 2 --n-embd 64 --batch-size 8 --eval-windows 8 ` +
  `--port 0 --eval-sample-tokens 20 --sample-tokens 20 --out ${directory}/run-${++runs} ${more}`;

const [left, bar] = [/(\d+ (s|min \d\d s)|\d+ h \d\d min|\d+ d \d+ h) left|done/, /^[█░]+ |^\d+\/\d+ \| /];
const step = /^(?:[█░]+ )?(\d+)\/\d+ \| .*tokens\/s/;

/** What a line above the bar may be, where none is wrapped. */
const sentences = [
  /^(data|model|memory|dashboard): /,
  /^sample after step \d+: /,
  /^[\d,]+ tokens\/s: \d+ steps more take about /,
  /^cpu\d: /,
  /^(warning: )?worker \S+ (joined|gone|refused|ends|is on probation)/,
  / computes it too$/,
  /^checkpoint /,
  /^stopping after step \d+: SIGINT$/,
];

function barLines(lines: readonly string[]): string[] {
  return lines.filter((line) => bar.test(line));
}

/** The lines after the command: each is a sentence, the one bar, or a result after it. */
function check(lines: readonly string[], columns: number): void {
  const bars = barLines(lines);
  expect(bars, lines.join("\n")).toHaveLength(1);
  expect(bars[0]).toMatch(/tokens\/s/);
  expect(bars[0]).toMatch(left);
  expect(bars[0]!.length).toBeLessThanOrEqual(columns);
  // The bar's characters stand nowhere else: no sentence has been written into it, nor it into a sentence.
  expect(lines.filter((line) => /[█░]|\d+\/\d+ \|/.test(line))).toEqual(bars);
}

/** The screen from the last command on. */
function afterCommand(screen: Terminal): string[] {
  const lines = screen.lines();
  const start = lines.findLastIndex((line) => line.startsWith("$ node "));
  const rest = lines.slice(start);
  return rest.slice(rest.findIndex((line) => /^(data|config): |^port /.test(line)));
}

test.each([
  [80, 24],
  [200, 50],
])("start, middle and end on %i x %i", async (columns, rows) => {
  using screen = await terminal(columns, rows);
  const name = (what: string): string => `${columns}x${rows}-${what}`;
  // The screen is full before the start: whatever is written scrolls it.
  screen.type(`seq ${rows}`);
  await screen.until(new RegExp(`^${rows}$`, "m"));
  screen.type(train("--steps 600 --eval-interval 200 --checkpoint-interval 200"));
  await screen.until(/worker cpu\d joined/);
  screen.keep(name("start"));
  await screen.until(/\/600 \|/);
  check(afterCommand(screen), columns);
  await screen.until(/checkpoint \S+step-000400/);
  screen.keep(name("middle"));
  check(afterCommand(screen), columns);
  await screen.until(/^sample: {5}node .* sample --checkpoint/m);
  await screen.until(/\n\$$/);
  screen.keep(name("end"));
  const lines = afterCommand(screen);
  check(lines, columns);
  const at = (pattern: RegExp): number => lines.findIndex((line) => pattern.test(line));
  expect(barLines(lines)[0]).toMatch(/ 600\/600 \| .*tokens\/s.*\| done$/);
  // The bar's validation loss is the summary's.
  const said = /validation loss ([\d.]+)/.exec(lines[at(/^training loss/)]!)?.[1];
  if (columns > 80) expect(barLines(lines)[0]).toContain(`validation ${said}`);
  const above = lines.slice(0, at(bar));
  if (columns > 80) expect(above.filter((line) => !sentences.some((known) => known.test(line)))).toEqual([]);
  expect(at(bar)).toBeLessThan(at(/^finished 600 steps in .*, 153,600 tokens, [\d,]+ tokens\/s$/));
  expect(lines.filter((line) => /[\u2801-\u28ff]/.test(line)).length).toBeGreaterThan(3);
  expect(at(/^finished/)).toBeLessThan(at(/^checkpoint: \S+step-000600$/));
  expect(lines.at(-1)).toBe("$");
});

test.each([
  [80, 24],
  [200, 50],
])("Ctrl-C on %i x %i ends the line before the prompt", async (columns, rows) => {
  using screen = await terminal(columns, rows);
  screen.type(train("--steps 1000000 --eval-interval 0 --checkpoint-interval 0"));
  await screen.until(/\/1000000 \|/);
  await screen.until(/\d{2,}\/1000000 \|/);
  screen.press("C-c");
  await screen.until(/\n\$$/);
  screen.keep(`${columns}x${rows}-interrupted`);
  const lines = afterCommand(screen);
  check(lines, columns);
  const done = step.exec(barLines(lines)[0]!)![1];
  const at = (pattern: RegExp): number => lines.findIndex((line) => pattern.test(line));
  expect(at(new RegExp(`^stopping after step ${done}: SIGINT$`))).toBeLessThan(at(bar));
  expect(at(new RegExp(`^stopped after ${done} steps in `))).toBeGreaterThan(at(bar));
  expect(at(/^to go on: {3}.* train --resume --out \S+$/)).toBeGreaterThan(0);
  expect(lines.at(-1)).toBe("$");
});

test("two Ctrl-C end at once, and the prompt still has a line of its own", async () => {
  using screen = await terminal(80, 24);
  screen.type(train("--steps 1000000"));
  await screen.until(/\d{2,}\/1000000 \|/);
  screen.press("C-c");
  screen.press("C-c");
  await screen.until(/\n\$$/);
  expect(afterCommand(screen).at(-1)).toBe("$");
});

test.each([
  [80, 24],
  [200, 50],
])("a worker that is lost on %i x %i is a sentence above the bar", async (columns, rows) => {
  using screen = await terminal(columns, rows);
  screen.type(train("--steps 1000000 --eval-interval 0"));
  await screen.until(/worker cpu1 joined/);
  await screen.until(/\d{2,}\/1000000 \|/);
  const worker = execFileSync("ps", ["-eo", "pid,args"], { encoding: "utf8" })
    .split("\n")
    .find((line) => line.includes(`${program} worker`) && line.includes("--name cpu1") && !line.includes("taskset"));
  process.kill(Number(worker!.trim().split(" ")[0]), "SIGKILL");
  await screen.until(/worker cpu1 gone/);
  await screen.until(/worker cpu1 gone[\s\S]*worker cpu1 joined/);
  screen.keep(`${columns}x${rows}-worker-lost`);
  check(afterCommand(screen), columns);
  screen.press("C-c");
  await screen.until(/\n\$$/);
  check(afterCommand(screen), columns);
});

test.each([
  [80, 24],
  [200, 50],
])("a refusal on %i x %i is one sentence, and the prompt", async (columns, rows) => {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as { port: number };
  using screen = await terminal(columns, rows);
  screen.type(train(`--port ${port}`));
  await screen.until(/is in use[\s\S]*\n\$$/);
  screen.keep(`${columns}x${rows}-refusal`);
  const words = (text: string): string => text.replaceAll(/\s/g, "");
  expect(words(screen.lines().join(""))).toContain(
    words(`config: port ${port} on 127.0.0.1 is in use; choose another with --port, or 0 for any free one`),
  );
  expect(screen.lines().join("\n")).not.toMatch(/\bat .*\.js:\d/);
  server.close();
});

test("a window that is made narrower gets a bar that fits it", async () => {
  using screen = await terminal(160, 30);
  screen.type(train("--steps 1000000 --eval-interval 0"));
  await screen.until(/\d{2,}\/1000000 \|/);
  screen.resize(70, 20);
  await screen.until(/^\d{3,}\/1000000 \| .*left$/m);
  // A draw between the window's change and the program's hearing of it may leave the half that was wrapped.
  expect(barLines(afterCommand(screen)).filter((line) => line.endsWith("left"))).toHaveLength(1);
  screen.press("C-c");
  await screen.until(/\n\$$/);
});

test("weft sample without a prompt is a conversation; through a pipe it is one text as before", async () => {
  using screen = await terminal(100, 40);
  screen.type(train("--steps 20 --workers 1 2>&1 | tail -n 2"));
  await screen.until(/sample: +.* sample --checkpoint/);
  const sample = `node ${program} sample --checkpoint ${directory}/run-${runs} --tokens 12`;
  screen.type(sample);
  await screen.until(/\n> *$/);
  screen.type("const ");
  await screen.until(/> const *\n[\s\S]*\n> *$/);
  screen.type("/nothing");
  await screen.until(/there is no \/nothing; \/help says what there is\n> *$/);
  screen.type("§");
  await screen.until(/"§"[\s\S]*\n> *$/);
  screen.type("/reset");
  screen.type("/help");
  await screen.until(/forget what was written[\s\S]*\n> *$/);
  screen.press("C-d");
  await screen.until(/\n\$ *$/);
  screen.type(`${sample} 2> /dev/null < /dev/null | wc -c`);
  await screen.until(/\n\d+\n\$ *$/);
});
