#!/usr/bin/env bash
# Resolve setup.cfg anew into requirements.lock: exact versions with hashes, no host names.
set -euo pipefail
cd "$(dirname "$0")/.."
exec .venv/bin/uv pip compile --universal --generate-hashes --python-version 3.11 --extra all \
    --custom-compile-command 'bash launchers/lock.sh' "$@" setup.cfg -o requirements.lock
