#!/usr/bin/env bash
# caproto: the simulated hardware (EPICS IOCs), and nothing that they do not need
set -euo pipefail
# shellcheck source=image_builders/preamble.sh
source "$(dirname "${BASH_SOURCE[0]}")/preamble.sh" "$@"

bp_image caproto "Simulated IOCs" "The simulated beamline over EPICS Channel Access: python -m bluesky_plugins.iocs"
bp_from bluesky-base image_builders/caproto.lock image_builders/tools.lock "${bp_package_sources[@]}"
bp_python image_builders/caproto.lock
bp_package
bp_shell <<'EOS'
install -d -o bluesky -g bluesky -m 0755 /var/lib/camera
EOS
bp_commit --cmd '["python", "-m", "bluesky_plugins.iocs"]' --stop-signal SIGTERM \
    --healthcheck 'CMD bluesky-plugins healthy iocs' --healthcheck-interval 10s --healthcheck-timeout 10s \
    --healthcheck-start-period 20s --healthcheck-retries 3
