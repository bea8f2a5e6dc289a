#!/usr/bin/env bash
# The picture of tokens a second against the speed of the link (docs/links.svg), with what it needs: as root on Debian.
# Arguments are those of bench/links.ts.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! { command -v ip && command -v tc; } >/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends iproute2 >/dev/null
fi
npm run --silent build
exec node dist/bench/links.js "$@"
