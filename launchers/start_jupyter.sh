#!/usr/bin/env bash
# JupyterLab in the network of the pods, with an example that reads the last run.
#
#   bash launchers/start_jupyter.sh              # then open the address that it prints
#   bash launchers/start_jupyter.sh --stop
#
# Whoever has its token can run programs in its container, and read and write what the key and the
# password of the pods open. It listens on 127.0.0.1 alone.
set -euo pipefail
# shellcheck source=launchers/pods.sh
source "$(dirname "${BASH_SOURCE[0]}")/pods.sh"

BP_JUPYTER=jupyter
port=8888 notebooks='' stop=no

usage() {
    cat <<END
Usage: start_jupyter.sh [--port PORT] [--notebooks FOLDER] [--timeout SECONDS] | --stop
  --port PORT          port on 127.0.0.1 (default: $port)
  --notebooks FOLDER   of the host (default: the volume jupyter-notebooks, which stays)
  --timeout SECONDS    give up when it does not answer after this (default: $BP_TIMEOUT)
  --stop               stop it; notebooks stay
  BLUESKY_PODS_DIR     folder of the token (now: $BLUESKY_PODS_DIR)
END
}

bad_usage() {
    bp_say "$1"
    usage >&2
    exit 2
}

while [ "$#" -gt 0 ]; do
    case $1 in
    -h | --help) usage; exit 0 ;;
    --stop) stop=yes ;;
    --port)
        if ! [[ ${2:-} =~ ^[1-9][0-9]{0,4}$ ]] || [ "$2" -gt 65535 ]; then
            bad_usage "--port: a number from 1 to 65535 is expected, not '${2:-}'"
        fi
        port=$2
        shift
        ;;
    --notebooks)
        [ -n "${2:-}" ] || bad_usage "--notebooks: a folder is expected"
        notebooks=$2
        shift
        ;;
    --timeout)
        bp_whole_seconds "${2:-}" --timeout
        BP_TIMEOUT=$2
        shift
        ;;
    *) bad_usage "no such option: $1" ;;
    esac
    shift
done

bp_need_podman

if [ "$stop" = yes ]; then
    podman container exists "$BP_JUPYTER" || { echo "JupyterLab does not run."; exit 0; }
    said=$(podman rm --force --time 10 "$BP_JUPYTER" 2>&1) || bp_fail "podman could not stop JupyterLab:" "$said"
    echo "JupyterLab has stopped. Its notebooks stay."
    exit 0
fi

# What it says at the end, also when it ran before.
bp_say_where() {
    local published
    published=$(podman port "$BP_JUPYTER" 8888/tcp | head -n 1)
    cat <<END
JupyterLab: http://$published/lab/tree/last_run.ipynb
  token         $(bp_jupyter_token_file)   (the page asks for it: paste what the file has)
  stop it       bash launchers/start_jupyter.sh --stop
END
}

bp_jupyter_token_file() { echo "$BLUESKY_PODS_DIR/jupyter_token"; }

# Its token, the key of the databroker server, and the URI of the store: files of the container, which
# belong to its user and are gone with it.
bp_copy_jupyter_secrets() {
    local folder said status=0
    bp_make_jupyter_token
    folder=$(umask 077 && mktemp -d "$BLUESKY_PODS_DIR/secrets.XXXXXX")
    cp "$(bp_jupyter_token_file)" "$folder/jupyter_token"
    cp "$BLUESKY_PODS_DIR/api_key" "$folder/api_key"
    (umask 077 && bp_mongo_uri acquisition >"$folder/BLUESKY_PLUGINS_MONGO__URI")
    said=$(podman cp "$folder/." "$BP_JUPYTER:/run/bluesky-plugins/secrets" 2>&1) || status=$?
    rm -rf "$folder"
    [ "$status" -eq 0 ] || bp_fail "The keys could not be copied into the container $BP_JUPYTER:" "$said"
}

bp_make_jupyter_token() {
    [ -s "$(bp_jupyter_token_file)" ] || (umask 077 && bp_new_secret >"$(bp_jupyter_token_file)")
    chmod 0600 "$(bp_jupyter_token_file)"
}

