#!/usr/bin/env bash
# What a person sees in a real terminal: tmux, Debian's package; and what zsh and fish make of their completion.
# WEFT_SCREENS=DIR keeps the screens as text.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! { command -v tmux && command -v zsh && command -v fish; } >/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends tmux zsh fish >/dev/null
fi
tmux -V
npx vitest run --config vitest.system.config.ts test/system/terminal.system.ts
npx vitest run test/cli/help.test.ts
