#!/usr/bin/env bash
# A disk that fails at each call in turn, in a run, a resume, a pull, a convert, a preparation, an export, a sample and a
# repair: one of so many faults here, all of them with EVERY=1 (an hour).
set -euo pipefail
cd "$(dirname "$0")/.."
npm run --silent disk -- --every "${EVERY:-61}"
