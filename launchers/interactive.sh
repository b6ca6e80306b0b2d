# shellcheck shell=bash
# Sourced by what a person starts beside the services of a pod: a container in the acquisition pod
# that sees what they see (settings, secrets, state, camera files) and, where there is one, the
# display of the person.

# shellcheck source=launchers/podman.sh
source "$(dirname "${BASH_SOURCE[0]}")/podman.sh"

BP_POD=acquisition
# Volume of the pod -> where every container of the pod has it.
BP_POD_VOLUMES=(
    bluesky-settings:/etc/bluesky-plugins:ro
    acquisition-secrets:/run/bluesky-plugins/secrets:ro
    acquisition-state:/var/lib/bluesky-plugins
    acquisition-camera:/var/lib/camera
)

bp_need_image() {
    local image=$1 builder=$2
    podman image exists "localhost/$image:latest" ||
        bp_fail "the image localhost/$image:latest is not there; make it: bash image_builders/$builder"
}

bp_pod_runs() {
    [ "$(podman pod inspect "$1" --format '{{.State}}' 2>/dev/null)" = Running ] ||
        [ "$(podman pod inspect "$1" --format '{{.State}}' 2>/dev/null)" = Degraded ]
}

bp_need_pod() {
    local volume
    bp_need_podman
    bp_pod_runs "$BP_POD" ||
        bp_fail "the pod $BP_POD does not run; start it: bash launchers/start_core_pods.sh"
    for volume in "${BP_POD_VOLUMES[@]%%:*}"; do
        # podman would make an empty one, and every setting would silently be a default.
        podman volume exists "$volume" ||
            bp_fail "the volume $volume of the pod $BP_POD is not there; start the pods anew:" \
                "  bash launchers/stop_pods.sh && bash launchers/start_core_pods.sh"
    done
}

# Sets BP_IN_POD: arguments of `podman run` for a container beside the services of the pod.
bp_in_pod() {
    local volume
    BP_IN_POD=(
        --rm --pod "$BP_POD" --pull never
        --env BLUESKY_PLUGINS_CONFIG=/etc/bluesky-plugins/settings.yaml
        --env BLUESKY_PLUGINS_SECRETS_DIR=/run/bluesky-plugins/secrets
        --env BLUESKY_PLUGINS_STATE_DIR=/var/lib/bluesky-plugins
        --env TERM="${TERM:-dumb}"
    )
    for volume in "${BP_POD_VOLUMES[@]}"; do
        BP_IN_POD+=(--volume "$volume")
    done
}

# How a display comes to where none is, or none that a pod can reach.
bp_display_help() {
    cat >&2 <<'END'
  Over SSH: a display at localhost ends at the host's loopback, which a pod does not see. Let sshd listen
  where the pod reaches it: `X11UseLocalhost no` in /etc/ssh/sshd_config of this machine, restart sshd,
  and come back with `ssh -X` (DISPLAY is then NAME:10.0).
  Without any display: `apt install xvfb`, `Xvfb :99 -screen 0 1600x1000x24 &`, `export DISPLAY=:99`.
END
}

# Whether the host part of a DISPLAY is this machine, by one of its names.
bp_is_this_machine() {
    local name
    for name in "$(hostname)" "$(hostname -f 2>/dev/null)" "$(hostname -s 2>/dev/null)"; do
        [ -n "$name" ] && [ "$1" = "$name" ] && return 0
    done
    return 1
}

# Sets BP_DISPLAY: arguments of `podman run` that hand on the person's display, and BP_DISPLAY_WHY
# when there is none: the reason. BP_DISPLAY_DIR is the folder to remove at the end.
# shellcheck disable=SC2034 # for the launchers
bp_display() {
    local display=${DISPLAY:-} host
    BP_DISPLAY=() BP_DISPLAY_WHY='' BP_DISPLAY_DIR=''
    host=${display%:*}
    case $display in
    '')
        BP_DISPLAY_WHY='DISPLAY is not set'
        return
        ;;
    localhost:* | 127.0.0.1:* | '[::1]:'*)
        BP_DISPLAY_WHY="DISPLAY is $display, which a pod cannot reach"
        return
        ;;
    :* | unix:*)
        display=":${display##*:}"
        if [ ! -S "/tmp/.X11-unix/X$(bp_display_number "$display")" ]; then
            BP_DISPLAY_WHY="DISPLAY is $display, but no X server listens at /tmp/.X11-unix"
            return
        fi
        BP_DISPLAY+=(--volume /tmp/.X11-unix:/tmp/.X11-unix:ro)
        ;;
    *)
        # Of this machine's own name a pod knows at most a loopback address.
        bp_is_this_machine "$host" && display="host.containers.internal:${display##*:}"
        ;;
    esac
    # Nothing here draws with OpenGL, and the images have no driver for it.
    BP_DISPLAY+=(--env "DISPLAY=$display" --env QT_XCB_GL_INTEGRATION=none --security-opt label=disable)
    bp_display_cookie
}

bp_display_number() {
    local number=${1##*:}
    printf '%s' "${number%%.*}"
}

# The X server's cookie, if it has one, in a file for the container's user alone. The cookie's address
# (a name of this machine) is made "any" (ffff), because the container has another name.
bp_display_cookie() {
    local cookies
    command -v xauth >/dev/null || return 0
    cookies=$(xauth nlist "$DISPLAY" 2>/dev/null | sed -e 's/^..../ffff/')
    [ -n "$cookies" ] || return 0
    BP_DISPLAY_DIR=$(mktemp -d)
    trap 'rm -rf "$BP_DISPLAY_DIR"' EXIT
    : >"$BP_DISPLAY_DIR/xauthority"
    xauth -q -f "$BP_DISPLAY_DIR/xauthority" nmerge - <<<"$cookies" 2>/dev/null
    BP_DISPLAY+=(--volume "$BP_DISPLAY_DIR/xauthority:/run/xauthority:U" --env XAUTHORITY=/run/xauthority)
}
