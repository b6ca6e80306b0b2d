#!/usr/bin/env bash
# bluesky-dev: the image bluesky with checkouts that lie beside this repository
set -euo pipefail

usage() {
    cat <<'END'
Usage: build_bluesky_snapshot.sh [--checkouts DIR] [NAME...]

Builds the image bluesky-dev: the image bluesky, and over its libraries the checkouts of these that are
found, without their dependencies. Start it: bash launchers/launch_bluesky.sh bluesky-dev

  --checkouts DIR  folder of the checkouts (default: the one that holds this repository)
  NAME             a checkout, by its folder's name; all of them must be there
                   (default: those of the list below that are there, and this repository)
END
    printf '  The list: %s\n' "${known[*]}"
}

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
checkouts=$(dirname "$repository")
known=(bluesky ophyd event-model databroker tiled bluesky-queueserver bluesky-queueserver-api
    bluesky-httpserver bluesky-kafka bluesky-live bluesky-widgets bluesky-adaptive suitcase-mongo caproto)
names=()
while [ "$#" -gt 0 ]; do
    case $1 in
    -h | --help) usage; exit 0 ;;
    --checkouts)
        [ -d "${2:-}" ] || { echo "--checkouts: no such folder: '${2:-}'" >&2; exit 2; }
        checkouts=$(cd "$2" && pwd)
        shift
        ;;
    -*) echo "unknown option: $1" >&2; usage >&2; exit 2 ;;
    *) names+=("$1") ;;
    esac
    shift
done

# A snapshot is of what lies there now: it is built anew each time.
# shellcheck source=image_builders/preamble.sh
source "$(dirname "${BASH_SOURCE[0]}")/preamble.sh" --force

bp_is_checkout() { [ -e "$1/pyproject.toml" ] || [ -e "$1/setup.py" ]; }

# Sets bp_checkouts: their folders.
bp_find_checkouts() {
    local name
    bp_checkouts=()
    for name in "${names[@]}"; do
        [[ $name != */* ]] || bp_fail "$name: the name of a folder in $checkouts is expected (--checkouts names another)."
        bp_is_checkout "$checkouts/$name" ||
            bp_fail "$checkouts/$name is no checkout of a Python package: it has no pyproject.toml and no setup.py."
        bp_checkouts+=("$checkouts/$name")
    done
    [ "${#names[@]}" -eq 0 ] || return 0
    for name in "${known[@]}"; do
        ! bp_is_checkout "$checkouts/$name" || bp_checkouts+=("$checkouts/$name")
    done
    [ "${#bp_checkouts[@]}" -gt 0 ] || bp_fail \
        "No checkout was found in $checkouts, so there is nothing to make bluesky-dev of." \
        "  Looked for: ${known[*]}" \
        "  git clone one there, name their folder (--checkouts DIR), or a folder by its name" \
        "  (this repository alone: build_bluesky_snapshot.sh $(basename "$repository"))."
    bp_checkouts+=("$repository")
}

# What git says of a checkout; one that is not git's (an unpacked sdist) has no more than its version.
bp_git_version() {
    git -C "$1" rev-parse --show-toplevel 2>/dev/null | grep -qx "$1" || { echo "no git"; return; }
    git -C "$1" describe --tags --always --dirty --broken
}

# bp_build_wheel FOLDER : on the host, where git is, which many a version comes from; in a copy, so that
# nothing is written into the checkout.
bp_build_wheel() {
    local name copy=$bp_scratch/source/$2
    name=$(basename "$1")
    mkdir -p "$copy"
    (cd "$1" && tar -c --exclude=./.venv --exclude=./build --exclude=./dist --exclude=__pycache__ .) | tar -x -C "$copy"
    "$bp_uv" build --quiet --wheel --out-dir "$bp_scratch/wheels/$2" "$copy" >"$bp_scratch/build.log" 2>&1 || bp_fail \
        "No wheel can be made of $1; the last lines of its build:" "$(tail -n 12 "$bp_scratch/build.log")"
}

bp_find_checkouts
bp_image bluesky-dev "bluesky-plugins with checkouts" "The image bluesky, and over its libraries what lay in checkouts"
bp_from bluesky
bp_find_uv
made=()
for number in "${!bp_checkouts[@]}"; do
    checkout=${bp_checkouts[$number]}
    bp_build_wheel "$checkout" "$number"
    wheel=$(basename "$bp_scratch/wheels/$number"/*.whl)
    distribution=${wheel%%-*} version=${wheel#*-}
    made+=("${distribution//_/-} ${version%%-*} ($(bp_git_version "$checkout"))")
    bp_say "bluesky-dev: ${made[-1]}, from $checkout"
done
bp_uv_run -- sh -euc '
    /run/bp-uv pip install --quiet --python /opt/venv/bin/python --no-deps --reinstall --no-index \
        --compile-bytecode /run/bp/wheels/*/*.whl
    # Whether the rest still fits is for the person to judge.
    /run/bp-uv pip check --python /opt/venv/bin/python || true
'
if [[ " ${bp_checkouts[*]} " == *" $repository "* ]]; then
    bp_copy launchers /opt/bluesky-plugins/launchers
fi
bp_commit --label "io.bluesky-plugins.checkouts=$(printf '%s; ' "${made[@]}")" --cmd '["bluesky-plugins", "--help"]'
