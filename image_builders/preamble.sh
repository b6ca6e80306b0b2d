#!/usr/bin/env bash
# Sourced by every build script of this folder, after `set -euo pipefail`, with the script's arguments:
#
#   source "$(dirname "${BASH_SOURCE[0]}")/preamble.sh" "$@"
#   bp_image redis "Redis" "Redis with a password, for the acquisition pod"
#   bp_from bluesky-base
#   bp_apt redis-server
#   bp_program start-redis <<'PROGRAM'
#   ...
#   PROGRAM
#   bp_commit --volume /var/lib/redis
#
# A script may make several images one on the other (bp_image, bp_from ... bp_commit, again):
# what seldom changes goes into the first. When nothing of what an image is made from has changed,
# everything between its bp_from and bp_commit does nothing ("cached").
# docs of each function: above it.

bp_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bp_script=$(cd "$(dirname "$0")" && pwd)/$(basename "$0")
# shellcheck source=launchers/podman.sh
source "$bp_root/launchers/podman.sh"

bp_cache=${XDG_CACHE_HOME:-$HOME/.cache}/bluesky-plugins/images
bp_jars=${XDG_CACHE_HOME:-$HOME/.cache}/bluesky-plugins/jars
# Where an image that others publish (Debian, MongoDB) is pulled from; `none`: from nowhere.
BP_REGISTRY=${BP_REGISTRY:-docker.io/library}
# A registry that has not begun to answer by then is none, seconds.
BP_REGISTRY_SECONDS=${BP_REGISTRY_SECONDS:-10}
# A pull that has not ended by then has failed, seconds.
BP_PULL_SECONDS=${BP_PULL_SECONDS:-900}
# The only format that has health checks.
export BUILDAH_FORMAT=docker
bp_force=no
bp_container='' bp_scratch='' bp_cached=no

bp_usage() {
    cat <<USAGE
usage: bash ${0} [--force] [--no-pull]

Builds $(sed -n '2s/^# *//p' "$bp_script")

  --force    build also when nothing has changed
  --no-pull  use no container registry (the same: BP_REGISTRY=none)

BP_REGISTRY (now $BP_REGISTRY) is where an image that others publish is pulled from.
USAGE
}

for bp_argument in "$@"; do
    case $bp_argument in
    --force) bp_force=yes ;;
    --no-pull) BP_REGISTRY=none ;;
    -h | --help)
        bp_usage
        exit 0
        ;;
    *)
        bp_usage >&2
        bp_say "unknown option: $bp_argument"
        exit 2
        ;;
    esac
done

bp_clean_up() {
    local status=$?
    trap - EXIT
    [ -z "$bp_container" ] || buildah rm "$bp_container" >/dev/null || status=1
    [ -z "$bp_scratch" ] || rm -rf "$bp_scratch"
    exit "$status"
}
trap bp_clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

bp_need_buildah

# bp_image NAME TITLE DESCRIPTION [LICENSES] : begins localhost/NAME.
bp_image() {
    bp_name=$1 bp_title=$2 bp_description=$3 bp_licenses=${4:-BSD-3-Clause}
    bp_begun=$SECONDS
}

# bp_from PARENT [INPUT...] : a working container from localhost/PARENT, if the
# image is not there yet as made from the same: this script, this preamble, the parent, and the
# INPUTs, files and folders of the repository that go into it.
bp_from() {
    local parent=$1 id
    shift
    id=$(bp_id_of "$parent")
    bp_from_outside "$id" "$@"
    [ "$bp_cached" = yes ] || bp_begin "localhost/$parent"
}

# bp_from_outside [ID [INPUT...]] : as bp_from, for an image that is made from none of ours; bp_begin follows.
bp_from_outside() {
    bp_inputs=$(bp_hash "$@")
    bp_cached=no
    if [ "$bp_force" = no ] && [ "$(bp_label_of "$bp_name")" = "$bp_inputs" ]; then
        bp_cached=yes
    fi
}

# bp_pull IMAGE : from a registry, if it answers: asked first, so that a network that swallows
# everything is noticed soon.
bp_pull() {
    if ! timeout "$BP_REGISTRY_SECONDS" podman manifest inspect "docker://$1" >/dev/null 2>&1; then
        bp_say "$bp_name: no registry gives $1"
        return 1
    fi
    bp_say "$bp_name: pulling $1 ..."
    timeout "$BP_PULL_SECONDS" podman pull --quiet "$1" >/dev/null
}

