#!/usr/bin/env bash
# What weft export writes, read by the real TensorBoard from PyPI: every value of every curve.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv" 2>/dev/null || {
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
  python3 -m venv "$work/venv"
}
"$work/venv/bin/pip" install -q "tensorboard==2.21.0" "setuptools<81"
weft() { node dist/cli/weft.js "$@"; }
npm run --silent build
weft train --data README.md --block-size 16 --n-layer 1 --n-head 1 --n-embd 16 --batch-size 4 --steps 30 --warmup-steps 5 \
  --eval-interval 10 --eval-windows 8 --sample-tokens 0 --port 0 --workers 1 --out "$work/run" >/dev/null 2>&1
weft export "$work/run" --format jsonl --out "$work/run.jsonl"
weft export "$work/run" --format tensorboard --out "$work/logs"
"$work/venv/bin/python" - "$work" <<'PYTHON'
import json, sys
import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
work = sys.argv[1]
events = EventAccumulator(f"{work}/logs", size_guidance={"scalars": 0}).Reload()
rows = [json.loads(line) for line in open(f"{work}/run.jsonl")]
names = {"train/loss": "lossNats", "train/gradient_norm": "gradientNorm", "train/learning_rate": "learningRate", "validation/loss": "valLossNats"}
assert sorted(events.Tags()["scalars"]) == sorted(names), events.Tags()
total = 0
for tag, column in names.items():
    read = [(event.step, event.value) for event in events.Scalars(tag)]
    wrote = [(row["step"], float(np.float32(row[column]))) for row in rows if row[column] is not None]
    assert read == wrote, (tag, read[:3], wrote[:3])
    total += len(read)
assert len(rows) == 30 and len(events.Scalars("validation/loss")) == 3
print(f"TensorBoard read {total} values of {len(names)} curves, each as it was written")
PYTHON
