#!/usr/bin/env bash
# A private one-node Slurm on loopback for the tests: accounting, two pretended GPUs, two partitions that preempt.
#   tests/slurm/up.sh DIR [PORT]   then: export SLURM_CONF=DIR/slurm.conf   at the end: tests/slurm/down.sh DIR
# Packages (Debian): slurmctld slurmd slurmdbd slurm-client slurm-wlm-mysql-plugin munge mariadb-server-core
# mariadb-client-core. Needs root.
set -euo pipefail
export PATH=/usr/sbin:/sbin:$PATH
D=$(realpath -m "$1") PORT=${2:-26917} HOST=$(hostname -s)
export SLURM_CONF=$D/slurm.conf
mkdir -p "$D"/{state,spool,log,run,dev}
chmod 755 "$D" "$D/run"

until_ok() { # SECONDS COMMAND...: wait for a success
  local what=$2 end=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < end)) || { echo "up.sh: $what: no answer" >&2; tail -n 5 "$D"/log/* >&2; exit 1; }
    sleep 0.1
  done
}

# A GPU is any character device that gres.conf names; these are further null devices.
for n in 0 1; do mknod -m 666 "$D/dev/nvidia$n" c 1 3 2>/dev/null || ln -sf /dev/null "$D/dev/nvidia$n"; done
cat >"$D/gres.conf" <<CONF
AutoDetect=off
NodeName=$HOST Name=gpu Flags=nvidia_gpu_env File=$D/dev/nvidia[0-1]
CONF

# cred_expire: how long a requeued job waits for its next start (default two minutes).
# linuxproc: signals reach every process of a job, the strictest case for clean stops.
cat >"$SLURM_CONF" <<CONF
ClusterName=oelm
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=$PORT
SlurmdPort=$((PORT + 1))
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$D/run/munge.socket,cred_expire=5
StateSaveLocation=$D/state
SlurmdSpoolDir=$D/spool
SlurmctldPidFile=$D/run/slurmctld.pid
SlurmdPidFile=$D/run/slurmd.pid
SlurmctldLogFile=$D/log/slurmctld.log
SlurmdLogFile=$D/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$((PORT + 2))
AccountingStoragePass=$D/run/munge.socket
MpiDefault=none
MailProg=/bin/true
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
GresTypes=gpu
ReturnToService=2
KillWait=10
MinJobAge=3600
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
NodeName=$HOST NodeAddr=127.0.0.1 CPUs=4 RealMemory=4000 Gres=gpu:2 State=UNKNOWN
PartitionName=low  Nodes=$HOST Default=YES MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=high Nodes=$HOST MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
CONF
(umask 077; cat >"$D/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$D/run/munge.socket
DbdHost=$HOST
DbdAddr=127.0.0.1
DbdPort=$((PORT + 2))
CommunicationParameters=NoInAddrAny
SlurmUser=root
LogFile=$D/log/slurmdbd.log
PidFile=$D/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
CONF
dd if=/dev/urandom of="$D/run/munge.key" bs=128 count=1 status=none)

munged --socket="$D/run/munge.socket" --key-file="$D/run/munge.key" --pid-file="$D/run/munged.pid" \
  --log-file="$D/log/munged.log" --seed-file="$D/run/munge.seed" </dev/null >"$D/log/munged.out" 2>&1
encode() { munge -S "$D/run/munge.socket" -n; }
until_ok 60 encode

# The accounting's database: on a socket only, which slurmdbd finds through MYSQL_UNIX_PORT.
export MYSQL_UNIX_PORT=$D/run/mysql.sock
database=(--no-defaults --datadir="$D/db" --user=root --skip-name-resolve --innodb-use-native-aio=0
  --innodb-buffer-pool-size=32M --innodb-log-file-size=16M --innodb-flush-log-at-trx-commit=0)
mariadb-install-db "${database[@]}" --auth-root-authentication-method=normal --skip-test-db >"$D/log/install-db.out" 2>&1
setsid mariadbd "${database[@]}" --socket="$MYSQL_UNIX_PORT" --skip-networking --pid-file="$D/run/mariadbd.pid" \
  --log-error="$D/log/mariadbd.log" </dev/null >/dev/null 2>&1 &
query() { mariadb --no-defaults -S "$MYSQL_UNIX_PORT" -u root -e "select 1"; }
until_ok 60 query
slurmdbd </dev/null >"$D/log/slurmdbd.out" 2>&1
until_ok 60 sacctmgr -n show cluster
sacctmgr -i add cluster oelm >/dev/null

slurmctld </dev/null >"$D/log/slurmctld.out" 2>&1
ping_ok() { scontrol ping | grep -q "is UP"; }
until_ok 60 ping_ok
slurmd -N "$HOST" </dev/null >"$D/log/slurmd.out" 2>&1
idle() { [ "$(sinfo -h -p low -o %T)" = idle ]; }
until_ok 60 idle
sinfo -o "%P %T %C %G"
