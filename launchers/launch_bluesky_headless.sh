#!/usr/bin/env bash
# bsui without graphics in a container of the acquisition pod: takes commands from a pipe or a
# terminal, runs them as typed, prints to stdout, ends at `exit` or at the end of input.
#
#   echo 'RE(count([det], 3))' | bash launchers/launch_bluesky_headless.sh
#
# Exit status: 0 when it came to `exit` or the end of input, 1 when it could not start, 2 for bad usage.
set -euo pipefail
# shellcheck source=launchers/interactive.sh
source "$(dirname "${BASH_SOURCE[0]}")/interactive.sh"

usage() {
    cat <<'END'
Usage: launch_bluesky_headless.sh [IMAGE] < COMMANDS
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
bp_need_pod
bp_need_image "$image" "$builder"
bp_in_pod
# A terminal only where the person has one on both ends: otherwise its echo and line ends would get
# into what is printed.
terminal=(--interactive)
[ -t 0 ] && [ -t 1 ] && terminal+=(--tty)
exec podman run "${terminal[@]}" "${BP_IN_POD[@]}" --name "bsui-headless-$$" "localhost/$image:latest" \
    bluesky-plugins bsui --headless
