#!/usr/bin/env bash
# What pip cannot bring, for images, pods and their tests on Debian: podman, buildah and their
# friends, a Slurm of one node, headless Chromium, Xvfb, tmux, shellcheck. Quick when all is there. Needs root.
# Not kubectl: Debian 12 has 1.20, which is too old for pods/kustomization.yaml.
set -euo pipefail

packages=(
    # containers, images, their networks; debootstrap makes the base image without a registry
    podman buildah runc netavark aardvark-dns catatonit iptables nftables iproute2
    fuse-overlayfs slirp4netns uidmap debootstrap
    # a real Slurm on this machine, and the SSH by which it is reached
    slurm-wlm munge openssh-server openssh-client
    # what a pod's nginx.conf is checked with
    nginx-light
    # pages and screens, looked at without a display
    chromium xvfb tmux
    # scripts, checked
    shellcheck
    # the virtual environment of the launchers
    python3-venv curl
)

if ! command -v apt-get >/dev/null; then
    echo "install_system_packages.sh knows Debian and Ubuntu (apt-get), which this machine is not." >&2
    echo "  Fedora: dnf install podman buildah debootstrap ShellCheck chromium tmux xorg-x11-server-Xvfb" >&2
    exit 1
fi

bp_missing() {
    local package
    for package in "${packages[@]}"; do
        # shellcheck disable=SC2016 # dpkg-query's own format
        [ "$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
    done
}

mapfile -t missing < <(bp_missing)
if [ "${#missing[@]}" -eq 0 ]; then
    echo "All ${#packages[@]} system packages are there."
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "These system packages are missing, and installing them needs root: ${missing[*]}" >&2
    echo "  sudo bash launchers/install_system_packages.sh" >&2
    exit 1
fi
echo "Installing ${missing[*]} ..."
export DEBIAN_FRONTEND=noninteractive
# The lists that are there may do; if not, they are fetched. A lock that apt of somebody else
# holds is waited for, for so long.
install=(apt-get -qq -o DPkg::Lock::Timeout=120 -o DPkg::Use-Pty=0 install --yes --no-install-recommends "${missing[@]}")
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! "${install[@]}" >"$log" 2>&1; then
    # A source that does not answer is no reason to stop: the packages may be in another.
    apt-get -qq -o DPkg::Lock::Timeout=120 update || echo "apt-get update had errors, see above." >&2
    if ! "${install[@]}" >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        echo "These packages could not be installed: ${missing[*]}" >&2
        exit 1
    fi
fi
mapfile -t missing < <(bp_missing)
if [ "${#missing[@]}" -gt 0 ]; then
    echo "apt-get said that all is well, yet these are not installed: ${missing[*]}" >&2
    exit 1
fi
echo "All ${#packages[@]} system packages are there."
