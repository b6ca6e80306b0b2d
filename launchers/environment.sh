#!/usr/bin/env bash
# Sourced by the launchers: makes .venv in the clone from the lock file, once, and uses it.
# In an image of image_builders it uses the environment of the image.
# Needs Python 3.11, 3.12 or 3.13 with venv; nothing else, no root.

bp_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

bp_find_python() {
    local name
    for name in ${BLUESKY_PLUGINS_TEST_PYTHON:-python3.13 python3.12 python3.11 python3 python}; do
        if "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    echo "bluesky-plugins needs Python 3.11, 3.12 or 3.13; none was found on PATH." >&2
    echo "  Debian, Ubuntu: apt install python3 python3-venv;  Fedora: dnf install python3.13" >&2
    return 1
}

# The pinned uv with its hashes, as pip wants them.
bp_pinned_uv() {
    awk '/^uv==/ {on = 1; print; next} on && /^    --hash/ {print; next} on {exit}' "$bp_root/requirements.lock"
}

bp_make_environment() {
    local venv="$bp_root/.venv" python stamp quiet=--quiet
    [ -t 2 ] && quiet=  # somebody looks on: uv shows how far it is
    stamp=$(cat "$bp_root/requirements.lock" "$bp_root/setup.cfg" "$bp_root/pyproject.toml" | sha256sum | cut -d' ' -f1)
    if [ -x "$venv/bin/bluesky-plugins" ] && [ "$(cat "$venv/.made-from" 2>/dev/null)" = "$stamp" ]; then
        return
    fi
    if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -c '' 2>/dev/null; then
        python=$(bp_find_python) || return 1
        echo "Making .venv with $("$python" --version) ..." >&2
        if ! "$python" -m venv "$venv"; then
            rm -rf "$venv"
            echo "$python cannot make a virtual environment (Debian, Ubuntu: apt install python3-venv)" >&2
            return 1
        fi
    fi
    echo "Installing what requirements.lock names (about 1.5 GB, a few minutes the first time) ..." >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --require-hashes -r <(bp_pinned_uv) || return 1
    "$venv/bin/uv" pip sync $quiet --python "$venv/bin/python" \
        --require-hashes "$bp_root/requirements.lock" || return 1
    "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" \
        --no-deps --no-build-isolation -e "$bp_root" || return 1
    echo "$stamp" > "$venv/.made-from"
}

# In an image the environment is there, and the launchers lie alone beside it.
if [ -x /opt/venv/bin/bluesky-plugins ] && [ ! -e "$bp_root/setup.cfg" ]; then
    PATH="/opt/venv/bin:$PATH"
else
    bp_make_environment || exit 1
    PATH="$bp_root/.venv/bin:$PATH"
fi
export PATH
