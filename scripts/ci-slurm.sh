#!/usr/bin/env bash
# deploy/slurm/train.sbatch on a real Slurm: two nodes on this machine, from Debian's packages. 2 to 4 minutes, as root.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$(mktemp -d "${TMPDIR:-/tmp}/weft-slurm-XXXXXX")
trap 'bash scripts/slurm-cluster.sh stop "$folder"; rm -rf "$folder"' EXIT
bash scripts/slurm-cluster.sh start "$folder"
export SLURM_CONF="$folder/slurm.conf"
sinfo
npx vitest run --config vitest.system.config.ts test/system/slurm.system.ts
