#!/usr/bin/env bash
# Focus a beam by what jobs see in the frames of a camera: sets up what is missing, runs it, shows it.
# Options are those of `bluesky-plugins demo-focus` (--help, --json, --state-dir DIR ...). With --target slurm
# it first starts the pod `compute`, where there is a podman.
set -euo pipefail
launchers=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launchers/environment.sh
source "$launchers/environment.sh"

target=local previous=
for word in "$@"; do
    case $previous=$word in
    --help=* | *=--help | *=-h) target=none ;;
    --target=*) target=$word ;;
    *=--target=*) target=${word#--target=} ;;
    # The pod sees the camera's folder of the same stack.
    --state-dir=*) BLUESKY_PLUGINS_STATE_DIR=$(realpath -m "$word") ;;
    *=--state-dir=*) BLUESKY_PLUGINS_STATE_DIR=$(realpath -m "${word#--state-dir=}") ;;
    esac
    previous=$word
done
if [ "$target" = slurm ] && command -v podman >/dev/null; then
    [ -z "${BLUESKY_PLUGINS_STATE_DIR:-}" ] || export BLUESKY_PLUGINS_STATE_DIR
    bash "$launchers/start_compute_pod.sh" >&2
fi
exec bluesky-plugins demo-focus "$@"
