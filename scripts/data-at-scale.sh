#!/usr/bin/env bash
# A data set larger than memory: makes text (5 GB unless told otherwise), prepares it and trains on it, all in a control
# group of 2 GiB, says how long each took and how much memory it needed, and removes everything again. As root.
#
#   scripts/data-at-scale.sh [BYTES] [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."

bytes=${1:-5000000000}
folder=$(mktemp -d "${2:-${TMPDIR:-/tmp}}/weft-scale-XXXXXX")
limit=$((2 * 1024 * 1024 * 1024))
if [ -d /sys/fs/cgroup/memory ]; then # version 1
  group=/sys/fs/cgroup/memory/weft-scale-$$ limit_file=memory.limit_in_bytes peak_file=memory.max_usage_in_bytes
else
  group=/sys/fs/cgroup/weft-scale-$$ limit_file=memory.max peak_file=memory.peak
fi
trap 'rm -rf "$folder"; rmdir "$group" 2>/dev/null || true' EXIT
mkdir "$group"
echo $limit > "$group/$limit_file"

# Sentences of 20,000 made-up words, each drawn as often as its rank says (Zipf); twenty make a JSON line, a document. One
# file's worth is made, and stands in every file in an order of its own: what is timed reads each of them anew.
cat > "$folder/make.mjs" <<'JS'
import { closeSync, openSync, writeSync } from "node:fs";
const [folder, bytes] = [process.argv[2], Number(process.argv[3])];
let seed = 1;
const draw = () => (seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) / 2 ** 32;
const letters = "etaoinshrdlucmfwypvbgk";
const word = () => Array.from({ length: 2 + Math.floor(draw() * 8) }, () => letters[Math.floor(draw() ** 2 * 22)]).join("");
const words = Array.from({ length: 20_000 }, word);
const sentence = () => Array.from({ length: 5 + Math.floor(draw() * 15) }, () => words[Math.floor(20_000 ** draw()) - 1]).join(" ");
const text = () => Array.from({ length: 20 }, () => `${sentence()}.`).join(" ");
const block = () => Buffer.from(Array.from({ length: 200 }, (_, id) => `${JSON.stringify({ id, text: text() })}\n`).join(""));
const blocks = [];
for (let held = 0; held < Math.min(128e6, bytes / 2); held += blocks.at(-1).length) blocks.push(block());
for (let file = 0, written = 0; written < bytes; file++) {
  const out = openSync(`${folder}/text/${String(file).padStart(5, "0")}.jsonl`, "w");
  const start = Math.floor(draw() * blocks.length);
  for (let i = 0; i < blocks.length && written < bytes; i++) written += writeSync(out, blocks[(start + i) % blocks.length]);
  closeSync(out);
}
JS
mkdir "$folder/text"
timed() {
  local what=$1 start=$SECONDS
  shift
  echo 0 > "$group/$peak_file" 2>/dev/null || true
  bash -c 'echo $$ > "$0/cgroup.procs" && exec "$@"' "$group" "$@"
  echo "$what: $((SECONDS - start)) s, at most $(($(cat "$group/$peak_file") / 1048576)) MiB with the page cache"
}
timed "text made" node "$folder/make.mjs" "$folder" "$bytes"
du -sh "$folder/text"
weft="node dist/cli/weft.js"
timed "prepared" $weft data prepare "$folder/text" --tokenizer gpt2 --out "$folder/tokens"
du -sh "$folder/tokens"
timed "trained 200 steps" $weft train --data "$folder/tokens" --out "$folder/run" --port 0 --steps 200 --block-size 256 \
  --n-layer 2 --n-head 2 --n-embd 64 --batch-size 8 --shards 4 --eval-interval 0 --eval-windows 32 --sample-tokens 0 \
  --checkpoint-interval 0 --workers 2
