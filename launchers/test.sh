#!/usr/bin/env bash
# All checks and tests: formatting, types, layers; unit, contract, system and pods tests.
# Arguments go to pytest and then only pytest runs: `bash launchers/test.sh tests/unit`.
# All together run in two processes: what most of them do most of the time is to wait. After them,
# one by one, run those that hold the product to a time (`-m timed`).
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
if [ "${CI:-}" = true ] && [ "$(id -u)" -eq 0 ]; then
    # Minutes of mostly waiting, while other tests run. tests/pods builds what is missing then, and
    # says what went wrong.
    nice bash image_builders/build_all.sh >/dev/null 2>&1 </dev/null &
fi
echo "== ruff =="
ruff format --check .
ruff check .
echo "== mypy =="
mypy
echo "== import-linter =="
lint-imports
echo "== pytest =="
status=0
python -m pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder -m "not timed" || status=$?
echo "== pytest, timed =="
python -m pytest -m timed || status=$?
exit "${status}"
