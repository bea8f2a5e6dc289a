// The version of this program, from the one place where it stands.
import { readFileSync } from "node:fs";
import { z } from "zod";

// package.json lies one folder up from the sources, two from dist/shared.
const candidates = ["../package.json", "../../package.json"];

export const weftVersion: string = (() => {
  for (const candidate of candidates) {
    try {
      const text = readFileSync(new URL(candidate, import.meta.url), "utf8");
      return z.object({ name: z.literal("weft"), version: z.string() }).parse(JSON.parse(text)).version;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    }
  }
  throw new Error(`no package.json of weft beside ${import.meta.url}`);
})();
