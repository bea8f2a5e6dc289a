#!/usr/bin/env bash
# What Weft writes opens in the real transformers with the same logits, and the other way round. Debian's python3-torch
# keeps the download small; transformers 4.46 is the last that runs on it. 1 to 4 minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! /usr/bin/python3 -c "import torch, ensurepip" 2>/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-torch python3-venv >/dev/null
fi
venv="${WEFT_TRANSFORMERS_VENV:-${TMPDIR:-/tmp}/weft-transformers}"
if ! "$venv/bin/python" -c "import transformers" 2>/dev/null; then
  /usr/bin/python3 -m venv --system-site-packages "$venv"
  "$venv/bin/pip" install -q "transformers>=4.46,<4.47"
fi
WEFT_TRANSFORMERS_PYTHON="$venv/bin/python" npx vitest run --config vitest.system.config.ts test/system/transformers.system.ts
