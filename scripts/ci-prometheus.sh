#!/usr/bin/env bash
# The files of deploy/ against the real Prometheus: Debian's package, scraping a real run with two workers.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! { command -v prometheus && command -v promtool; } >/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus >/dev/null
fi
prometheus --version 2>&1 | head -n 1
npx vitest run --config vitest.system.config.ts test/system/prometheus.system.ts
