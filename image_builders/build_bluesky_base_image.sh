#!/usr/bin/env bash
# bluesky-base: Debian bookworm with Python 3.11, catatonit and the user bluesky; pulled, or made by debootstrap
set -euo pipefail
# shellcheck source=image_builders/preamble.sh
source "$(dirname "${BASH_SOURCE[0]}")/preamble.sh" "$@"

debian=bookworm

# What a package's documentation takes is left out; what its licence asks to keep is kept.
# A build that a power cut ends is begun anew: no package needs to be on the disk at once.
bp_slim='force-unsafe-io
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*'

# Debian's image where a registry answers; its id is nothing that this build hangs on: what was
# built once from either stands until --force.
bp_pull_debian() {
    [ "$BP_REGISTRY" != none ] || return 1
    local image=$BP_REGISTRY/debian:$debian-slim
    bp_pull "$image" || return 1
    bp_begin "$image"
    bp_file /etc/dpkg/dpkg.cfg.d/slim 0644 <<<"$bp_slim"
}

bp_bootstrap_debian() {
    local place
    [ "$(id -u)" -eq 0 ] || bp_fail \
        "bluesky-base cannot be built: no registry gives $BP_REGISTRY/debian:$debian-slim, and debootstrap," \
        "which makes it without one, needs root." \
        "  sudo bash image_builders/build_bluesky_base_image.sh, or name a registry that answers in BP_REGISTRY"
    bp_need_program debootstrap "where no container registry answers"
    bp_begin scratch
    place=$(buildah mount "$bp_container")
    mkdir -p "$place/etc/dpkg/dpkg.cfg.d" "$bp_cache/debootstrap"
    printf '%s\n' "$bp_slim" >"$place/etc/dpkg/dpkg.cfg.d/slim"
    bp_say "bluesky-base: debootstrap of Debian $debian ..."
    # BP_DEBIAN_MIRROR: a mirror of Debian; empty means debootstrap's own choice.
    debootstrap --variant=minbase --cache-dir="$bp_cache/debootstrap" "$debian" "$place" \
        ${BP_DEBIAN_MIRROR:+"$BP_DEBIAN_MIRROR"} >"$bp_scratch/debootstrap.log" 2>&1 || bp_fail \
        "debootstrap could not make Debian $debian; its last lines:" "$(tail -n 8 "$bp_scratch/debootstrap.log")" \
        "  A mirror that this machine reaches can be named in BP_DEBIAN_MIRROR."
    bp_add_security_updates "$place"
    find "$place/usr/share/doc" -type f ! -name copyright -delete
    rm -rf "$place"/usr/share/{info,locale,man}/* "$place"/var/lib/apt/lists/* "$place"/var/cache/apt/*.bin \
        "$place"/var/cache/apt/archives/*.deb "$place"/var/log/bootstrap.log "$place"/var/log/{apt,dpkg.log,alternatives.log}
    buildah umount "$bp_container" >/dev/null
}

# debootstrap names the release alone. Debian's mirrors have the security updates beside it.
bp_add_security_updates() {
    local list=$1/etc/apt/sources.list mirror
    mirror=$(awk '$1 == "deb" {print $2; exit}' "$list")
    mirror=${mirror%/}
    {
        echo "deb $mirror $debian main"
        echo "deb $mirror $debian-updates main"
        echo "deb ${BP_DEBIAN_SECURITY_MIRROR:-$mirror-security} $debian-security main"
    } >"$list"
}

bp_image bluesky-base "Base of the bluesky-plugins images" \
    "Debian bookworm, Python 3.11, catatonit as first process, user bluesky (1000)"
bp_from_outside
if [ "$bp_cached" = no ]; then
    bp_pull_debian || bp_bootstrap_debian
fi
bp_apt --upgrade catatonit ca-certificates python3 tzdata
bp_shell <<'EOS'
groupadd --gid 1000 bluesky
useradd --uid 1000 --gid 1000 --create-home --shell /bin/bash bluesky
install -d -o bluesky -g bluesky -m 0750 /var/lib/bluesky-plugins
install -d -o bluesky -g bluesky -m 0700 /run/bluesky-plugins /run/bluesky-plugins/secrets
install -d /etc/bluesky-plugins /opt/bluesky-plugins/bin
rm -rf /var/log/apt /var/log/dpkg.log /var/log/alternatives.log /var/cache/debconf/*-old
EOS
# Every image has it from here; what a container is to run is its first argument.
bp_commit --entrypoint '["catatonit", "--"]' \
    --env PATH=/opt/bluesky-plugins/bin:/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    --env VIRTUAL_ENV=/opt/venv --env LANG=C.UTF-8 --env PYTHONUNBUFFERED=1
