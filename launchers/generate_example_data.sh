#!/usr/bin/env bash
# Makes a run of every common shape on the stack that runs, and prints uid, shape and exit status
# of each: count, scan, grid, camera, fly, several streams, failed, aborted.
#
#   bluesky-plugins up
#   bash launchers/generate_example_data.sh
set -euo pipefail
# shellcheck source=launchers/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
exec python -W ignore -m bluesky_plugins.profile.example_data "$@"
