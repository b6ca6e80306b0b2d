#!/usr/bin/env bash
# bluesky: bsui, the queueserver, recorder and recommender, all from one environment
set -euo pipefail
# shellcheck source=image_builders/preamble.sh
source "$(dirname "${BASH_SOURCE[0]}")/preamble.sh" "$@"

# The libraries change seldom and are most of the size: an image of their own below the package.
bp_image bluesky-libraries "Libraries of bluesky-plugins" \
    "What image_builders/bluesky.lock names; the image bluesky is made from it"
bp_from bluesky-base image_builders/bluesky.lock
# With Tk matplotlib has windows for bsui's plots, where there is a display.
bp_apt python3-tk
bp_python image_builders/bluesky.lock
bp_commit

bp_image bluesky "bluesky-plugins" \
    "The package with all it needs: bsui, queueserver, recorder, recommender, databroker server"
bp_from bluesky-libraries "${bp_package_sources[@]}" launchers
bp_package
bp_copy launchers /opt/bluesky-plugins/launchers
bp_shell <<'EOS'
find /opt/bluesky-plugins/launchers -name __pycache__ -prune -exec rm -r {} +
install -d -o bluesky -g bluesky -m 0755 /var/lib/camera
EOS
bp_commit --cmd '["bluesky-plugins", "--help"]'
