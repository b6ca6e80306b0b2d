#!/usr/bin/env bash
# typhos: screens of the simulated motors, detectors and camera, drawn with Qt
set -euo pipefail
# shellcheck source=image_builders/preamble.sh
source "$(dirname "${BASH_SOURCE[0]}")/preamble.sh" "$@"

bp_image typhos-libraries "Libraries of typhos" \
    "What image_builders/typhos.lock names; the image typhos is made from it"
# On those of bluesky: the screens are of the profile's own devices, and the disk has them once.
bp_from bluesky-libraries image_builders/typhos.lock
# What Qt's wheel expects of the system: OpenGL and the X protocol's extensions.
bp_apt libegl1 libgl1 libglib2.0-0 libdbus-1-3 libxkbcommon-x11-0 libxcb-icccm4 libxcb-image0 \
    libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 libxcb-shape0 libxcb-xinerama0 libxcb-xkb1
bp_python image_builders/typhos.lock
# 190 MB that only 3D drawing and Qt's other toolkit (QML) would use.
bp_shell <<'EOS'
rm -rf /usr/lib/*/libLLVM*.so* /usr/lib/*/libz3.so* /usr/lib/*/dri
cd /opt/venv/lib/python3.11/site-packages/PyQt5/Qt5
rm -rf qml qsci translations
EOS
bp_commit

bp_image typhos "Typhos" "Screens of the beamline's motors, detectors and camera"
bp_from typhos-libraries "${bp_package_sources[@]}" image_builders/typhos
bp_package
bp_program show-devices <"$bp_root/image_builders/typhos/show-devices"
bp_shell <<'EOS'
install -d -o bluesky -g bluesky -m 0700 /run/bluesky
EOS
bp_commit --env XDG_RUNTIME_DIR=/run/bluesky --env PYDM_EPICS_LIB=PYEPICS --cmd '["show-devices"]'
