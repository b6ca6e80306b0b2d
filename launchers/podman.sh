#!/usr/bin/env bash
# Sourced by the image builders and the launchers: finds podman and buildah, and gives podman the
# settings that this machine needs. After it: `podman` and `buildah` on PATH do what is asked.
#
#   source launchers/podman.sh
#   bp_need_podman            # podman can run containers here, or it says why not and what helps
#   bp_need_buildah           # the same for building images

# Where the pods keep what belongs on the host (secrets, this machine's podman settings).
BLUESKY_PODS_DIR=${BLUESKY_PODS_DIR:-${XDG_STATE_HOME:-$HOME/.local/state}/bluesky-plugins-pods}

bp_say() { printf '%s\n' "$*" >&2; }

# bp_fail LINE... : each on its own line, then the script ends with status 1.
bp_fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

bp_need_program() {
    local program=$1 what_for=$2
    command -v "$program" >/dev/null || bp_fail \
        "$program is not installed; it is needed $what_for." \
        "  Debian, Ubuntu: sudo bash launchers/install_system_packages.sh" \
        "  Fedora: sudo dnf install podman buildah;  others: see the documentation of podman"
}

# cgroup v2 with systemd is what podman is made for; the rest needs to be told.
bp_has_systemd() { [ -d /run/systemd/system ]; }
bp_has_cgroup2() { [ "$(stat -fc %T /sys/fs/cgroup 2>/dev/null)" = cgroup2fs ]; }

# containers.conf for this machine on stdout; empty where podman's defaults do.
bp_containers_conf() {
    local files processes containers='' engine=''
    files=$(ulimit -Hn)
    processes=$(ulimit -Hu)
    # podman asks for these limits as root and fails where it may not raise them.
    if [ "$files" != unlimited ] && [ "$files" -lt 1048576 ]; then
        # More than this is refused in a sandbox even where `ulimit` promises it; it is plenty.
        if [ "$processes" = unlimited ] || [ "$processes" -gt 32768 ]; then processes=32768; fi
        containers="default_ulimits = [\"nofile=$files:$files\", \"nproc=$processes:$processes\"]"
    fi
    if ! bp_has_systemd; then
        engine='cgroup_manager = "cgroupfs"
events_logger = "file"'
        # crun refuses a mixture of cgroup v1 and v2.
        if ! bp_has_cgroup2 && command -v runc >/dev/null; then
            engine="$engine
runtime = \"runc\""
        fi
    fi
    [ -z "$containers" ] || printf '[containers]\n%s\n' "$containers"
    [ -z "$engine" ] || printf '[engine]\n%s\n' "$engine"
}

# Settings of the user or of the machine come first: what CONTAINERS_CONF names is left alone.
bp_set_containers_conf() {
    local conf file="$BLUESKY_PODS_DIR/containers.conf" new
    [ -z "${CONTAINERS_CONF:-}" ] || return 0
    conf=$(bp_containers_conf)
    [ -n "$conf" ] || return 0
    if [ "$(cat "$file" 2>/dev/null)" != "$conf" ]; then
        (umask 077 && mkdir -p "$BLUESKY_PODS_DIR") || bp_fail "$BLUESKY_PODS_DIR cannot be made."
        new=$(mktemp "$file.XXXXXX")
        printf '%s\n' "$conf" >"$new"
        mv -f "$new" "$file"
    fi
    export CONTAINERS_CONF="$file"
}

# Without root: what podman needs of the machine, checked one by one.
bp_check_rootless() {
    [ "$(id -u)" -ne 0 ] || return 0
    local user
    user=$(id -un)
    if ! grep -qs "^$user:" /etc/subuid || ! grep -qs "^$user:" /etc/subgid; then
        bp_fail "podman cannot run without root yet: $user has no subordinate ids in /etc/subuid, /etc/subgid." \
            "  sudo usermod --add-subuids 200000-265535 --add-subgids 200000-265535 $user && podman system migrate"
    fi
    command -v newuidmap >/dev/null || bp_fail \
        "podman cannot run without root: newuidmap is not installed." \
        "  Debian, Ubuntu: sudo apt-get install uidmap;  Fedora: sudo dnf install shadow-utils"
    { : <>/dev/net/tun; } 2>/dev/null || bp_fail \
        "podman cannot give a container a network without root: /dev/net/tun cannot be opened by $user." \
        "  sudo modprobe tun && sudo chmod 0666 /dev/net/tun, or run this script as root"
    [ "$(cat /proc/sys/user/max_user_namespaces 2>/dev/null || echo 1)" -gt 0 ] || bp_fail \
        "podman cannot run without root: user namespaces are switched off." \
        "  sudo sysctl -w user.max_user_namespaces=15000, or run this script as root"
}

bp_need_podman() {
    bp_need_program podman "to run the pods"
    bp_check_rootless
    bp_set_containers_conf
}

bp_need_buildah() {
    bp_need_program buildah "to build images"
    bp_need_podman
}