# bp_begin IMAGE : a working container from an image that podman has, or can pull.
bp_begin() {
    bp_scratch=$(mktemp -d "${TMPDIR:-/tmp}/bp-build.XXXXXX")
    bp_container=$(buildah from --pull=never --name "bp-$bp_name-$$" "$1")
    bp_copy_certificates
}

# bp_id_of PARENT : the id of localhost/PARENT, which must be there.
bp_id_of() {
    podman image inspect --format '{{.Id}}' "localhost/$1" 2>/dev/null || bp_fail \
        "image localhost/$1 is missing, $bp_name is made from it." \
        "  bash image_builders/$(bp_script_of "$1")"
}

# The script that builds an image, by its name.
bp_script_of() {
    case $1 in
    *-libraries) echo "build_${1%-libraries}_image.sh" ;;
    bluesky-dev) echo build_bluesky_snapshot.sh ;;
    *) echo "build_${1//-/_}_image.sh" ;;
    esac
}

# bp_label_of NAME [LABEL] : of an image; empty when there is no such image.
bp_label_of() {
    podman image inspect --format "{{index .Labels \"${2:-io.bluesky-plugins.inputs}\"}}" \
        "localhost/$1" 2>/dev/null || true
}

# bp_hash PARENT_ID INPUT... : what an image is made from, as one hash.
bp_hash() {
    local id=${1:-} path
    [ "$#" -eq 0 ] || shift
    {
        echo "$id"
        for path in "$bp_script" "$bp_root/image_builders/preamble.sh"; do
            sha256sum <"$path"
        done
        for path in "$@"; do
            bp_hash_files "$path"
        done
    } | sha256sum | cut -d' ' -f1
}

bp_hash_files() {
    local path=$1
    [ -e "$bp_root/$path" ] || bp_fail "$path, of which $bp_name is made, is not in $bp_root."
    (cd "$bp_root" && find "$path" -type f -not -path '*/__pycache__/*' -print0 | LC_ALL=C sort -z |
        xargs -0 -r sha256sum)
}

