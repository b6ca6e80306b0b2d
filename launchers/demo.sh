#!/usr/bin/env bash
# The closed loop on this machine: sets up what is missing, runs it, shows what came out.
# Options are those of `bluesky-plugins demo` (--help, --json, --state-dir DIR ...).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
exec bluesky-plugins demo "$@"
