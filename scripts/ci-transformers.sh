#!/usr/bin/env bash
# What Weft writes opens in the real transformers with the same logits, ids and text, and the other way round. Debian's
# python3-torch keeps the download small; transformers 4.46 is the last that runs on it, the newest reads tokenizers
# without it. 3 to 8 minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! /usr/bin/python3 -c "import torch, ensurepip" 2>/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-torch python3-venv >/dev/null
fi
venvs="${WEFT_TRANSFORMERS_VENV:-${TMPDIR:-/tmp}/weft-transformers}"
# environment NAME REQUIREMENT [venv option]: made once
environment() {
  if ! "$venvs-$1/bin/python" -c "import transformers" 2>/dev/null; then
    /usr/bin/python3 -m venv ${3:-} "$venvs-$1"
    "$venvs-$1/bin/pip" install -q "$2"
  fi
}
environment 4.38 "transformers==4.38.2" --system-site-packages
environment 4.46 "transformers==4.46.3" --system-site-packages
environment newest "transformers==5.24.0"

system() { npx vitest run --config vitest.system.config.ts "$1"; }
for version in 4.38 4.46; do
  WEFT_TRANSFORMERS_PYTHON="$venvs-$version/bin/python" system test/system/transformers.system.ts
done
WEFT_TOKENIZER_PYTHONS="$venvs-4.38/bin/python $venvs-newest/bin/python" system test/system/tokenizers.system.ts
# Every feature of tokenizer files against the tokenizers library itself.
WEFT_ORACLE_STRINGS=${WEFT_ORACLE_STRINGS:-20000} npx vitest run test/shared/tokenizers/oracle.test.ts
