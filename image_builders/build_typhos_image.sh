#!/usr/bin/env bash
# typhos: screens of the simulated motors, detectors and camera
set -euo pipefail
# shellcheck source=image_builders/preamble.sh
source "$(dirname "${BASH_SOURCE[0]}")/preamble.sh" "$@"

bp_image typhos-libraries "Libraries of typhos" \
    "What image_builders/typhos.lock names; the image typhos is made from it"
# On those of bluesky: the screens are of the profile's own devices, and Qt is there.
bp_from bluesky-libraries image_builders/typhos.lock
bp_python image_builders/typhos.lock
bp_commit

bp_image typhos "Typhos" "Screens of the beamline's motors, detectors and camera"
bp_from typhos-libraries "${bp_package_sources[@]}" image_builders/typhos
bp_package
bp_program show-devices <"$bp_root/image_builders/typhos/show-devices"
bp_commit --env PYDM_EPICS_LIB=PYEPICS --cmd '["show-devices"]'
