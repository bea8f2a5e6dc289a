#!/usr/bin/env bash
# Hostile peers against a live run of real processes: 100,000 messages and frames, 20,000 HTTP requests, idle and slow
# connections. `npm run fuzz:live` sends a million.
set -euo pipefail
cd "$(dirname "$0")/.."
FUZZ_MESSAGES="${FUZZ_MESSAGES:-100000}" FUZZ_REQUESTS="${FUZZ_REQUESTS:-20000}" \
  npx vitest run --config vitest.system.config.ts test/fuzz/live.system.ts --testTimeout 1800000
