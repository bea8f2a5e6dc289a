import { defineConfig } from "vitest/config";
import { Skipped } from "./test/skipped.ts";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    reporters: ["default", new Skipped()],
    globalSetup: ["test/build.ts"],
    // The engines use every core they are given: files one after another keep timings and memory honest.
    fileParallelism: false,
    testTimeout: 300_000,
    hookTimeout: 300_000,
  },
});
