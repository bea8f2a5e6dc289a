// Tiny Shakespeare for tests: WEFT_DATA_DIR, or shared/data beside the checkout. Never part of the repository.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { testWhere } from "./where.ts";

export const dataDir = process.env.WEFT_DATA_DIR ?? join(import.meta.dirname, "../../shared/data");
export const shakespearePath = join(dataDir, "tinyshakespeare.txt");

export const testWithShakespeare = testWhere(existsSync(shakespearePath), "tinyshakespeare.txt in WEFT_DATA_DIR");
