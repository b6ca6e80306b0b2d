#!/usr/bin/env bash
# Starts the pod `compute`, a Slurm of one node behind an sshd, and returns when it takes jobs. It needs no
# other pod: a stack on this machine hands it jobs as well as the recommender pod does.
set -euo pipefail
# shellcheck source=launchers/pods.sh
source "$(dirname "${BASH_SOURCE[0]}")/pods.sh"

# Where the camera of the stack on this machine writes.
data=${BLUESKY_PLUGINS_STATE_DIR:-${XDG_STATE_HOME:-$HOME/.local/state}/bluesky-plugins}/camera

usage() {
    cat <<END
Usage: start_compute_pod.sh [--timeout SECONDS] [--data HOST_FOLDER]
  --timeout SECONDS   give up when it is not ready after this (default: $BP_TIMEOUT)
  --data HOST_FOLDER  what jobs see, and cannot write, as /beamline/data
                      (default: where the camera of this machine's stack writes, $data)
  BLUESKY_PODS_DIR    folder of the keys (now: $BLUESKY_PODS_DIR)
END
}

arguments=("$@")
named=no
while [ "$#" -gt 0 ]; do
    case $1 in
    -h | --help) usage; exit 0 ;;
    --timeout)
        bp_whole_seconds "${2:-}" --timeout
        BP_TIMEOUT=$2
        shift 2
        ;;
    --data)
        data=${2:-} named=yes
        [ -n "$data" ] || { bp_say "--data: a folder is expected"; exit 2; }
        shift 2
        ;;
    *) usage >&2; exit 2 ;;
    esac
done

# Nobody has measured yet: the folder is there before the camera is.
[ "$named" = yes ] || [ -d "$data" ] || mkdir -p "$data"
[ -d "$data" ] || { bp_say "--data: $data is not a folder"; exit 2; }
# Once, whatever folder the lock's own bash works in.
data=$(cd "$data" && pwd -P)
[[ $data =~ ^[^\"\\|[:cntrl:]]+$ ]] || { bp_say "--data: $data has characters that a manifest cannot hold"; exit 2; }

bp_lock "${arguments[@]}"
bp_need_podman
# shellcheck disable=SC2034 # for bp_start
BP_DATA_FOLDER=$data BP_HELPER=localhost/compute:latest

# The mount stays what it was when the pod was made: another folder, or one that was made anew, needs another pod.
bp_sees_data() {
    [ "$(podman exec compute-slurm stat -c %d:%i /beamline/data 2>/dev/null)" = "$(stat -c %d:%i "$data")" ]
}
if [ "$(bp_state compute)" = running ] && ! bp_sees_data; then
    jobs=$(podman exec compute-slurm squeue --noheader | wc -l)
    [ "$jobs" -eq 0 ] || bp_fail "The pod compute has $jobs jobs under way, and another folder of data than $data." \
        "  When they are through, start again; to end them: podman pod rm --force compute"
    bp_say "The pod compute has another folder of data; it is made anew ..."
    bp_remove_pod compute
fi
bp_check compute
bp_start compute
podman exec compute-slurm ls /beamline/data >/dev/null 2>&1 || bp_say \
    "Jobs run as an ordinary user (1000 in the pod), who may not read $data: chmod o+rx '$data'"
cat <<END
The pod compute is ready, after $SECONDS s.

  Slurm, by ssh     ssh -i $(bp_compute_keys)/id_ed25519 -o UserKnownHostsFile=$(bp_compute_keys)/known_hosts \\
                        -p $BP_COMPUTE_PORT beamline@127.0.0.1 sinfo
  /beamline/data    $data
END
