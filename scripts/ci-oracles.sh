#!/usr/bin/env bash
# test/oracles is what test/oracles/make.py makes of it with Debian's PyTorch. Half a minute; with the argument --all
# nanoGPT's 2,000 steps as well, ten minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! /usr/bin/python3 -c 'import torch' 2>/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-torch libopenblas0-pthread >/dev/null
fi
all=()
[ "${1:-}" != --all ] || all=(--shakespeare "${WEFT_DATA_DIR:?names the folder of tinyshakespeare.txt}/tinyshakespeare.txt")
/usr/bin/python3 test/oracles/make.py "${all[@]}"
