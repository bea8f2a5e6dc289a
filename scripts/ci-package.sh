#!/usr/bin/env bash
# The package as people get it: packed, installed into an empty folder, and README's and docs/' commands run from there.
set -euo pipefail
cd "$(dirname "$0")/.."
root="$PWD"
folder="$(mktemp -d)"
# npx is not the program: what is started beside this script has a group of its own, which ends as one.
set -m
trap 'for job in $(jobs -p); do kill -- "-$job" 2>/dev/null || true; done; wait; rm -rf "$folder"' EXIT

npm run --silent build
tarball="$folder/$(npm pack --silent --ignore-scripts --pack-destination "$folder" | tail -n 1)"
cd "$folder"
echo '{ "private": true }' >package.json
npm install --silent --no-audit --no-fund "$tarball"
# Built where there is a compiler; else it says why and the TensorFlow.js engine computes.
npx weft doctor --port 0 --preset bigram | grep 'native engine' || true

small="--block-size 32 --n-layer 2 --n-head 2 --n-embd 64 --batch-size 8 --eval-windows 8 --steps 20 --port 0"
cat "$root"/docs/*.md "$root"/README.md >text.txt
data="--data text.txt"
digest() { tail -n 1 "$1/ledger.jsonl" | sed 's/.*"weights":"\([0-9a-f]*\)".*/\1/'; }

# README's first command, and reproduce.md: one worker and two give the same weights.
npx weft train $small $data --workers 1 --out runs/one --sample-tokens 20
npx weft train $small $data --workers 2 --out runs/two --sample-tokens 20 2>/dev/null | tee said.txt
grep -q '^finished 20 steps in ' said.txt
[ "$(digest runs/one)" = "$(digest runs/two)" ] || { echo "one worker and two gave other weights" >&2; exit 1; }
# The line that train ends with is one that runs.
bash -c "$(sed -n 's/^sample: *//p' said.txt) --tokens 20" >/dev/null
npx weft data info text.txt >/dev/null
npx weft eval --checkpoint runs/one --data text.txt

# across-machines.md: coordinator, workers, doctor, page, pull, sample; operate.md: actions, stop and --resume.
export WEFT_TOKEN=a-token-of-this-script
npx weft coordinator $small --steps 100000 $data --out runs/far --eval-interval 0 2>coordinator.log &
coordinator=$!
for _ in $(seq 300); do
  address="$(sed -n 's/.*listening on \(127.0.0.1:[0-9]*\):.*/\1/p' coordinator.log)"
  [ -n "$address" ] && break
  sleep 0.2
done
[ -n "$address" ] || { cat coordinator.log >&2; exit 1; }
npx weft worker --coordinator "ws://$address" --processes 2 --patience 2 2>worker.log &
worker=$!
ask() { curl -fsS -H "Authorization: Bearer $WEFT_TOKEN" "$@"; }
for path in healthz status metrics history history.csv events about runs; do ask "http://$address/$path" >/dev/null; done
until [ "$(ask "http://$address/status" | node -p 'JSON.parse(require("fs").readFileSync(0)).step')" -gt 3 ]; do sleep 0.5; done
ask -X POST "http://$address/actions/checkpoint"
until ask "http://$address/checkpoints" | grep -q step-; do sleep 0.5; done
npx weft pull --from "http://$address" --step latest
npx weft sample --checkpoint checkpoints --tokens 20 >/dev/null
npx weft doctor --coordinator "ws://$address" --preset bigram --port 0 | grep link
ask -X POST "http://$address/actions/stop"
wait "$coordinator"
wait "$worker" || true # it waited --patience for the coordinator to come back
npx weft coordinator $small --steps 100000 $data --out runs/far --resume 2>resumed.log &
coordinator=$!
until grep -qs 'listening on' resumed.log; do kill -0 "$coordinator"; sleep 0.2; done
grep -q 'resuming from runs/far/step-' resumed.log
ask -X POST "http://$(sed -n 's/.*listening on \(127.0.0.1:[0-9]*\):.*/\1/p' resumed.log)/actions/stop"
wait "$coordinator"
echo "the package works from an empty folder"
