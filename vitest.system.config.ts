// Tests against real programs that a laptop need not have: scripts/ci-*.sh install them and run one file each.
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/*/*.system.ts"],
    globalSetup: ["test/build.ts"],
    fileParallelism: false,
    expect: { poll: { timeout: 60_000 } },
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
