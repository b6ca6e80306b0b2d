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

# A copy of a checkout, so that nothing is written into it, and owned by who builds: git tells nothing
# about a repository of somebody else.
bp_copy_checkout() {
    mkdir -p "$2"
    # Status 1: a file has changed meanwhile, for instance because git is at work there.
    { tar -C "$1" -c --warning=no-file-changed --exclude=./.venv --exclude=./build --exclude=./dist \
        --exclude=__pycache__ . || [ "$?" -eq 1 ]; } | tar -x --no-same-owner -C "$2"
}

# What git says of it; one that is not git's (an unpacked sdist) has no more than its version.
bp_git_version() {
    if [ -e "$1/.git" ]; then
        git -C "$1" describe --tags --always --dirty --broken 2>/dev/null || echo "git has no commit"
    else
        echo "no git"
    fi
}

# bp_build_wheel FOLDER WHEELS CHECKOUT : on the host, where git is, which many a version comes from.
bp_build_wheel() {
    "$bp_uv" build --wheel --out-dir "$2" "$1" >"$bp_scratch/build.log" 2>&1 || bp_fail \
        "No wheel can be made of $3; the last lines of its build:" "$(tail -n 20 "$bp_scratch/build.log")"
}

bp_find_checkouts
bp_image bluesky-dev "bluesky-plugins with checkouts" "The image bluesky, and over its libraries what lay in checkouts"
bp_from bluesky
bp_find_uv
made=()
for number in "${!bp_checkouts[@]}"; do
    checkout=${bp_checkouts[$number]}
    bp_copy_checkout "$checkout" "$bp_scratch/source/$number"
    version_of_git=$(bp_git_version "$bp_scratch/source/$number")
    bp_build_wheel "$bp_scratch/source/$number" "$bp_scratch/wheels/$number" "$checkout"
    wheel=$(basename "$bp_scratch/wheels/$number"/*.whl)
    distribution=${wheel%%-*} version=${wheel#*-}
    made+=("${distribution//_/-} ${version%%-*} ($version_of_git)")
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
