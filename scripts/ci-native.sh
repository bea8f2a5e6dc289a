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
  for object in worker/engine/native/core/build/*.o; do
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

# Bits must not depend on the C library: nothing but the slow oracle may call its mathematics.
no_mathematics_of_libm() {
  local object calls
  for object in worker/engine/native/core/build/*.o; do
    case $(basename "$object") in naive.cpp.* | peak.cpp.*) continue ;; esac
    calls=$(nm -u "$object" | grep -wE '(log|log2|log10|log1p|exp|exp2|expm1|pow|sqrt|cbrt|hypot|sin|cos|tan|a?tan2?|a?sin|a?cos|sinh|cosh|tanh|erfc?|[tl]gamma|fma|fmod|remainder|ldexp|frexp|sincos)[fl]?(@.*)?' || true)
    if [ -n "$calls" ]; then
      printf '%s calls functions whose last bit differs between C libraries:\n%s\n' "$object" "$calls"
      return 1
    fi
  done
}

# Sanitizers want their memory where the addresses of processes are drawn from fewer bits than some kernels draw from.
undrawn() {
  if setarch "$(uname -m)" -R true 2>/dev/null; then setarch "$(uname -m)" -R "$@"; else "$@"; fi
}

pool_under_thread_sanitizer() {
  "${CXX:-c++}" -std=c++17 -O1 -g -fsanitize=thread -pthread -Iworker/engine/native/core -o "$work/pool_test" \
    worker/engine/native/core/{pool,isa}.cpp test/worker/engine/native/pool_test.cpp
  undrawn "$work/pool_test"
}

# ctest_with NAME [CMAKE ARGUMENT...]
ctest_with() {
  local name=$1
  shift
  cmake -S worker/engine/native/core -B "$work/$name" "$@" >/dev/null
  cmake --build "$work/$name" --parallel "$(nproc)" >"$work/$name.log" 2>&1 || { cat "$work/$name.log"; return 1; }
  undrawn ctest --test-dir "$work/$name" --output-on-failure --no-tests=error
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
  # Nor a TensorFlow that this machine may have.
  export PATH="$work/bin" WEFT_CACHE_DIR="$work/cache"
  unset CXX
  npm ci --foreground-scripts >"$work/ci.log" 2>&1 || { cat "$work/ci.log"; return 1; }
  grep 'native engine: not built' "$work/ci.log"
  node dist/cli/weft.js train --data LICENSE --n-layer 1 --n-head 1 --n-embd 16 --block-size 8 --batch-size 4 --steps 2 \
    --eval-windows 4 --workers 1 --port 0 --sample-tokens 8 --out "$work/run" >"$work/auto.log" 2>&1 ||
    { cat "$work/auto.log"; return 1; }
  grep -o 'tfjs wasm float32' "$work/auto.log" | head -1
  if timeout 60 node -e 'import("./dist/worker/engine/choose.js").then(({ openEngine }) =>
      openEngine("native", { model: {}, maxRows: 1, precision: "float32", threads: 1, device: "auto" }))' 2>"$work/native.log"; then
    echo "--engine native did not refuse"
    return 1
  fi
  grep 'npm run build:native' "$work/native.log"
)

step node scripts/build-native.mjs --clean
step sets_share_nothing
step no_mathematics_of_libm
step ctest_with plain
step ctest_with memory -DWEFT_SANITIZE=address,undefined
step pool_under_thread_sanitizer
step works_without_compiler
