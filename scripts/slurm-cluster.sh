#!/usr/bin/env bash
# A Slurm cluster of two nodes on this machine, from Debian's packages: munge, slurmctld and two slurmd, in a folder of
# its own and on ports of its own. As root:
#
#   scripts/slurm-cluster.sh start /tmp/weft-slurm && export SLURM_CONF=/tmp/weft-slurm/slurm.conf
#   sbatch --nodes=2 deploy/slurm/train.sbatch --preset shakespeare-cpu
#   scripts/slurm-cluster.sh stop /tmp/weft-slurm
set -euo pipefail

folder=${2:?"slurm-cluster.sh start|stop FOLDER"}
daemons="node2 node1 slurmctld munged"

stop() {
  for name in $daemons; do
    [ -f "$folder/$name.pid" ] || continue
    kill "$(cat "$folder/$name.pid")" 2>/dev/null || true
    for _ in $(seq 50); do kill -0 "$(cat "$folder/$name.pid" 2>/dev/null)" 2>/dev/null || break; sleep 0.1; done
  done
}

free_ports() {
  python3 -c 'import socket; s = [socket.socket() for _ in range(3)]; [x.bind(("127.0.0.1", 0)) for x in s]; print(*[x.getsockname()[1] for x in s])'
}

start() {
  if ! { command -v slurmctld && command -v slurmd && command -v munged; } >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null
  fi
  mkdir -p "$folder"/{state,spool1,spool2}
  chmod 755 "$folder"
  head -c 1024 /dev/urandom > "$folder/munge.key"
  chmod 600 "$folder/munge.key"
  munged --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/munged.log" --seed-file="$folder/munge.seed" --force
  read -r ctld one two < <(free_ports)
  host=$(hostname -s)
  # Two GPUs a node that are none: what matters is that the allocation reaches the tasks.
  printf 'Name=gpu File=/dev/tty[0-1]\n' > "$folder/gres.conf"
  printf 'CgroupAutomount=no\n' > "$folder/cgroup.conf"
  cat > "$folder/slurm.conf" <<CONF
ClusterName=weft
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$ctld
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
SlurmctldPidFile=$folder/slurmctld.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdPidFile=$folder/%n.pid
SlurmdLogFile=$folder/%n.log
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
ReturnToService=2
KillWait=10
MpiDefault=none
GresTypes=gpu
NodeName=node1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$one CPUs=2 Gres=gpu:2 State=UNKNOWN
NodeName=node2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$two CPUs=2 Gres=gpu:2 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime=30 State=UP
PartitionName=high Nodes=ALL PriorityTier=2 PreemptMode=OFF State=UP
CONF
  export SLURM_CONF="$folder/slurm.conf"
  slurmctld
  for node in node1 node2; do slurmd -N "$node"; done
  for _ in $(seq 100); do
    [ "$(sinfo --noheader --format=%T --Node --partition=low 2>/dev/null | grep -c idle)" = 2 ] && return
    sleep 0.2
  done
  tail -n 20 "$folder"/*.log >&2
  echo "slurm-cluster: the nodes did not come up; their logs are above" >&2
  return 1
}

case "${1:-}" in
  start) start ;;
  stop) stop ;;
  *) echo "slurm-cluster.sh start|stop FOLDER" >&2; exit 2 ;;
esac
