#!/usr/bin/env bash
# Starts the pod `recommender`, which answers adaptive plans, and returns when it works.
# The pod `acquisition` must run: its Kafka and its Mongo are used.
set -euo pipefail
# shellcheck source=launchers/pods.sh
source "$(dirname "${BASH_SOURCE[0]}")/pods.sh"

usage() {
    cat <<END
Usage: start_adaptive_server.sh [--timeout SECONDS]
  --timeout SECONDS  give up when it is not ready after this (default: $BP_TIMEOUT)
  BLUESKY_PODS_DIR   folder of the keys (now: $BLUESKY_PODS_DIR)
END
}

arguments=("$@")
while [ "$#" -gt 0 ]; do
    case $1 in
    -h | --help) usage; exit 0 ;;
    --timeout)
        bp_whole_seconds "${2:-}" --timeout
        BP_TIMEOUT=$2
        shift 2
        ;;
    *) usage >&2; exit 2 ;;
    esac
done

bp_lock "${arguments[@]}"
bp_need_podman
[ "$(bp_state acquisition)" = running ] ||
    bp_fail "The pod acquisition does not run, and the recommender needs its Kafka and its Mongo." \
        "  bash launchers/start_core_pods.sh"
bp_check recommender
bp_start recommender
cat <<END
The pod recommender is ready, after $SECONDS s.

  batches and their decisions  http://127.0.0.1:60620/api/batches
  key (Authorization: ApiKey)  $(bp_key_file)

Next, in bsui (bash launchers/launch_bluesky.sh):
  RE(adaptive_plan([det], {motor: 0}, to_recommender=to_recommender, from_recommender=from_recommender))
END
