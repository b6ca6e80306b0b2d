#!/usr/bin/env bash
# Focus a beam by what jobs see in the frames of a camera: sets up what is missing, runs it, shows it.
# Options are those of `bluesky-plugins demo-focus` (--help, --target slurm, --json, --state-dir DIR ...).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
exec bluesky-plugins demo-focus "$@"
