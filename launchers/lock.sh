#!/usr/bin/env bash
# Resolve setup.cfg anew into requirements.lock: exact versions with hashes, no host names. Then
# what each image needs of it, into image_builders/NAME.lock: the same versions, fewer packages.
#
#   bash launchers/lock.sh            # all
#   bash launchers/lock.sh --images   # the images' alone
set -euo pipefail
cd "$(dirname "$0")/.."

compile() {
    .venv/bin/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
        --custom-compile-command 'bash launchers/lock.sh' "$@"
}

if [ "${1:-}" = --images ]; then
    shift
else
    compile "$@" --extra all setup.cfg -o requirements.lock
fi
compile --constraint requirements.lock --extra profile --extra ssh setup.cfg -o image_builders/bluesky.lock
for source in image_builders/*.in; do
    compile --constraint requirements.lock "$source" -o "${source%.in}.lock"
done
# The demo makes this environment on machines without a clone, too.
cp image_builders/focus.lock bluesky_plugins/processing/examples/focus.lock
