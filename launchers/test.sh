#!/usr/bin/env bash
# All checks and tests: formatting, types, layers, unit, contract and system tests.
# Arguments go to pytest and then only pytest runs: `bash launchers/test.sh tests/unit`.
# As root with CI=true it first installs what pip cannot bring; elsewhere tests that lack it are skipped.
set -euo pipefail
if [ "${CI:-}" = true ] && [ "$(id -u)" -eq 0 ]; then
    bash "$(dirname "${BASH_SOURCE[0]}")/install_system_packages.sh"
fi
# shellcheck source=launchers/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "${bp_root:?}"
if [ "$#" -gt 0 ]; then
    exec python -m pytest "$@"
fi
echo "== ruff =="
ruff format --check .
ruff check .
echo "== mypy =="
mypy
echo "== import-linter =="
lint-imports
echo "== pytest =="
exec python -m pytest
