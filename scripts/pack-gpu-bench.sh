#!/usr/bin/env bash
# Packs the gpu part of the bench with Node and the xla addon into one archive, for a machine with a GPU and without a
# network: there `./run PYTHON` prints the tables within ten minutes. PYTHON is one that has jax[cuda12] or jax[cuda13], or
# their packages of jax-cuda12-pjrt and of NVIDIA, and for the comparison PyTorch.
#
#   bash scripts/pack-gpu-bench.sh weft-gpu-bench.tar.xz
set -euo pipefail
cd "$(dirname "$0")/.."
out="$(realpath -m "${1:?the archive to write}")"

stage="$(mktemp -d)"
trap 'rm -rf "$stage"' EXIT
folder="$stage/weft-gpu-bench"
mkdir -p "$folder/dist" "$folder/bench" "$folder/worker/engine/xla" "$folder/worker/engine/native/core" "$folder/cache"

npm run --silent build
addon="$(node -e 'Promise.all([import("./dist/shared/cache.js"), import("./dist/worker/install/xla-addon.js")]).then(
  async ([{ cacheDir }, { buildAddon }]) => console.log(await buildAddon(cacheDir(), console.error)))')"
cp "$addon" "$folder/cache/"
for part in bench shared worker; do
  (cd dist && find "$part" -name "*.js" -exec cp --parents {} "$folder/dist/" \;)
done
cp package.json "$folder/"
cp bench/gpt2.py "$folder/bench/"
cp -r worker/engine/xla/binding "$folder/worker/engine/xla/"
cp worker/engine/native/core/napi.h "$folder/worker/engine/native/core/"
mkdir -p "$folder/node_modules"
cp -r node_modules/zod node_modules/node-api-headers "$folder/node_modules/"
cp "$(command -v node)" "$folder/node"
strip "$folder/node" 2>/dev/null || true
cat > "$folder/run" <<'RUN'
#!/bin/sh
# ./run [PYTHON] [--rows 8,16,32]: sequences a shard. A plugin elsewhere is named by WEFT_XLA_PLUGIN; --device cpu tries
# the bench itself on a CPU.
here="$(cd "$(dirname "$0")" && pwd)"
absolute() { case "$1" in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac; }
named=python3
case "${1:-}" in "" | -*) ;; *) named="$1"; shift ;; esac
python="$(command -v "$named")" || { echo "there is no $named" >&2; exit 1; }
python="$(absolute "$python")"
# Where Python would import the plugin from, without importing it: the newest CUDA first.
plugin="${WEFT_XLA_PLUGIN:-$("$python" -c '
from importlib.util import find_spec
from os.path import exists, join
for kind in ("cuda13", "cuda12"):
    try:
        found = find_spec("jax_plugins.xla_" + kind)
    except ImportError:
        continue
    for folder in found.submodule_search_locations if found else ():
        if exists(join(folder, "xla_cuda_plugin.so")):
            print(join(folder, "xla_cuda_plugin.so"))
            raise SystemExit
')}"
[ -n "$plugin" ] || { echo "$python has no jax-cuda13-pjrt or jax-cuda12-pjrt: name another Python, or the plugin by WEFT_XLA_PLUGIN" >&2; exit 1; }
torch="$python"
"$python" -c "import torch" 2>/dev/null || { echo "$python has no PyTorch: no comparison" >&2; torch=""; }
plugin="$(absolute "$plugin")"
# Where NVIDIA's compiler is not beside the plugin, PyTorch's Triton has it; XLA looks into ./cuda_sdk_lib.
cd "$here"
site="${plugin%/jax_plugins/*}"
triton="$("$python" -c 'from importlib.util import find_spec as f; s = f("triton"); print(s.submodule_search_locations[0] if s else "")')/backends/nvidia"
if [ ! -x "$site/nvidia/cu13/bin/ptxas" ] && [ ! -x "$site/nvidia/cuda_nvcc/bin/ptxas" ] && [ -x "$triton/bin/ptxas" ]; then
  mkdir -p cuda_sdk_lib/bin cuda_sdk_lib/nvvm/libdevice
  ln -sf "$triton/bin/ptxas" cuda_sdk_lib/bin/
  ln -sf "$triton/lib/libdevice.10.bc" cuda_sdk_lib/nvvm/libdevice/
fi
export WEFT_XLA_PLUGIN="$plugin" WEFT_CACHE_DIR="$here/cache"
exec "$here/node" "$here/dist/bench/gpu-main.js" --python "$torch" "$@"
RUN
chmod +x "$folder/run"
tar -C "$stage" -cf - weft-gpu-bench | xz -T0 -6 > "$out"
bytes="$(stat -c %s "$out")"
echo "$out: $((bytes / 1000000)) MB"
[ "$bytes" -lt 60000000 ] || { echo "more than 60 MB" >&2; exit 1; }
