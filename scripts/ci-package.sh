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

# README's first command, and reproduce.md: one worker and two give the same weights, and prove it.
npx weft train --preset shakespeare-cpu $small $data --seed 1337 --workers 1 --out runs/one --sample-tokens 20
npx weft train --preset shakespeare-cpu $small $data --seed 1337 --workers 2 --out runs/two --sample-tokens 20 2>/dev/null | tee said.txt
grep -q '^finished 20 steps in ' said.txt
[ "$(digest runs/one)" = "$(digest runs/two)" ] || { echo "one worker and two gave other weights" >&2; exit 1; }
# The line that train ends with is one that runs.
bash -c "$(sed -n 's/^sample: *//p' said.txt) --tokens 20" >/dev/null
npx weft data info text.txt >/dev/null
npx weft eval --checkpoint runs/one --data text.txt
npx weft audit runs/two
npx weft audit runs/two --replay 5-8
npx weft audit runs/two --worker "$(sed -n '1s/.*"worker":"\([^"]*\)".*/\1/p' runs/two/ledger.jsonl)"

# across-machines.md: coordinator, workers, doctor, page, pull, sample; operate.md: addresses, actions.
export WEFT_TOKEN=a-token-of-this-script
long="$small --dropout 0 --steps 100000 --eval-interval 10 $data"
# What is printed after a start, up to a first match; $1: log, $2: sed's expression.
said() {
  local found
  for _ in $(seq 600); do
    found="$(sed -n "$2" "$1")"
    [ -z "$found" ] || { echo "$found"; return; }
    sleep 0.2
  done
  cat "$1" >&2
  return 1
}
npx weft coordinator --preset shakespeare-char $long --out runs/far --host 0.0.0.0 2>coordinator.log &
coordinator=$!
address="127.0.0.1:$(said coordinator.log 's/.*listening on 0.0.0.0:\([0-9]*\):.*/\1/p')"
npx weft worker --coordinator "ws://$address" --gpus none --processes 2 --patience 2 --data-at-worker text.txt 2>worker.log &
worker=$!
ask() { curl -fsSk -H "Authorization: Bearer $WEFT_TOKEN" "$@"; }
for path in healthz status metrics history history.csv events about runs; do ask "http://$address/$path" >/dev/null; done
npx weft relay --coordinator "ws://$address" --host 0.0.0.0 --port 0 --name site-b 2>relay.log &
relay=$!
said relay.log 's/.*listening on.*/&/p' >/dev/null
kill -- "-$relay"
wait "$relay" || true
until ask "http://$address/checkpoints" | grep -q '"best":true'; do sleep 0.5; done
npx weft pull --from "http://$address" --step best --out checkpoints
npx weft sample --checkpoint checkpoints --prompt "ROMEO:" --tokens 20 >/dev/null
npx weft doctor --coordinator "ws://$address" --preset bigram --port 0 --workers 8 | grep link
ask -X POST "http://$address/actions/checkpoint"
ask -X POST "http://$address/actions/stop"
wait "$coordinator"
wait "$worker"

# operate.md: --resume; access.md: encrypted, with viewers.
export WEFT_VIEW_TOKEN=a-token-of-its-viewers
npx weft coordinator --preset shakespeare-char $long --out runs/far --host 0.0.0.0 --tls self-signed --resume 2>resumed.log &
coordinator=$!
safe="$(said resumed.log 's,.*--coordinator wss://[^:]*\(:.*\),127.0.0.1\1,p')"
grep -q 'resuming from runs/far/step-' resumed.log
npx weft worker --coordinator "wss://$safe" --patience 2 2>worker.log &
worker=$!
WEFT_TOKEN= npx weft pull --from "https://$safe" --out viewed
said worker.log 's/.*"msg":".*computes with.*/&/p' >/dev/null
ask -X POST "https://${safe%%#*}/actions/stop"
wait "$coordinator"
wait "$worker"
unset WEFT_VIEW_TOKEN

# local-steps.md, second-opinions.md: that the options go together; test/system has the runs.
npx weft coordinator --preset shakespeare-cpu $small $data --local-steps 5 --replicas 4 --wire int8 --out runs/local --dry-run
npx weft coordinator --preset shakespeare-cpu $small $data --host 0.0.0.0 --verify 0.1 --out runs/verified --dry-run

# across-machines.md: all of it from one terminal. This machine alone needs no ssh; scripts/ci-ssh.sh has three hosts.
echo 'hosts: [here]' >hosts.yaml
npx weft launch hosts.yaml --preset shakespeare-char $small --dropout 0 $data --out runs/launched 2>/dev/null | grep '^checkpoint: '
echo "the package works from an empty folder"
