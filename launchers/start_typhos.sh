#!/usr/bin/env bash
# Typhos screens of the simulated motors, detectors and camera, in a container of the acquisition pod.
#
#   bash launchers/start_typhos.sh                      # a window on the display of DISPLAY
#   bash launchers/start_typhos.sh motor detectors      # only these
#   bash launchers/start_typhos.sh --picture screens.png    # no display: a picture, and end
set -euo pipefail
# shellcheck source=launchers/interactive.sh
source "$(dirname "${BASH_SOURCE[0]}")/interactive.sh"

usage() {
    cat <<'END'
Usage: start_typhos.sh [--picture FILE] [SCREEN...]
  SCREEN          motor, motor1, motor2, detectors, camera (default: all of them)
  --picture FILE  needs no display: print what the screens show, write a PNG of them, end
END
}

screens=() picture=''
while [ "$#" -gt 0 ]; do
    case $1 in
    -h | --help) usage; exit 0 ;;
    --picture)
        [ -n "${2:-}" ] || { usage >&2; exit 2; }
        picture=$2
        shift
        ;;
    motor | motor1 | motor2 | detectors | camera) screens+=("$1") ;;
    *) echo "no such screen or option: $1" >&2; usage >&2; exit 2 ;;
    esac
    shift
done
[ -z "$picture" ] || [ -d "$(dirname "$picture")" ] ||
    bp_fail "the folder of the picture is not there: $(dirname "$picture")"
bp_need_pod
bp_need_image typhos build_typhos_image.sh
bp_in_pod
BP_IN_POD+=(--name "typhos-$$")

if [ -n "$picture" ]; then
    # Out of the container by its standard output: no folder of the host has to be writable for its user.
    bp_say "opening the screens without a display ..."
    : >"$picture" || bp_fail "the picture cannot be written: $picture"
    podman run "${BP_IN_POD[@]}" --log-driver none localhost/typhos:latest \
        show-devices --picture - "${screens[@]}" >"$picture"
    bp_say "written: $picture"
    exit 0
fi
bp_display
if [ -n "$BP_DISPLAY_WHY" ]; then
    echo "start_typhos.sh opens a window, and there is no display for it: $BP_DISPLAY_WHY." >&2
    bp_display_help
    echo "  A picture without a display: bash launchers/start_typhos.sh --picture screens.png" >&2
    exit 1
fi
podman run "${BP_IN_POD[@]}" "${BP_DISPLAY[@]}" --log-driver none localhost/typhos:latest \
    show-devices "${screens[@]}"
