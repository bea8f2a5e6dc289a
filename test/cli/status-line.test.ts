// The terminal's last line against a small terminal of our own: what a person would see after each write.
import { expect, test } from "vitest";
import { durationText } from "../../cli/duration.ts";
import { type Progress, progressLine } from "../../cli/log.ts";
import { StatusLine } from "../../cli/status-line.ts";

/** Rows of a screen that understands what StatusLine writes: line breaks, \r, cursor up, erase below. */
function screenOf(columns: number) {
  const rows = [""];
  let [row, column] = [0, 0];
  return {
    columns,
    rows,
    write(text: string) {
      // biome-ignore lint/suspicious/noControlCharactersInRegex: a terminal's language
      for (const [piece] of text.matchAll(/\x1b\[(\d*)([AJ])|\r|\n|[^\x1b\r\n]/g)) {
        if (piece === "\n") {
          row++;
          column = 0;
          rows[row] ??= "";
        } else if (piece === "\r") column = 0;
        else if (piece.endsWith("A") && piece.startsWith("\x1b")) row -= Number(piece.slice(2, -1));
        else if (piece === "\x1b[J") {
          rows.length = row + 1;
          rows[row] = rows[row]!.slice(0, column);
        } else {
          rows[row] = rows[row]!.padEnd(column).slice(0, column) + piece;
          column++;
        }
      }
    },
  };
}

test("sentences stand above the line, the line is redrawn below them, and the prompt begins a row of its own", () => {
  const screen = screenOf(80);
  let now = 0;
  const line = new StatusLine(screen, () => now);
  line.say("data: a.txt");
  line.show(() => "1/10");
  line.show(() => "2/10"); // too soon to be drawn
  expect(screen.rows).toEqual(["data: a.txt", "1/10"]);
  line.say("worker cpu0 gone");
  expect(screen.rows).toEqual(["data: a.txt", "worker cpu0 gone", "2/10"]);
  now = 200;
  line.show(() => "9/10");
  line.show(() => "10/10");
  line.stop();
  line.stop();
  screen.write("$ ");
  expect(screen.rows).toEqual(["data: a.txt", "worker cpu0 gone", "10/10", "$ "]);
});

test("a line that is not kept leaves nothing, and one that a narrower window wrapped is erased whole", () => {
  const screen = screenOf(40);
  const line = new StatusLine(screen, () => 0);
  line.show((columns) => "x".repeat(columns));
  expect(screen.rows).toEqual(["x".repeat(36)]);
  // The window now has 20 columns: the terminal has wrapped the 36 characters into two rows, the cursor in the second.
  screen.rows.splice(0, 1, "x".repeat(20), "x".repeat(16));
  Object.assign(screen, { columns: 20 });
  screen.write("\n".repeat(1));
  screen.rows.pop();
  line.say("above");
  expect(screen.rows).toEqual(["above", "x".repeat(16)]);
  line.stop(false);
  expect(screen.rows).toEqual(["above", ""]);
});

const progress: Progress = {
  step: 1562,
  steps: 2000,
  lossNats: 1.83234,
  valLossNats: 1.96415,
  tokensPerSec: 57_503.4,
  workers: 2,
  etaSeconds: 239.9,
};

test("speed and time left are never cut", () => {
  expect(progressLine(progress, 200)).toBe(
    `${"█".repeat(19)}${"░".repeat(5)} 1562/2000 | loss 1.8323, validation 1.9642 | 57,503 tokens/s | 2 workers | 4 min 00 s left`,
  );
  for (let columns = 36; columns <= 200; columns++) {
    const line = progressLine({ ...progress, step: 599_999, steps: 600_000, etaSeconds: 1e6 }, columns);
    expect(line.length).toBeLessThanOrEqual(Math.max(columns, 46));
    expect(line).toContain("57,503 tokens/s");
    expect(line).toContain("11 d 14 h left");
  }
  expect(progressLine({ ...progress, workers: 1 }, 200)).toContain("| 1 worker |");
});

test("no minute has sixty seconds, no hour sixty minutes", () => {
  const shown = [0, 59.4, 59.6, 239.9, 3599.7, 3600, 86_399, 1e6].map(durationText);
  expect(shown).toEqual([
    "0 s",
    "59 s",
    "1 min 00 s",
    "4 min 00 s",
    "1 h 00 min",
    "1 h 00 min",
    "1 d 0 h",
    "11 d 14 h",
  ]);
  expect(durationText(Number.POSITIVE_INFINITY)).toBe("unknown");
});
