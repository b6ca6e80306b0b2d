#!/usr/bin/env bash
# Stops and removes the pods, what else runs in their network, and the network. Data and keys stay,
# unless --data is given.
set -euo pipefail
# shellcheck source=launchers/pods.sh
source "$(dirname "${BASH_SOURCE[0]}")/pods.sh"

usage() {
    cat <<END
Usage: stop_pods.sh [--data]
  --data            also remove the data volumes and the keys: everything that was measured
  BLUESKY_PODS_DIR  folder of the keys (now: $BLUESKY_PODS_DIR)
END
}

data=no
case ${1:-} in
'') ;;
--data) data=yes ;;
-h | --help) usage; exit 0 ;;
*) usage >&2; exit 2 ;;
esac
[ "$#" -le 1 ] || { usage >&2; exit 2; }

bp_lock "$@"
bp_need_podman

# All at once: each may take its 10 s.
stopping=()
for pod in "${BP_PODS[@]}"; do
    bp_remove_pod "$pod" &
    stopping+=("$!")
done
status=0
for process in "${stopping[@]}"; do wait "$process" || status=1; done
[ "$status" -eq 0 ] || bp_fail "Not every pod could be removed: see above, and 'podman pod ps'."

if podman network exists "$BP_NETWORK"; then
    mapfile -t guests < <(podman ps --all --quiet --filter "network=$BP_NETWORK")
    if [ "${#guests[@]}" -gt 0 ]; then
        bp_say "Removing what else is in the network $BP_NETWORK: $(podman inspect --format '{{.Name}}' "${guests[@]}" | tr '\n' ' ')"
        bp_quietly podman rm --force --time 5 "${guests[@]}"
    fi
    podman network rm "$BP_NETWORK" >/dev/null
fi
bp_remove_passing_volumes
rm -f "$BLUESKY_PODS_DIR"/*.made-from

mapfile -t volumes < <(for pod in "${BP_PODS[@]}"; do bp_claims_of "$pod"; done | sort -u)
if [ "$data" = yes ]; then
    for volume in "${volumes[@]}"; do
        podman volume exists "$volume" || continue
        podman volume rm "$volume" >/dev/null
        echo "removed: volume $volume"
    done
    for name in api_key redis_password mongo_password jupyter_token; do
        [ -e "$BLUESKY_PODS_DIR/$name" ] || continue
        rm "$BLUESKY_PODS_DIR/$name"
        echo "removed: $BLUESKY_PODS_DIR/$name"
    done
    if [ -d "$(bp_compute_keys)" ]; then
        rm -r "$(bp_compute_keys)"
        echo "removed: $(bp_compute_keys)"
    fi
    ! podman volume exists jupyter-notebooks ||
        echo "kept: volume jupyter-notebooks, your notebooks (podman volume rm jupyter-notebooks)"
    echo "The pods are gone, and their data."
else
    echo "The pods are gone. Data (podman volume ls) and keys ($BLUESKY_PODS_DIR) are kept."
fi
