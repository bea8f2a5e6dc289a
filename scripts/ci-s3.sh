#!/usr/bin/env bash
# Checkpoints and data in a real object store: versitygw, a gateway that checks signatures and keeps objects as files,
# built through the Go module proxy. 1 to 4 minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

tools="${WEFT_TOOLS:-${TMPDIR:-/tmp}/weft-tools}"
if [ ! -x "$tools/versitygw" ]; then
  GOBIN="$tools" GOFLAGS=-mod=mod go install github.com/versity/versitygw/cmd/versitygw@v1.8.0
fi
WEFT_VERSITYGW="$tools/versitygw" npx vitest run --config vitest.system.config.ts test/system/store.system.ts