# Sets BP_NOTEBOOKS: arguments of `podman run` for the notebooks' folder.
bp_mount_notebooks() {
    if [ -z "$notebooks" ]; then
        BP_NOTEBOOKS=(--volume jupyter-notebooks:/home/bluesky/notebooks)
        return
    fi
    [ -d "$notebooks" ] || bp_fail "The folder for notebooks is not there: $notebooks"
    BP_NOTEBOOKS=(--volume "$(cd "$notebooks" && pwd):/home/bluesky/notebooks" --security-opt label=disable)
    if [ "$(id -u)" -ne 0 ]; then
        # The person who starts it is user 1000 in there, and owns what is written.
        BP_NOTEBOOKS+=(--userns "keep-id:uid=1000,gid=1000")
    elif [ "$(stat -c %u "$notebooks")" -ne 1000 ]; then
        bp_fail "The folder $notebooks belongs to user $(stat -c %u "$notebooks"); JupyterLab works as user 1000." \
            "  chown 1000:1000 $notebooks"
    fi
}

bp_wait_for_jupyter() {
    local deadline=$((SECONDS + BP_TIMEOUT)) said=''
    until said=$(timeout 10 podman healthcheck run "$BP_JUPYTER" 2>&1); do
        [ "$(podman inspect --format '{{.State.Running}}' "$BP_JUPYTER")" = true ] ||
            bp_jupyter_failed "it has ended, $(bp_exit_of "$BP_JUPYTER")"
        [ "$SECONDS" -lt "$deadline" ] || bp_jupyter_failed "it has not answered in $BP_TIMEOUT s${said:+: $said}"
        sleep 0.3
    done
}

bp_jupyter_failed() {
    bp_say "JupyterLab is not ready: $1" "Its last lines:"
    podman logs --tail 15 "$BP_JUPYTER" 2>&1 | sed 's/^/    /' >&2
    podman rm --force --time 5 "$BP_JUPYTER" >/dev/null 2>&1 || bp_say "podman could not remove it: podman rm --force $BP_JUPYTER"
    exit 1
}

bp_is_running() { [ "$(podman inspect --format '{{.State.Running}}' "$BP_JUPYTER" 2>/dev/null)" = true ]; }

if bp_is_running; then
    bp_say "JupyterLab runs already."
    bp_say_where
    exit 0
fi
podman image exists localhost/jupyter:latest ||
    bp_fail "The image localhost/jupyter is not there; make it: bash image_builders/build_jupyter_image.sh"
for pod in acquisition databroker; do
    [ "$(bp_state "$pod")" = running ] ||
        bp_fail "The pod $pod does not run, and there would be nothing to read; start it: bash launchers/start_core_pods.sh"
done
! bp_listens "$port" ||
    bp_fail "Port $port of 127.0.0.1 is taken$(bp_who_listens "$port"); another one: start_jupyter.sh --port PORT"
bp_mount_notebooks
# One that ended by itself leaves its name behind.
podman rm --force --ignore "$BP_JUPYTER" >/dev/null
bp_say "Starting JupyterLab ..."
said=$(podman create --name "$BP_JUPYTER" --pull never --network "$BP_NETWORK" --memory 2g \
    --cap-drop ALL --security-opt no-new-privileges \
    --publish "127.0.0.1:$port:8888" "${BP_NOTEBOOKS[@]}" \
    --volume bluesky-settings:/etc/bluesky-plugins:ro \
    --volume acquisition-camera:/var/lib/camera:ro \
    --env BLUESKY_PLUGINS_CONFIG=/etc/bluesky-plugins/settings.yaml \
    --env BLUESKY_PLUGINS_SECRETS_DIR=/run/bluesky-plugins/secrets \
    --env BLUESKY_PLUGINS_KAFKA__BOOTSTRAP_SERVERS=acquisition:29092 \
    localhost/jupyter:latest 2>&1) || bp_fail "podman could not make the container $BP_JUPYTER:" "$said"
bp_copy_jupyter_secrets
# Where no systemd is, podman says that nothing will fire the health check: it is asked below.
said=$(podman start "$BP_JUPYTER" 2>&1) || bp_fail "podman could not start JupyterLab:" "$said"
bp_wait_for_jupyter
bp_say_where
