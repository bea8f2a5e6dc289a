#!/usr/bin/env bash
# The dashboard of a real run in the real Chromium: Debian's package. WEFT_SCREENSHOTS=DIR keeps pictures of it.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ ! -x /usr/bin/chromium ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null
fi
/usr/bin/chromium --version --no-sandbox 2>/dev/null
npx vitest run --config vitest.system.config.ts test/system/dashboard.system.ts test/system/page.system.ts
