import { defineConfig } from "vitest/config";
import { Skipped } from "./test/skipped.ts";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    reporters: ["default", new Skipped()],
    globalSetup: ["test/build.ts"],
    // Two files at once: a run of the program waits more than it computes. No more: its engines take every core they get.
    maxWorkers: 2,
    setupFiles: ["test/same-draws.ts"],
    expect: { poll: { timeout: 60_000 } },
    testTimeout: 300_000,
    hookTimeout: 300_000,
  },
});
