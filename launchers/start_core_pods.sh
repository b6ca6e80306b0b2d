#!/usr/bin/env bash
# Starts the pods `acquisition` and `databroker` and returns when everything in them works.
# Started again while they run, it starts what is down, or says that all is well.
set -euo pipefail
# shellcheck source=launchers/pods.sh
source "$(dirname "${BASH_SOURCE[0]}")/pods.sh"

usage() {
    cat <<END
Usage: start_core_pods.sh [--timeout SECONDS]
  --timeout SECONDS  give up when not all is ready after this (default: $BP_TIMEOUT)
  BLUESKY_PODS_DIR   folder of the keys (now: $BLUESKY_PODS_DIR)
Images come from image_builders/build_all.sh; settings are in pods/settings.yaml.
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
bp_check acquisition databroker
bp_start acquisition databroker
cat <<END
The pods acquisition and databroker are ready, after $SECONDS s.

  the queue's HTTP server      http://127.0.0.1:60610    and a page that says where things are
  the databroker server        http://127.0.0.1:60640    what was measured
  Kafka                        127.0.0.1:9092            the documents as they pass
  key (Authorization: ApiKey)  $(bp_key_file)

Next:
  bash launchers/start_adaptive_server.sh      # the recommender, which answers adaptive plans
  bash launchers/launch_bluesky.sh             # bsui: RE, db, motor, det, the plans
  bash launchers/stop_pods.sh                  # stops everything; the data stay
END
