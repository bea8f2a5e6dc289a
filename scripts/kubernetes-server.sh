#!/usr/bin/env bash
# deploy/kubernetes applied to a real API server: kube-apiserver, built through the Go module proxy, on Debian's etcd. No
# kubelet: objects are admitted, defaulted and kept, pods of the templates held against the "restricted" standard, nothing
# runs. An hour on two cores the first time, then a minute; so CI has ci-kubernetes.sh instead. As root on Debian.
set -euo pipefail
cd "$(dirname "$0")/.."

version=v1.36.3
tools="${WEFT_TOOLS:-${TMPDIR:-/tmp}/weft-tools}"
if ! { command -v etcd && command -v openssl; } >/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends etcd-server openssl >/dev/null
fi
export GOFLAGS=-mod=mod
programs="$tools/kubernetes-$version"
if [ ! -x "$programs/kubectl" ]; then
  module="$(mktemp -d)"
  source="$(cd "$module" && go mod download -json "k8s.io/kubernetes@$version" | python3 -c 'import json, sys; print(json.load(sys.stdin)["Dir"])')"
  # Its own go.mod takes the staging modules from its tree, which the proxy's copy of it lacks: here from their releases.
  python3 - "$source/go.mod" "$version" > "$module/go.mod" <<'PYTHON'
import re, sys
required = re.findall(r"^\t(\S+) (v\S+)", open(sys.argv[1]).read(), re.M)
staged = {name for name, version in required if version == "v0.0.0"}
print("module weft/kubernetes\n\ngo 1.26\n\nrequire (")
for name, version in [("k8s.io/kubernetes", sys.argv[2]), *required]:
    if name not in staged:
        print(f"\t{name} {version}")
print(")\n\nreplace (")
for name in sorted(staged):
    print(f"\t{name} => {name} {sys.argv[2].replace('v1', 'v0', 1)}")
print(")")
PYTHON
  install -m 644 "$source/go.sum" "$module/"
  mkdir -p "$programs"
  said="-X k8s.io/component-base/version.gitVersion=$version"
  for program in kube-apiserver kubectl; do
    (cd "$module" && go build -ldflags "-s -w $said" -o "$programs/$program" "k8s.io/kubernetes/cmd/$program")
  done
fi

work="$(mktemp -d)"
trap 'kill -KILL $(jobs -p) 2>/dev/null; wait 2>/dev/null; rm -rf "$work"' EXIT
openssl genrsa -out "$work/accounts.key" 2048 2>/dev/null
echo 'a-token,admin,admin,"system:masters"' > "$work/tokens.csv"
etcd --data-dir "$work/etcd" --listen-client-urls http://127.0.0.1:23790 --advertise-client-urls http://127.0.0.1:23790 \
  --listen-peer-urls http://127.0.0.1:23800 > "$work/etcd.log" 2>&1 &
"$programs/kube-apiserver" --etcd-servers http://127.0.0.1:23790 --bind-address 127.0.0.1 --secure-port 26443 --cert-dir "$work/certificates" \
  --service-account-issuer https://weft.test --service-account-signing-key-file "$work/accounts.key" \
  --service-account-key-file "$work/accounts.key" --token-auth-file "$work/tokens.csv" --authorization-mode RBAC \
  --service-cluster-ip-range 10.0.0.0/24 --disable-admission-plugins ServiceAccount > "$work/server.log" 2>&1 &
kube() { "$programs/kubectl" --server https://127.0.0.1:26443 --insecure-skip-tls-verify --token a-token "$@"; }
for _ in $(seq 120); do
  kube get --raw /readyz >/dev/null 2>&1 && break
  sleep 1
done
kube version || { tail -n 20 "$work/server.log" >&2; exit 1; }

# Definitions of others' kinds, out of their own modules.
definition() {
  local folder
  folder=$(cd "$(mktemp -d)" && go mod download -json "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["Dir"])')
  kube apply --server-side -f "$(find "$folder" -name "$2" -not -path '*/vendor/*' | head -n 1)"
}
definition sigs.k8s.io/jobset@v0.10.1 'jobset.x-k8s.io_jobsets.yaml'
definition github.com/prometheus-operator/prometheus-operator@v0.85.0 'monitoring.coreos.com_servicemonitors.yaml'
kube wait --for condition=established --timeout 60s crd --all

cp -r deploy/kubernetes "$work/kubernetes"
for folder in overlays/cpu overlays/gpu overlays/monitoring jobset; do
  echo "== $folder"
  for made in overlays/cpu overlays/gpu jobset; do printf 'a-token-of-sixteen-and-more' > "$work/kubernetes/$made/token"; done
  namespace="weft-$(basename "$folder")"
  kube create namespace "$namespace"
  # What the standard would refuse of a pod, the server says as a warning of its template: here a failure.
  kube label namespace "$namespace" pod-security.kubernetes.io/{enforce,warn}=restricted >/dev/null
  kube --namespace "$namespace" --warnings-as-errors apply --server-side --validate=strict -k "$work/kubernetes/$folder"
  # Applied once more nothing changes: the server keeps what was written as it was meant.
  kube --namespace "$namespace" diff --server-side -k "$work/kubernetes/$folder"
done
# A JobSet's pods are its controller's affair: the jobs that it would make, as the server would take them.
kube --namespace weft-jobset get jobset weft -o json | python3 -c '
import json, sys
jobs = json.load(sys.stdin)["spec"]["replicatedJobs"]
made = [{"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": job["name"]}, "spec": job["template"]["spec"]} for job in jobs]
json.dump({"apiVersion": "v1", "kind": "List", "items": made}, sys.stdout)' > "$work/jobs.json"
kube --namespace weft-jobset --warnings-as-errors create --dry-run=server --validate=strict -f "$work/jobs.json"
echo "kube-apiserver $version took every overlay, strictly and without a warning"
