#!/usr/bin/env bash
# XLA for real, from a clean cache: `weft install xla --cpu`, once more to see that it does nothing, the CUDA plugin from a
# folder of Python packages as a cluster has it, then the contract suite and nanoGPT's first losses on the CPU plugin,
# and training steps compiled for GPUs that are not here. Needs pip and a C++ compiler; 9 minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
export WEFT_DATA_DIR="${WEFT_DATA_DIR:-$PWD/../shared/data}"

cache="$(mktemp -d)"
trap 'rm -rf "$cache"' EXIT
export WEFT_CACHE_DIR="$cache" WEFT_REQUIRE_XLA=1

npm run --silent build
node dist/cli/weft.js install xla --cpu
again="$(node dist/cli/weft.js install xla --cpu)"
echo "$again"
[[ "$again" == *"nothing to do"* ]] || { echo "the second install did something" >&2; exit 1; }

# Compiling needs the plugin, ptxas and libdevice; the other 3 GB only run.
node -e 'import("./dist/worker/install/xla-wheels.js").then(({ wheels }) => {
  for (const [name, sha256] of wheels.cuda12)
    if (/^(jax-cuda12-pjrt|nvidia-cuda-nvcc-cu12)=/.test(name)) console.log(`${name} --hash=sha256:${sha256}`);
})' > "$cache/cuda.txt"
python3 -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --target "$cache/env" --require-hashes -r "$cache/cuda.txt"
node dist/cli/weft.js install xla --cuda 12 --from "$cache/env"

npx vitest run test/worker/engine/engine.xla.test.ts test/worker/engine/xla.errors.test.ts test/worker/engine/xla.cuda.test.ts
npx vitest run test/system/nanogpt.test.ts -t XLA
# The bench for a machine with a GPU and without a network: from a folder of its own, on the CPU plugin in the GPU's place.
bash scripts/pack-gpu-bench.sh "$cache/bench.tar.xz"
tar -C "$cache" -xf "$cache/bench.tar.xz"
alone="$(unshare -rn true 2>/dev/null && echo unshare -rn || true)"
env -i PATH=/usr/bin:/bin WEFT_XLA_PLUGIN="$cache/xla-cpu-x64/site/xla_plugins/xla_cpu_pjrt/xla_cpu_pjrt.so" \
  $alone "$cache/weft-gpu-bench/run" python3 --device cpu --rows 2 | tee "$cache/table.txt"
grep -qE '^\| 2 \|.* [0-9a-f]{8} \|$' "$cache/table.txt" || { echo "two runs gave no table, or other bits" >&2; exit 1; }
# Real processes: 1, 2 and 3 workers of two devices each, killed, frozen, resumed.
WEFT_TEST_ENGINE="--engine xla --device cpu --threads 2" npx vitest run test/system/same-bits.test.ts
