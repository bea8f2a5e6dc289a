#!/usr/bin/env bash
# `weft launch` over the real OpenSSH: three hosts on this machine, each with an address, a host name, an sshd and a disk
# of its own (network, UTS and mount namespaces), on a bridge to this one. Two to three minutes, as root on Debian.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! { command -v ip && [ -x /usr/sbin/sshd ]; } >/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends openssh-server iproute2 >/dev/null
fi
folder=$(mktemp -d "${TMPDIR:-/tmp}/weft-ssh-hosts-XXXXXX")
stop() {
  for host in host-a host-b host-c; do
    for pid in $(ip netns pids "weft-$host" 2>/dev/null); do kill -9 "$pid" 2>/dev/null || true; done
    ip netns delete "weft-$host" 2>/dev/null || true
  done
  ip link delete weft-bridge 2>/dev/null || true
}
trap 'stop; rm -rf "$folder"' EXIT
stop

mkdir -p /run/sshd "$folder/disk"
ssh-keygen -q -t ed25519 -N "" -f "$folder/key"
ssh-keygen -q -t ed25519 -N "" -f "$folder/host-key"
ip link add weft-bridge type bridge
ip address add 10.77.0.1/24 dev weft-bridge
ip address add fd77::1/64 dev weft-bridge nodad
ip link set weft-bridge up
last=11
for host in host-a host-b host-c; do
  space="weft-$host"
  mkdir "$folder/disk-$host"
  ip netns add "$space"
  ip link add "wv-$host" type veth peer name eth0 netns "$space"
  ip link set "wv-$host" master weft-bridge up
  ip -n "$space" address add "10.77.0.$last/24" dev eth0
  ip -n "$space" address add "fd77::$last/64" dev eth0 nodad
  ip -n "$space" link set eth0 up
  ip -n "$space" link set lo up
  cat >"$folder/sshd-$host" <<EOF
ListenAddress 10.77.0.$last
ListenAddress [fd77::$last]
HostKey $folder/host-key
AuthorizedKeysFile $folder/key.pub
StrictModes no
PermitRootLogin yes
UsePAM no
PidFile none
EOF
  cat >"$folder/start-$host" <<EOF
exec ip netns exec $space unshare --uts --mount sh -c \
  'hostname $host && mount --bind $folder/disk-$host $folder/disk && exec /usr/sbin/sshd -f $folder/sshd-$host'
EOF
  cat >>"$folder/ssh_config" <<EOF
Host $host
  HostName 10.77.0.$last
Host $host fd77::$last
  User root
  IdentityFile $folder/key
  UserKnownHostsFile $folder/known
  StrictHostKeyChecking accept-new
  LogLevel ERROR
EOF
  sh "$folder/start-$host"
  last=$((last + 1))
done

WEFT_SSH_HOSTS="$folder" npx vitest run --config vitest.system.config.ts test/system/ssh.system.ts
