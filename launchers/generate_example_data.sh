#!/usr/bin/env bash
# Makes a run of every common shape, and prints uid, shape and exit status of each: count, scan,
# grid, camera, fly, several streams, failed, aborted.
#
#   bluesky-plugins up                            # on this machine's own stack, or
#   bash launchers/start_core_pods.sh             # in the pods
#   bash launchers/generate_example_data.sh
#
# It works where a beamline runs: on the stack of `bluesky-plugins up`, else in the acquisition pod.
# In a container of that pod it is the same line with /opt/bluesky-plugins before `launchers`.
set -euo pipefail
folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
    cat <<'END'
Usage: generate_example_data.sh [--pod]
  --pod   in the acquisition pod, also when a stack of `bluesky-plugins up` runs
END
}

where=any
case ${1:-} in
'') ;;
--pod) where=pod ;;
-h | --help) usage; exit 0 ;;
*) echo "no such option: $1" >&2; usage >&2; exit 2 ;;
esac
[ "$#" -le 1 ] || { usage >&2; exit 2; }

generate=(python -W ignore -m bluesky_plugins.profile.example_data)

# An image has no lock file beside its launchers: what it has is installed.
if [ ! -e "$folder/../requirements.lock" ]; then
    exec "${generate[@]}"
fi

# `up` keeps this file while its stack is meant to run. Settings of the person's own come first, too.
stack=${BLUESKY_PLUGINS_STATE_DIR:-${XDG_STATE_HOME:-$HOME/.local/state}/bluesky-plugins}/stack.json
if [ "$where" = any ] && [ ! -e "$stack" ] && [ -z "${BLUESKY_PLUGINS_CONFIG:-}" ] &&
    command -v podman >/dev/null && podman pod exists acquisition 2>/dev/null; then
    where=pod
fi

if [ "$where" = pod ]; then
    # shellcheck source=launchers/interactive.sh
    source "$folder/interactive.sh"
    bp_need_pod
    bp_need_image bluesky build_bluesky_image.sh
    bp_in_pod
    exec podman run --log-driver none "${BP_IN_POD[@]}" --name "example-data-$$" localhost/bluesky:latest \
        bash /opt/bluesky-plugins/launchers/generate_example_data.sh
fi

# shellcheck source=launchers/environment.sh
source "$folder/environment.sh"
exec "${generate[@]}"
