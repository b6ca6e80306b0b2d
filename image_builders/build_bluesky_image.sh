#!/usr/bin/env bash
# bluesky: bsui, the queueserver, recorder and recommender, all from one environment
set -euo pipefail
# shellcheck source=image_builders/preamble.sh
source "$(dirname "${BASH_SOURCE[0]}")/preamble.sh" "$@"

# The libraries change seldom and are most of the size: an image of their own below the package.
bp_image bluesky-libraries "Libraries of bluesky-plugins" \
    "What image_builders/bluesky.lock and qt.lock name; the image bluesky is made from it"
bp_from bluesky-base image_builders/bluesky.lock image_builders/qt.lock image_builders/focus.lock
# Plots of bsui, where there is a display, need Qt; and that, of the system, OpenGL and the X protocol.
bp_apt libegl1 libgl1 libglib2.0-0 libdbus-1-3 libfontconfig1 fonts-dejavu-core libxkbcommon-x11-0 \
    libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 libxcb-shape0 \
    libxcb-xinerama0 libxcb-xkb1
bp_python image_builders/bluesky.lock
bp_python image_builders/qt.lock
# What the recommender processes on its own machine.
bp_focus_libraries
# 190 MB that only 3D drawing and Qt's other toolkit (QML) would use.
bp_shell <<'EOS'
rm -rf /usr/lib/*/libLLVM*.so* /usr/lib/*/libz3.so* /usr/lib/*/dri
cd /opt/venv/lib/python3.11/site-packages/PyQt5/Qt5
rm -rf qml qsci translations
install -d -o bluesky -g bluesky -m 0700 /run/bluesky
EOS
bp_commit --env XDG_RUNTIME_DIR=/run/bluesky

bp_image bluesky "bluesky-plugins" \
    "The package with all it needs: bsui, queueserver, recorder, recommender, databroker server"
bp_from bluesky-libraries "${bp_package_sources[@]}" launchers
bp_package
bp_focus
bp_copy launchers /opt/bluesky-plugins/launchers
bp_shell <<'EOS'
find /opt/bluesky-plugins/launchers -name __pycache__ -prune -exec rm -r {} +
install -d -o bluesky -g bluesky -m 0755 /var/lib/camera
EOS
bp_commit --cmd '["bluesky-plugins", "--help"]'
