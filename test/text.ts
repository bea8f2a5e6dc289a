// Tiny Shakespeare for tests: WEFT_DATA_DIR, or shared/data beside the checkout. Never part of the repository.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { test } from "vitest";

export const dataDir = process.env.WEFT_DATA_DIR ?? join(import.meta.dirname, "../../shared/data");
const path = join(dataDir, "tinyshakespeare.txt");

/** `test` where the text is there; else a named skip on a laptop and a failure in CI. */
export const testWithShakespeare = existsSync(path) || process.env.CI ? test : (test.skip as typeof test);

if (!existsSync(path)) console.warn(`skipped: ${path} is missing; put tinyshakespeare.txt into WEFT_DATA_DIR`);

export const shakespearePath = path;