# bp_run [buildah run's options] -- COMMAND... : in the working container, as root.
bp_run() {
    [ "$bp_cached" = no ] || return 0
    local options=()
    while [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    shift
    # Of this machine's network, so that what it can reach (a proxy on it, too) can be reached.
    buildah run --network host --user 0:0 --workingdir / "${options[@]}" "$bp_container" -- "$@" </dev/null
}

# bp_shell : runs the shell script on stdin in the working container, as root.
bp_shell() {
    local script
    script=$(cat)
    bp_run -- sh -euc "$script"
}

# bp_copy SOURCE... DESTINATION : files of the repository (or absolute), owned by root.
bp_copy() {
    [ "$bp_cached" = no ] || return 0
    (cd "$bp_root" && buildah copy --quiet --chown 0:0 "$bp_container" "$@" >/dev/null)
}

# bp_file PATH MODE : what comes on stdin becomes a file of the image, owned by root.
bp_file() {
    local path=$1 mode=$2
    if [ "$bp_cached" = yes ]; then
        cat >/dev/null
        return 0
    fi
    cat >"$bp_scratch/file"
    buildah copy --quiet --chown 0:0 --chmod "$mode" "$bp_container" "$bp_scratch/file" "$path" >/dev/null
}

# bp_program NAME : what comes on stdin becomes a program in /opt/bluesky-plugins/bin (on PATH).
bp_program() { bp_file "/opt/bluesky-plugins/bin/$1" 0755; }

# The host's own certificate authorities, where it has been told of some. They are mounted for
# the commands that fetch something, under /run, and do not stay in the image.
bp_copy_certificates() {
    local bundle=${SSL_CERT_FILE:-${PIP_CERT:-}}
    bp_certificates=()
    [ -n "$bundle" ] || return 0
    [ -r "$bundle" ] || bp_fail "SSL_CERT_FILE or PIP_CERT names $bundle, which cannot be read."
    cp "$bundle" "$bp_scratch/ca.pem"
    bp_certificates=(-v "$bp_scratch/ca.pem:/run/bp-ca.pem:ro")
    local name
    for name in SSL_CERT_FILE PIP_CERT REQUESTS_CA_BUNDLE; do
        bp_certificates+=(--env "$name=/run/bp-ca.pem")
    done
}

# bp_apt [--upgrade] PACKAGE... : Debian packages; with --upgrade those that are there are renewed first. Lists and archives are kept on the host, not in the image.
bp_apt() {
    [ "$bp_cached" = no ] || return 0
    local lists=$bp_cache/apt/lists archives=$bp_cache/apt/archives proxy options=()
    mkdir -p "$lists/partial" "$archives/partial"
    # The host's own way to Debian's packages, where it has been told of one.
    if command -v apt-config >/dev/null; then
        proxy=$(apt-config dump --format '%v' Acquire::http::Proxy)
        [ -z "$proxy" ] || options+=(-o "Acquire::http::Proxy=$proxy")
    fi
    [ "${#bp_certificates[@]}" -eq 0 ] || options+=(-o Acquire::https::CaInfo=/run/bp-ca.pem)
    options+=(-o APT::Sandbox::User=root -o DPkg::Use-Pty=0 -o APT::Keep-Downloaded-Packages=true
        # apt's own caches would be larger than what it installs.
        -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=)
    # apt of two builds at once must not write the same lists.
    (
        flock 9
        bp_run "${bp_certificates[@]}" -v "$lists:/var/lib/apt/lists" \
            -v "$archives:/var/cache/apt/archives" -v "$bp_scratch:/run/bp" --env DEBIAN_FRONTEND=noninteractive \
            -- sh -euc "$bp_apt_script" sh "${#options[@]}" "${options[@]}" "$@" 9>&-
    ) 9>"$bp_cache/apt/lock"
}

# Arguments: number of apt's options, these, packages. Lists of the last hour do, unless they fail.
# shellcheck disable=SC2016 # expanded in the container
bp_apt_script='
n=$1; shift
options=""
while [ "$n" -gt 0 ]; do options="$options $1"; shift; n=$((n - 1)); done
fetch() { if apt-get $options -qq update; then touch /var/lib/apt/lists/fetched; fi; }
quietly() { "$@" >/run/bp/apt.log 2>&1 || { cat /run/bp/apt.log >&2; return 1; }; }
install() {
    if [ "$1" = --upgrade ]; then shift; quietly apt-get $options -qq upgrade --yes; fi
    quietly apt-get $options -qq install --yes --no-install-recommends "$@"
}
if [ -z "$(find /var/lib/apt/lists/fetched -mmin -60 2>/dev/null)" ]; then fetch; fi
install "$@" || { fetch; install "$@"; }
'

# The pinned uv: the clone's, or one made from requirements.lock for the builders.
bp_find_uv() {
    bp_uv=$bp_root/.venv/bin/uv
    [ -x "$bp_uv" ] && return 0
    local stamp pinned
    pinned=$(awk '/^uv==/ {on = 1; print; next} on && /^    --hash/ {print; next} on {exit}' "$bp_root/requirements.lock")
    stamp=$(sha256sum <<<"$pinned" | cut -c1-16)
    bp_uv=$bp_cache/uv-$stamp/bin/uv
    [ -x "$bp_uv" ] && return 0
    mkdir -p "$bp_cache"
    (
        flock 9
        [ ! -x "$bp_uv" ] || exit 0
        rm -rf "$bp_cache/uv-$stamp"
        python3 -m venv "$bp_cache/uv-$stamp" || bp_fail \
            "python3 cannot make a virtual environment, which the builders need once for uv." \
            "  Debian, Ubuntu: apt install python3-venv"
        "$bp_cache/uv-$stamp/bin/python" -m pip install --quiet --disable-pip-version-check \
            --require-hashes -r <(printf '%s\n' "$pinned")
    ) 9>"$bp_cache/uv.lock"
}

# bp_uv_run [buildah run's options] -- COMMAND... : with the pinned uv (/run/bp-uv), the host's cache of
# packages and its settings for package indexes.
bp_uv_run() {
    [ "$bp_cached" = no ] || return 0
    local cache name options=()
    bp_find_uv
    cache=$("$bp_uv" cache dir)
    mkdir -p "$cache"
    while [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    shift
    # By a file: an index's address may hold a password, which an argument would show.
    for name in UV_DEFAULT_INDEX UV_INDEX UV_INDEX_URL UV_EXTRA_INDEX_URL UV_FIND_LINKS \
        UV_OFFLINE UV_NATIVE_TLS UV_INSECURE_HOST UV_HTTP_TIMEOUT; do
        [ -z "${!name:-}" ] || printf 'export %s=%q\n' "$name" "${!name}"
    done >"$bp_scratch/settings"
    bp_run "${bp_certificates[@]}" -v "$bp_uv:/run/bp-uv:ro" -v "$cache:/run/bp-uv-cache" \
        -v "$bp_scratch:/run/bp" --env UV_CACHE_DIR=/run/bp-uv-cache --env UV_LINK_MODE=copy \
        --env UV_PYTHON_DOWNLOADS=never --env HOME=/run/bp --env TMPDIR=/run/bp "${options[@]}" \
        -- bash -euc '. /run/bp/settings; exec "$@"' bash "$@"
}

# bp_python LOCK [VENV] : what a lock file of the repository names, into /opt/venv or another one, hashes
# checked, compiled. What the venv of the parent has already stays.
bp_python() {
    [ "$bp_cached" = no ] || return 0
    cp "$bp_root/$1" "$bp_scratch/python.lock"
    # shellcheck disable=SC2016 # expanded in the container
    bp_uv_run -- sh -euc '
        [ -x "$1/bin/python" ] || /run/bp-uv venv --quiet --python /usr/bin/python3 "$1"
        /run/bp-uv pip install --quiet --python "$1/bin/python" --require-hashes --compile-bytecode -r /run/bp/python.lock
    ' sh "${2:-/opt/venv}"
}

# The program of the focus example with its own environment, /opt/focus: bp_focus_libraries, and in an image on
# top of it bp_focus, since libraries change seldom. Inputs: image_builders/focus.lock; "${bp_focus_sources[@]}".
# shellcheck disable=SC2034 # for the scripts
bp_focus_sources=(bluesky_plugins/processing/examples/reduce_focus.py)
bp_focus_libraries() { bp_python image_builders/focus.lock /opt/focus; }
bp_focus() {
    bp_copy "${bp_focus_sources[@]}" /opt/focus/lib/
    bp_file /opt/focus/bin/reduce-focus 0755 <<'PROGRAM'
#!/bin/sh
exec /opt/focus/bin/python -I /opt/focus/lib/reduce_focus.py "$@"
PROGRAM
}

# A venv of the tools that the builds need (setuptools, jgo), outside of the image; kept on the host.
bp_tools() {
    [ "$bp_cached" = no ] || return 0
    local lock=$bp_root/image_builders/tools.lock
    bp_tools_dir=$bp_cache/tools-$(sha256sum <"$lock" | cut -c1-16)
    mkdir -p "$bp_tools_dir"
    cp "$lock" "$bp_scratch/tools.lock"
    (
        flock 9
        [ ! -e "$bp_tools_dir/made" ] || exit 0
        bp_uv_run -v "$bp_tools_dir:/run/bp-tools" -- sh -euc '
            /run/bp-uv venv --quiet --clear --python /usr/bin/python3 /run/bp-tools/venv
            /run/bp-uv pip install --quiet --python /run/bp-tools/venv/bin/python --require-hashes -r /run/bp/tools.lock
            touch /run/bp-tools/made
        '
    ) 9>"$bp_tools_dir/lock"
}

# What the wheel of the package is made from: an input of images that have it.
# shellcheck disable=SC2034 # for the scripts
bp_package_sources=(bluesky_plugins setup.cfg pyproject.toml README.md LICENSE)

# bp_package : the package from this checkout, as a wheel, into /opt/venv, without dependencies.
bp_package() {
    [ "$bp_cached" = no ] || return 0
    bp_tools
    mkdir "$bp_scratch/source"
    (cd "$bp_root" && tar -c --exclude=__pycache__ "${bp_package_sources[@]}") | tar -x -C "$bp_scratch/source"
    bp_uv_run -v "$bp_tools_dir:/run/bp-tools" -- sh -euc '
        /run/bp-uv build --quiet --wheel --no-build-isolation --python /run/bp-tools/venv/bin/python \
            --out-dir /run/bp/wheel /run/bp/source
        [ -x /opt/venv/bin/python ] || /run/bp-uv venv --quiet --python /usr/bin/python3 /opt/venv
        /run/bp-uv pip install --quiet --python /opt/venv/bin/python --no-deps /run/bp/wheel/*.whl
        /opt/venv/bin/python -m compileall -q /opt/venv/lib/python3*/site-packages/bluesky_plugins
    '
}

# bp_jars_of SERVER FOLDER : the pinned jars of `kafka` or `mongo` (bluesky_plugins/embedded/jars.py fetches
# and checks them) into a folder of the image that is laid out like a Maven repository.
# Inputs: "${bp_jars_sources[@]}".
# shellcheck disable=SC2034 # for the scripts
bp_jars_sources=(bluesky_plugins/embedded/jars.py bluesky_plugins/embedded/kafka.lock.toml bluesky_plugins/embedded/mongo.lock.toml)
bp_jars_of() {
    [ "$bp_cached" = no ] || return 0
    bp_tools
    # The module alone, so that an image does not hang on the rest of the package.
    local alone=$bp_scratch/jars/bluesky_plugins/embedded
    mkdir -p "$alone" "$bp_jars"
    : >"$alone/__init__.py"
    : >"$alone/../__init__.py"
    cp "${bp_jars_sources[@]/#/$bp_root/}" "$alone"
    bp_uv_run -v "$bp_tools_dir:/run/bp-tools" -v "$bp_jars:/run/bp-jars" --env PYTHONPATH=/run/bp/jars \
        --env PYTHONDONTWRITEBYTECODE=1 -- /run/bp-tools/venv/bin/python -c '
import shutil, sys
from pathlib import Path
from bluesky_plugins.embedded.jars import classpath
source, place = Path("/run/bp-jars"), Path(sys.argv[2])
for jar in classpath(sys.argv[1], source):
    copy = place / jar.relative_to(source)
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(jar, copy)
' "$@"
}

# bp_commit [buildah config's options] : makes the image and says how long it took and how large it is.
bp_commit() {
    local image=localhost/$bp_name
    if [ "$bp_cached" = yes ]; then
        bp_say "$bp_name: cached, $(bp_size "$image")"
        return 0
    fi
    # Mount points that the runs have left behind.
    buildah run --network none --user 0:0 "$bp_container" -- sh -c 'rm -rf /run/bp /run/bp-*'
    buildah config --created-by "image_builders/$(basename "$bp_script")" \
        --user bluesky --workingdir /home/bluesky \
        --label "org.opencontainers.image.title=$bp_title" \
        --label "org.opencontainers.image.description=$bp_description" \
        --label "org.opencontainers.image.version=$(bp_version)" \
        --label "org.opencontainers.image.revision=$(bp_revision)" \
        --label "org.opencontainers.image.licenses=$bp_licenses" \
        --label "io.bluesky-plugins.name=$bp_name" \
        --label "io.bluesky-plugins.inputs=$bp_inputs" \
        "$@" "$bp_container"
    TMPDIR=$(bp_commit_dir) buildah commit --quiet --disable-compression=true "$bp_container" "$image:latest" >/dev/null
    buildah rm "$bp_container" >/dev/null
    bp_container=''
    rm -rf "$bp_scratch"
    bp_scratch=''
    bp_remove_former
    bp_say "$bp_name: built in $((SECONDS - bp_begun)) s, $(bp_size "$image")"
}

# Images that had this name before, unless a container or another image still uses one.
bp_remove_former() {
    local ids id said
    ids=$(podman image ls --quiet --filter dangling=true --filter "label=io.bluesky-plugins.name=$bp_name")
    for id in $ids; do
        said=$(podman image rm "$id" 2>&1) || case $said in
        *"in use"* | *"dependent child"* | *"image not known"*) ;;
        *) bp_say "$bp_name: the image $id of before stays: $said" ;;
        esac
    done
}

# A layer lies there as a whole before it is unpacked: in memory, where that is plenty.
bp_commit_dir() {
    local free
    free=$(awk '/^MemAvailable:/ {print int($2 / 1048576)}' /proc/meminfo)
    if [ "$free" -ge 8 ] && [ -w /dev/shm ] && [ "$(df --output=avail -BG /dev/shm | tail -n 1 | tr -dc 0-9)" -ge 4 ]; then
        echo /dev/shm
    else
        echo "${TMPDIR:-/var/tmp}"
    fi
}

bp_size() { podman image inspect --format '{{.Size}}' "$1" | awk '{printf "%.0f MB", $1 / 1e6}'; }
bp_version() { sed -n 's/^version = //p' "$bp_root/setup.cfg"; }
bp_revision() { git -C "$bp_root" rev-parse HEAD 2>/dev/null || echo unknown; }
