#!/usr/bin/env bash
# databroker-server: Tiled serving what the recorder wrote; the bluesky image and a program
set -euo pipefail
# shellcheck source=image_builders/preamble.sh
source "$(dirname "${BASH_SOURCE[0]}")/preamble.sh" "$@"

bp_image databroker-server "Databroker server" "Recorded runs over HTTP (Tiled), from MongoDB in databroker's layout"
bp_from bluesky
# For probes.
bp_apt curl
bp_program start-databroker-server <<'PROGRAM'
#!/usr/bin/env bash
# Serves on 127.0.0.1:60641, with the key that the settings name. Options: --help.
set -euo pipefail
exec python -P -m bluesky_plugins.recording.serving "$@"
PROGRAM
bp_commit --cmd '["start-databroker-server"]' --port 60641 --stop-signal SIGTERM \
    --healthcheck 'CMD curl --fail --silent --show-error --max-time 10 --output /dev/null http://127.0.0.1:60641/healthz' \
    --healthcheck-interval 30s --healthcheck-timeout 15s --healthcheck-start-period 60s --healthcheck-retries 3
