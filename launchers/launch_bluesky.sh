#!/usr/bin/env bash
# bsui, IPython with RE, db, the devices and the plans, in a container of the acquisition pod.
#
#   bash launchers/launch_bluesky.sh                 # the image `bluesky`
#   bash launchers/launch_bluesky.sh bluesky-dev     # with checkouts, see build_bluesky_snapshot.sh
#
# Plots are shown where DISPLAY names a display that the pod can reach; what is measured does not
# depend on it.
set -euo pipefail
# shellcheck source=launchers/interactive.sh
source "$(dirname "${BASH_SOURCE[0]}")/interactive.sh"

usage() {
    cat <<'END'
Usage: launch_bluesky.sh [IMAGE]
  IMAGE   image to start: bluesky (default) or bluesky-dev
END
}

case ${1:-} in
-h | --help) usage; exit 0 ;;
-*) usage >&2; exit 2 ;;
esac
[ "$#" -le 1 ] || { usage >&2; exit 2; }
image=${1:-bluesky}
case $image in
bluesky) builder=build_bluesky_image.sh ;;
bluesky-dev) builder=build_bluesky_snapshot.sh ;;
*) echo "no such image: $image (bluesky or bluesky-dev)" >&2; exit 2 ;;
esac
[ -t 0 ] || bp_fail "launch_bluesky.sh talks to a person at a terminal; for commands from a pipe:" \
    "  bash launchers/launch_bluesky_headless.sh"
bp_need_pod
bp_need_image "$image" "$builder"
bp_in_pod
bp_display
if [ -n "$BP_DISPLAY_WHY" ]; then
    echo "Without plots: $BP_DISPLAY_WHY." >&2
    [ -z "${DISPLAY:-}" ] || bp_display_help
fi
podman run -ti "${BP_IN_POD[@]}" "${BP_DISPLAY[@]}" --name "bsui-$$" "localhost/$image:latest" \
    bluesky-plugins bsui
