#!/usr/bin/env bash
# deploy/Containerfile built and run as it stands, without Docker and without its registry: by Debian's buildah, each step in
# a chroot, on a Debian that debootstrap makes, with this machine's Node in the place of the official image. Then the image
# trains, as the user it names, and its health check is asked. 5 to 10 minutes, as root on Debian.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! { command -v buildah && command -v debootstrap; } >/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends buildah debootstrap >/dev/null
fi
work="$(mktemp -d)"
store=(--root "$work/images" --runroot "$work/run" --storage-driver vfs)
trap 'buildah "${store[@]}" umount --all >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
b() { buildah "${store[@]}" "$@"; }

# Certificates that this machine trusts beside Debian's: a proxy of a site is one.
trusted=(--volume /etc/ssl/certs:/etc/ssl/certs:ro)
debian="$(. /etc/os-release && echo "$VERSION_CODENAME")"
debootstrap --variant=minbase --include=ca-certificates,g++,make,python3,libstdc++6 "$debian" "$work/debian" >"$work/debootstrap.log" 2>&1 ||
  { tail -n 20 "$work/debootstrap.log" >&2; exit 1; }
install "$(command -v node)" "$work/debian/usr/local/bin/node"
npm="$(dirname "$(dirname "$(readlink -f "$(command -v npm)")")")"
mkdir -p "$work/debian/usr/local/lib/node_modules"
cp -r "$npm" "$work/debian/usr/local/lib/node_modules/npm"
ln -s ../lib/node_modules/npm/bin/npm-cli.js "$work/debian/usr/local/bin/npm"
chroot "$work/debian" useradd --uid 1000 --user-group node
base="$(b from scratch)"
b copy -q "$base" "$work/debian" / >/dev/null
b config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  ${NODE_EXTRA_CA_CERTS:+--env NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt} "$base"
b commit -q "$base" localhost/node >/dev/null

b build --isolation chroot "${trusted[@]}" --format docker --build-arg BUILD_IMAGE=localhost/node --build-arg RUN_IMAGE=localhost/node \
  -f deploy/Containerfile --ignorefile deploy/Containerfile.dockerignore -t weft .

b inspect --type image weft | python3 -c '
import json, sys
config = json.load(sys.stdin)["Docker"]["config"]
said = {name: config[name] for name in ("User", "Entrypoint", "WorkingDir", "Volumes", "ExposedPorts")}
expected = {"User": "1000:1000", "Entrypoint": ["weft"], "WorkingDir": "/data", "Volumes": {"/data": {}}, "ExposedPorts": {"7070/tcp": {}}}
assert said == expected, said
assert config["Healthcheck"]["Test"] == ["CMD", "node", "/weft/healthcheck.mjs"], config
print("the image says", json.dumps(said))'

# As a container runtime runs it: the image's process 1, user, environment and folder, nothing but its own files.
box="$(b from weft)"
root="$(b mount "$box")"
echo "unpacked: $(du -sm "$root" | cut -f1) MB"
install -o 1000 -g 1000 -m 644 "${WEFT_DATA_DIR:-../shared/data}/tinyshakespeare.txt" "$root/data/"
enter() { chroot --userspec=1000:1000 "$root" env -i -C /data PATH=/usr/local/bin:/usr/bin:/bin NODE_ENV=production WEFT_DATA_DIR=/data WEFT_CACHE_DIR=/data/cache "$@"; }
export root
export -f enter
contained() { unshare --pid --mount --fork bash -c 'mount -t proc proc "$root/proc" && mount --bind /dev "$root/dev" && enter "$@"' enter "$@"; }
contained weft doctor
contained weft train --preset shakespeare-cpu --steps 400 --eval-interval 200 --sample-tokens 60 --out run &
training=$!
healthy() { nsenter --target "$(pgrep -f -n "weft train")" --pid --mount bash -c 'enter node /weft/healthcheck.mjs'; }
until healthy 2>/dev/null; do
  kill -0 "$training" || { echo "the run ended before it was healthy" >&2; exit 1; }
  sleep 1
done
echo "healthy while it trains"
wait "$training"
contained weft sample --checkpoint run --tokens 60
