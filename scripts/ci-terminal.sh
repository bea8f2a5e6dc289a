#!/usr/bin/env bash
# What a person sees in a real terminal: tmux, Debian's package. WEFT_SCREENS=DIR keeps the screens as text.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v tmux >/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends tmux >/dev/null
fi
tmux -V
npx vitest run --config vitest.system.config.ts test/system/terminal.system.ts
