#!/usr/bin/env bash
# Stop what up.sh started in DIR: jobs first, then each daemon that its pid file names and that was started for DIR.
#   tests/slurm/down.sh DIR
set -uo pipefail
D=$(realpath "$1") || exit 0
export SLURM_CONF=$D/slurm.conf
scancel -u "$(id -un)" --full 2>/dev/null
for ((n = 0; n < 100; n++)); do [ -n "$(squeue -h 2>/dev/null)" ] || break; sleep 0.2; done
for daemon in slurmd slurmctld slurmdbd mariadbd munged; do
  pid=$(cat "$D/run/$daemon.pid" 2>/dev/null) || continue
  ours() { cat "/proc/$pid/cmdline" "/proc/$pid/environ" 2>/dev/null | tr '\0' '\n' | grep -qF "$D"; }
  ours || continue
  kill "$pid"
  for ((n = 0; n < 100; n++)); do ours || break; sleep 0.1; done
  ! ours || kill -KILL "$pid"
done
