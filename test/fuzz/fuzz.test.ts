// The short form: some hundred mutations of each reader's files. The campaign is npm run fuzz.
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { emptyFolder, fuzzOnce, tryReading } from "./harness.ts";
import { readers } from "./readers.ts";

describe.each(readers.map((reader) => [reader.name, reader] as const))("%s", (name, reader) => {
  test("valid files are read", async () => {
    const folder = await emptyFolder(join(tmpdir(), `weft-fuzz-${process.pid}-${name}`));
    for (const { files, target } of reader.seeds)
      expect(await tryReading(reader, folder, files, target), target).toHaveProperty("value");
  });

  test("mutations are refused in one line, or read to the reference's values", async () => {
    const folder = await emptyFolder(join(tmpdir(), `weft-fuzz-${process.pid}-${name}`));
    let refused = 0;
    for (let run = 0; run < 200; run++) {
      const { outcome, failure } = await fuzzOnce(reader, folder, 2026, run);
      expect(failure).toBeUndefined();
      if ("refused" in outcome) refused++;
    }
    expect(refused).toBeGreaterThan(50);
    expect(refused).toBeLessThan(200);
  });
});
