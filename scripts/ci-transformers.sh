#!/bin/sh
# Proves with the real transformers that what Weft writes opens there with the same logits, and the other way round.
# Debian's python3-torch keeps the download small; transformers 4.46 is the last that runs on it.
set -eu
cd "$(dirname "$0")/.."
venv=${WEFT_TRANSFORMERS_VENV:-${TMPDIR:-/tmp}/weft-transformers}
if ! "$venv/bin/python" -c "import torch, transformers" 2>/dev/null; then
  if ! /usr/bin/python3 -c "import torch" 2>/dev/null; then
    apt-get install -y -q --no-install-recommends python3-torch python3-venv
  fi
  /usr/bin/python3 -m venv --system-site-packages "$venv"
  "$venv/bin/pip" install -q "transformers>=4.46,<4.47"
fi
WEFT_TRANSFORMERS_PYTHON=$venv/bin/python exec npx vitest run test/transformers.test.ts
