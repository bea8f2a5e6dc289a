#!/usr/bin/env bash
# Weft's readers against the libraries whose files they read: safetensors, NumPy and Python's own pickle, all of PyPI and
# of Debian's Python. Thousands of mutated files: what Weft reads, the library reads to the same values.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v python3 >/dev/null || { apt-get update -qq && apt-get install -y -qq python3 python3-venv >/dev/null; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/python" 2>/dev/null || { apt-get install -y -qq python3-venv >/dev/null && python3 -m venv "$work/python"; }
"$work/python/bin/pip" install -q "safetensors==0.8.0" "numpy==2.4.6"

for reader in safetensors tokens meta-pkl; do
  npm run -s fuzz -- --reader "$reader" --seed "${1:-7}" --runs "${2:-4000}" --dump "$work/$reader"
  "$work/python/bin/python" scripts/check-readers.py "$reader" "$work/$reader"
done
