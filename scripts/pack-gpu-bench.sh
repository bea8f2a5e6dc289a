#!/usr/bin/env bash
# Packs the gpu part of the bench with Node and the xla addon into one archive, for a machine with a GPU and without a
# network: there `./run PLUGIN.so` prints the table. PLUGIN.so is jax_plugins/xla_cuda12/xla_cuda_plugin.so (or 13) of a
# Python environment that has jax[cuda12].
#
#   bash scripts/pack-gpu-bench.sh weft-gpu-bench.tar.xz
set -euo pipefail
cd "$(dirname "$0")/.."
out="$(realpath -m "${1:?the archive to write}")"

stage="$(mktemp -d)"
trap 'rm -rf "$stage"' EXIT
folder="$stage/weft-gpu-bench"
mkdir -p "$folder/dist" "$folder/worker/engine/xla" "$folder/worker/engine/native/core" "$folder/cache"

npm run --silent build
node -e 'import("./dist/worker/install/xla-addon.js").then(({ buildAddon }) => buildAddon(process.argv[1], console.log))' "$folder/cache"
for part in bench shared worker; do
  (cd dist && find "$part" -name "*.js" -exec cp --parents {} "$folder/dist/" \;)
done
cp package.json "$folder/"
cp -r worker/engine/xla/binding "$folder/worker/engine/xla/"
cp worker/engine/native/core/napi.h "$folder/worker/engine/native/core/"
mkdir -p "$folder/node_modules"
cp -r node_modules/zod node_modules/node-api-headers "$folder/node_modules/"
cp "$(command -v node)" "$folder/node"
strip "$folder/node" 2>/dev/null || true
cat > "$folder/run" <<'RUN'
#!/bin/sh
# ./run PLUGIN.so [sequences a shard, such as 8,16,32]
here="$(cd "$(dirname "$0")" && pwd)"
export WEFT_XLA_PLUGIN="${1:?the plugin: .../jax_plugins/xla_cuda12/xla_cuda_plugin.so}" WEFT_CACHE_DIR="$here/cache"
exec "$here/node" "$here/dist/bench/gpu-main.js" "${2:-8,16,32}"
RUN
chmod +x "$folder/run"
tar -C "$stage" -cf - weft-gpu-bench | xz -T0 -6 > "$out"
bytes="$(stat -c %s "$out")"
echo "$out: $((bytes / 1000000)) MB"
[ "$bytes" -lt 60000000 ] || { echo "more than 60 MB" >&2; exit 1; }
