#!/usr/bin/env bash
# TensorFlow for real: `weft install tensorflow` from a clean cache, once more to see that it does nothing, and then
# the contract suite, the PyTorch oracles and nanoGPT's first losses, through two worker processes, on the library that it
# built. Needs pip and a C++ compiler; 2 minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
export WEFT_DATA_DIR="${WEFT_DATA_DIR:-$PWD/../shared/data}"

cache="$(mktemp -d)"
trap 'rm -rf "$cache"' EXIT
export WEFT_CACHE_DIR="$cache" WEFT_REQUIRE_TENSORFLOW=1 CUDA_VISIBLE_DEVICES=-1

npm run --silent build
node dist/cli/weft.js install tensorflow
again="$(node dist/cli/weft.js install tensorflow)"
echo "$again"
[[ "$again" == *"nothing to do"* ]] || { echo "the second install did something" >&2; exit 1; }

npx vitest run test/worker/engine/engine.tensorflow.test.ts test/system/nanogpt.test.ts -t TensorFlow
