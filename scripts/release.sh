#!/usr/bin/env bash
# release.sh X.Y.Z [--publish]: check, pack and tag a version; with --publish, from a CI that can sign, also publish it
# with npm's provenance statement (https://docs.npmjs.com/generating-provenance-statements).
set -euo pipefail
cd "$(dirname "$0")/.."
version="${1:?release.sh X.Y.Z [--publish]}"

[ -z "$(git status --porcelain)" ] || { echo "release: uncommitted changes; commit first" >&2; exit 1; }
grep -q "^## $version\$" CHANGELOG.md || { echo "release: CHANGELOG.md has no \"## $version\"" >&2; exit 1; }
[ "$(node -p 'require("./package.json").version')" = "$version" ] ||
  { echo "release: package.json names another version; npm version --no-git-tag-version $version" >&2; exit 1; }
npm ci
npm run check
npm test
bash scripts/ci-package.sh
git tag -a "v$version" -m "weft $version"
if [ "${2:-}" = --publish ]; then npm publish --provenance --access public; else npm pack; fi
