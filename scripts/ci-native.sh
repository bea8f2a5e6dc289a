#!/usr/bin/env bash
# Proves the native core: it builds from nothing, its sets share no code, its tests hold for every instruction set of
# this machine and under the sanitizers, and without a compiler everything still installs and trains on WebAssembly.
# The same for people and CI; called by .ci/run.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

step() { printf -- '--> %s\n' "$*"; "$@"; }

# Code of one set that another could be linked to would crash on CPUs without it: nothing outside namespace weft::SET.
sets_share_nothing() {
  local object isa leaks
  for object in worker/native/build/*.o; do
    isa=$(basename "$object" .o)
    isa=${isa##*.}
    case $isa in once | addon | program) continue ;; esac
    leaks=$(nm -C --defined-only --extern-only "$object" | cut -d' ' -f2- | grep -v "^. \(vtable for \)\?weft::$isa::" || true)
    if [ -n "$leaks" ]; then
      printf '%s exports code compiled for %s under names that other files share:\n%s\n' "$object" "$isa" "$leaks"
      return 1
    fi
  done
}

# ctest_with NAME PATTERN [CMAKE ARGUMENT...]
ctest_with() {
  local name=$1 pattern=$2
  shift 2
  cmake -S worker/native -B "$work/$name" "$@" >/dev/null
  cmake --build "$work/$name" --parallel "$(nproc)" >"$work/$name.log" 2>&1 || { cat "$work/$name.log"; return 1; }
  ctest --test-dir "$work/$name" --output-on-failure --no-tests=error -R "$pattern"
}

# A PATH with every program of this machine but the compilers.
path_without_compilers() {
  local folder file
  mkdir -p "$work/bin"
  while IFS= read -r -d : folder; do
    for file in "$folder"/*; do
      case $(basename "$file") in *g++* | *clang* | c++* | *gcc* | cc | c[89]9*) continue ;; esac
      [ -e "$work/bin/$(basename "$file")" ] || ln -s "$file" "$work/bin/" 2>/dev/null || true
    done
  done <<<"$PATH:"
}

# What git would give a person who clones this tree as it stands.
works_without_compiler() (
  path_without_compilers
  mkdir "$work/clone"
  git ls-files -z --cached --others --exclude-standard | tar -c --null -T - | tar -x -C "$work/clone"
  cd "$work/clone"
  export PATH="$work/bin"
  unset CXX
  npm ci --foreground-scripts >"$work/ci.log" 2>&1 || { cat "$work/ci.log"; return 1; }
  grep 'native engine: not built' "$work/ci.log"
  node --input-type=module -e '
    import { openEngine } from "./dist/worker/engines.js";
    import { layoutOf } from "./dist/shared/layout.js";
    const model = { family: "gpt2", vocabSize: 7, blockSize: 4, nLayer: 1, nHead: 1, nEmbd: 8, bias: true, dropout: 0,
      activation: "gelu", tiedHead: true, layerNormEps: 1e-5 };
    const options = { model, maxRows: 1, precision: "float32", threads: 1, device: "auto" };
    const { engine, why } = await openEngine("auto", options);
    console.log(why);
    const out = new Float32Array(layoutOf(model).size);
    await engine.setWeights(out);
    const loss = await engine.gradient(Int32Array.of(1, 2), Int32Array.of(2, 3), 1, { seed: 1, step: 0, shard: 0 }, out);
    if (engine.name !== "tfjs" || Math.abs(loss - Math.log(7)) > 1e-5) throw new Error(`${engine.name}: loss ${loss}`);
    await engine.dispose();
    const refused = await openEngine("native", options).then(() => "nothing", (error) => error.message);
    if (!refused.includes("npm run build:native")) throw new Error(`native answered: ${refused}`);
  '
)

step node scripts/build-native.mjs --clean
step sets_share_nothing
step ctest_with plain .
step ctest_with memory . -DWEFT_SANITIZE=address,undefined
step ctest_with threads pool -DWEFT_SANITIZE=thread
step works_without_compiler
