# shellcheck shell=bash
# Sourced by the scripts that start and stop the pods: what they share.
#
#   source "$(dirname "${BASH_SOURCE[0]}")/pods.sh"
#   bp_lock "$@"          # one of these scripts at a time; the others wait
#   bp_check acquisition databroker
#   bp_start acquisition databroker

bp_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bp_pods=$bp_root/pods
# shellcheck source=launchers/podman.sh
source "$bp_root/launchers/podman.sh"

BP_PODS=(acquisition databroker recommender compute)
BP_NETWORK=bluesky
# Where a pod's containers have its keys and passwords.
BP_SECRETS=/run/bluesky-plugins/secrets
# Which image carries keys into volumes, and looks for them there.
BP_HELPER=localhost/bluesky:latest
# Where the sshd of the compute pod listens, by whichever name.
BP_COMPUTE_PORT=60622
# The folder of this machine that jobs in the compute pod see as /beamline/data, and what stands for it in
# the manifest.
BP_DATA_FOLDER=''
BP_NO_DATA_FOLDER=/var/empty
# Free space below which a start is refused, MB: Kafka and MongoDB do not end well on a full disk.
BP_MINIMUM_FREE_MB=${BP_MINIMUM_FREE_MB:-2000}
# A container that ended so often while it was waited for will not get ready.
BP_MAX_RESTARTS=5
BP_TIMEOUT=120
# Of each container's log.
BP_LOG_SIZE=50mb
# How long one of these scripts waits for another one, s.
BP_LOCK_SECONDS=300

# ConfigMap -> its files, below pods/. A file's name is its key.
declare -A BP_CONFIG_MAPS=(
    [bluesky-settings]="settings.yaml"
    [acquisition-kafka-configuration]="acquisition/kafka.properties"
    [acquisition-proxy-probe]="acquisition/probe_proxy.py"
    [acquisition-nginx-configuration]="acquisition/nginx.conf"
    [acquisition-pages]="acquisition/index.html"
    [databroker-nginx-configuration]="databroker/nginx.conf"
    [databroker-pages]="databroker/index.html"
    [recommender-nginx-configuration]="recommender/nginx.conf"
    [recommender-recipes]="recommender/recipes.yaml"
    [compute-configuration]="compute/slurm.conf compute/sshd_config"
)

# ---------------------------------------------------------------------------------------------
# What is said

bp_seconds_since() { echo "$((SECONDS - $1)) s"; }

# bp_lock ARGUMENT... : runs this script again as the only one of its kind. The lock is not handed on to
# what it starts (flock --close): podman leaves processes behind that would hold it for ever.
bp_lock() {
    [ -z "${BP_LOCKED:-}" ] || return 0
    bp_need_program flock "so that two of these scripts do not work at the same time (package util-linux)"
    # One for this user's pods, wherever the keys are.
    local folder=${XDG_STATE_HOME:-$HOME/.local/state} lock status=0
    lock=$folder/bluesky-plugins-pods.lock
    (umask 077 && mkdir -p "$folder" && : >>"$lock") || bp_fail "$lock cannot be written."
    flock --nonblock "$lock" true || bp_say "Another start or stop of the pods is at work; waiting for it ..."
    BP_LOCKED=yes flock --close --timeout "$BP_LOCK_SECONDS" --conflict-exit-code 75 "$lock" \
        bash "$bp_root/launchers/$(basename "$0")" "$@" || status=$?
    [ "$status" -ne 75 ] || bp_fail "Another start or stop of the pods has not ended in $BP_LOCK_SECONDS s ($lock is held)." \
        "  Which one: fuser -v $lock"
    exit "$status"
}

# bp_whole_seconds VALUE OPTION
bp_whole_seconds() {
    [[ $1 =~ ^[1-9][0-9]{0,5}$ ]] || {
        bp_say "$2: a whole number of seconds is expected, not '$1'"
        exit 2
    }
}

# ---------------------------------------------------------------------------------------------
# What the manifests say (they are ours, and of a plain shape)

bp_manifest() { echo "$bp_pods/$1.yaml"; }
bp_images_of() { awk '$1 == "image:" {print $2}' "$(bp_manifest "$1")" | sort -u; }
bp_host_ports_of() { awk '$1 == "hostPort:" {print $2}' "$(bp_manifest "$1")"; }
bp_config_maps_of() { awk '$1 == "configMap:" {getline; print $2}' "$(bp_manifest "$1")"; }
bp_claims_of() { awk '$1 == "claimName:" {print $2}' "$(bp_manifest "$1")" | sort -u; }
bp_containers_with_key() {
    awk '/^    - name: / {name = $3} /BLUESKY_PLUGINS_SECRETS_DIR|- \*secrets$|name: secrets, mountPath/ {print name}' "$(bp_manifest "$1")"
}
bp_scratch_of() { sed -n 's/^ *- {name: \([^,]*\), emptyDir: .*/\1/p' "$(bp_manifest "$1")"; }
bp_containers_of() { sed -n 's/^    - name: \(.*\)$/\1/p' <(sed '/^  volumes:/,$d' "$(bp_manifest "$1")"); }

# bp_config_map NAME : its document. Each file is a block, as it is.
bp_config_map() {
    local file
    printf 'apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %s\ndata:\n' "$1"
    for file in ${BP_CONFIG_MAPS[$1]}; do
        printf '  %s: |2\n' "$(basename "$file")"
        sed 's/^/    /' "$bp_pods/$file"
    done
}

# bp_documents POD : everything that podman plays for it.
bp_documents() {
    local map
    for map in $(bp_config_maps_of "$1"); do
        [ -n "${BP_CONFIG_MAPS[$map]:-}" ] ||
            bp_fail "pods/$1.yaml names the ConfigMap $map, which launchers/pods.sh does not know (BP_CONFIG_MAPS)."
        bp_config_map "$map"
        echo ---
    done
    if [ "$1" = compute ] && [ -n "$BP_DATA_FOLDER" ]; then
        sed "s|path: $BP_NO_DATA_FOLDER\$|path: \"${BP_DATA_FOLDER//&/\\&}\"|" "$(bp_manifest "$1")"
    else
        cat "$(bp_manifest "$1")"
    fi
}

# bp_made_from POD : one hash of what a pod is made from, images included.
bp_made_from() {
    {
        bp_documents "$1"
        bp_images_of "$1" | xargs -r podman image inspect --format '{{.Id}}' 2>/dev/null
    } | sha256sum | cut -d' ' -f1
}

# ---------------------------------------------------------------------------------------------
# What must hold before anything is started

# bp_check POD...
bp_check() {
    bp_need_podman
    bp_check_images "$@"
    bp_check_disk
    # The compute pod reads none of our settings.
    [ "$*" = compute ] || bp_check_settings
    bp_check_ports "$@"
}

bp_check_images() {
    local image name missing=()
    for image in $(for pod in "$@"; do bp_images_of "$pod"; done | sort -u); do
        # What is not made here is pulled by podman.
        [[ $image == localhost/* ]] || continue
        name=${image#localhost/} name=${name%%:*}
        podman image exists "$image" || missing+=("$name")
    done
    [ "${#missing[@]}" -eq 0 ] && return 0
    for name in "${missing[@]}"; do
        bp_say "The image localhost/$name is not there; make it: bash image_builders/build_${name//-/_}_image.sh"
    done
    bp_fail "All images: bash image_builders/build_all.sh"
}

bp_check_disk() {
    local root free
    root=$(podman info --format '{{.Store.GraphRoot}}')
    free=$(df -Pm "$root" | awk 'NR == 2 {print $4}')
    [ "$free" -ge "$BP_MINIMUM_FREE_MB" ] || bp_fail \
        "The disk of $root, where podman keeps images and volumes, has $free MB free; the pods need $BP_MINIMUM_FREE_MB." \
        "  Make room ('podman image prune' removes images that nothing uses), or ask for less: BP_MINIMUM_FREE_MB=500"
}

# The settings are read as every service reads them; nothing but that file.
bp_check_settings() {
    local said status=0
    # shellcheck disable=SC2016
    said=$(podman run --rm -i --network none --log-driver none --pull never localhost/bluesky:latest \
        python -c '
import sys
from bluesky_plugins.settings import ConfigurationError, load_settings
try:
    load_settings("/dev/stdin", with_stack=False)
except ConfigurationError as error:
    sys.exit(str(error).replace("/dev/stdin", "pods/settings.yaml"))
' <"$bp_pods/settings.yaml" 2>&1) || status=$?
    [ "$status" -eq 0 ] || bp_fail "pods/settings.yaml cannot be used: $said" \
        "  docs/reference/settings.md says what there is; change $bp_pods/settings.yaml and start again."
}

# Only the ports of pods that do not hold them themselves.
bp_check_ports() {
    local pod port taken=0
    for pod in "$@"; do
        [ -z "$(bp_running_infra "$pod")" ] || continue
        for port in $(bp_host_ports_of "$pod"); do
            bp_listens "$port" || continue
            bp_say "Port $port of 127.0.0.1, which the pod $pod needs, is taken$(bp_who_listens "$port")." \
                "Stop that, or change hostPort $port in pods/$pod.yaml."
            taken=1
        done
    done
    [ "$taken" -eq 0 ] || exit 1
}

bp_listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

bp_who_listens() {
    command -v ss >/dev/null || return 0
    ss -ltnpH "sport = :$1" 2>/dev/null | sed -n 's/.*users:((\("[^"]*"\),pid=\([0-9]*\).*/ by \1, process \2/p' | head -n 1
}

# ---------------------------------------------------------------------------------------------
# Keys and passwords: made once, on the host in files of 0600, and in a volume of each pod

bp_key_file() { echo "$BLUESKY_PODS_DIR/api_key"; }

# Letters and digits alone: they go into URLs, and the queue's HTTP server takes nothing else.
bp_new_secret() { od -An -N20 -tx1 /dev/urandom | tr -d ' \n'; }

# bp_make_secrets POD...
bp_make_secrets() {
    local name
    (umask 077 && mkdir -p "$BLUESKY_PODS_DIR" && chmod 0700 "$BLUESKY_PODS_DIR") ||
        bp_fail "$BLUESKY_PODS_DIR, the folder of the keys (BLUESKY_PODS_DIR), cannot be made."
    [ "$*" = compute ] || for name in api_key redis_password mongo_password; do
        bp_make_secret "$name"
    done
    [[ " $* " != *" compute "* && " $* " != *" recommender "* ]] || bp_make_compute_keys
}

bp_compute_keys() { echo "$BLUESKY_PODS_DIR/compute"; }

# Keys of the compute pod: of its host, and of whoever hands it jobs; all at once, or none.
bp_make_compute_keys() {
    local folder new name names
    folder=$(bp_compute_keys)
    if [ -s "$folder/id_ed25519" ] && [ -s "$folder/id_ed25519.pub" ] && [ -s "$folder/known_hosts" ] &&
        [ -s "$folder/ssh_host_ed25519_key" ]; then
        return 0
    fi
    bp_need_program ssh-keygen "to make the keys of the compute pod (package openssh-client)"
    new=$(umask 077 && mktemp -d "$folder.XXXXXX")
    for name in id_ed25519 ssh_host_ed25519_key; do
        (umask 077 && ssh-keygen -q -t ed25519 -N '' -C "$name of the compute pod" -f "$new/$name" </dev/null) || {
            rm -rf "$new"
            bp_fail "ssh-keygen could not make the keys of the compute pod: see above."
        }
    done
    names=$(printf ",[%s]:$BP_COMPUTE_PORT" 127.0.0.1 localhost compute)
    # Known from the beginning, so that nobody has to trust the first answer.
    (umask 077 && printf '%s %s\n' "${names#,}" "$(cut -d' ' -f1,2 "$new/ssh_host_ed25519_key.pub")" >"$new/known_hosts")
    rm -rf "$folder"
    mv "$new" "$folder"
}

# Where the host's copy is gone but a server still has the data of its password, the volume's is taken.
bp_make_secret() {
    local file=$BLUESKY_PODS_DIR/$1 value
    if [ ! -s "$file" ]; then
        value=$(bp_kept_secret "$1") ||
            bp_fail "$1 could not be read from the volume acquisition-secrets (see above), and the data may need it." \
                "  Put it into $file, or give up the data: bash launchers/stop_pods.sh --data"
        [ -n "$value" ] || value=$(bp_new_secret)
        (umask 077 && printf '%s' "$value" >"$file.new" && mv "$file.new" "$file") ||
            bp_fail "$file cannot be written."
    fi
    chmod 0600 "$file"
    [[ $(cat "$file") =~ ^[A-Za-z0-9]{8,}$ ]] ||
        bp_fail "$file: eight or more letters and digits are expected, and nothing else." \
            "  Remove it for a new one, or put one there yourself."
}

# Nothing where there is no volume yet, or it does not have that.
bp_kept_secret() {
    podman volume exists acquisition-secrets || return 0
    # shellcheck disable=SC2016 # expanded in the container
    podman run --rm --network none --log-driver none --pull never --user 1000:1000 \
        --volume acquisition-secrets:/from:ro "$BP_HELPER" \
        sh -euc '[ ! -e "/from/$1" ] || cat "/from/$1"' sh "$1"
}

# bp_secret_files POD FOLDER : what the pod's containers find in their folder of secrets.
bp_secret_files() {
    local pod=$1 folder=$2 mongo=127.0.0.1
    mkdir "$folder"
    if [ "$pod" = compute ]; then
        cp "$(bp_compute_keys)/id_ed25519.pub" "$folder/authorized_keys"
        cp "$(bp_compute_keys)/ssh_host_ed25519_key" "$folder"
        chmod 0600 "$folder"/*
        return
    fi
    cp "$BLUESKY_PODS_DIR/api_key" "$folder/api_key"
    case $pod in
    acquisition)
        cp "$BLUESKY_PODS_DIR/redis_password" "$folder/redis_password"
        printf 'redis://:%s@127.0.0.1:6379/0' "$(cat "$BLUESKY_PODS_DIR/redis_password")" >"$folder/BLUESKY_PLUGINS_REDIS__URL"
        ;;
    recommender)
        mongo=acquisition
        cp "$(bp_compute_keys)/id_ed25519" "$folder/compute_key"
        cp "$(bp_compute_keys)/known_hosts" "$folder/compute_known_hosts"
        ;;
    esac
    [ "$pod" = recommender ] || cp "$BLUESKY_PODS_DIR/mongo_password" "$folder/mongo_password"
    bp_mongo_uri "$mongo" >"$folder/BLUESKY_PLUGINS_MONGO__URI"
    chmod 0600 "$folder"/*
}

# mongo-java-server has no passwords; MongoDB has, and is a replica set of one that must be asked directly.
bp_mongo_uri() {
    local kind
    kind=$(podman image inspect --format '{{index .Labels "io.bluesky-plugins.mongo"}}' localhost/mongo:latest)
    if [ "$kind" = mongodb ]; then
        printf 'mongodb://bluesky:%s@%s:27017/?authSource=admin&directConnection=true' \
            "$(cat "$BLUESKY_PODS_DIR/mongo_password")" "$1"
    else
        printf 'mongodb://%s:27017/?directConnection=true' "$1"
    fi
}

# bp_fill_secrets POD... : into their volumes, through a container and its stdin: never on a command line.
bp_fill_secrets() {
    local pod mounts=()
    bp_scratch=$(umask 077 && mktemp -d "$BLUESKY_PODS_DIR/secrets.XXXXXX")
    trap bp_secrets_failed EXIT
    for pod in "$@"; do
        (umask 077 && bp_secret_files "$pod" "$bp_scratch/$pod")
        mounts+=(--volume "$pod-secrets:/to/$pod")
    done
    # What was there under another name goes.
    # shellcheck disable=SC2016 # expanded in the container
    tar -C "$bp_scratch" --owner 1000 --group 1000 -cf - "$@" |
        podman run --rm -i --network none --log-driver none --no-healthcheck --pull never --user 1000:1000 "${mounts[@]}" \
            "$BP_HELPER" sh -euc '
                umask 077
                for pod in "$@"; do find "/to/$pod" -mindepth 1 -delete; done
                tar -C /to --no-overwrite-dir -xf -
                for pod in "$@"; do chmod 0700 "/to/$pod"; done' sh "$@"
    trap - EXIT
    rm -rf "$bp_scratch"
}

# However it ends: no key stays in a folder that nobody looks after.
bp_secrets_failed() {
    rm -rf "$bp_scratch"
    bp_fail "The keys could not be written into the volumes of the pods: see above."
}

# ---------------------------------------------------------------------------------------------
# Starting

bp_running_infra() { podman ps --quiet --filter "pod=$1" --filter status=running 2>/dev/null | head -n 1; }
bp_running_in() { podman ps --filter "pod=$1" --filter status=running --format '{{.Names}}' 2>/dev/null; }
bp_all_in() { podman ps --all --filter "pod=$1" --format '{{.Names}}' 2>/dev/null; }

# bp_state POD : absent, running (every container of the manifest), stopped (some are not), broken (some
# were never made).
bp_state() {
    local container all running state=running
    podman pod exists "$1" || { echo absent; return; }
    all=$(bp_all_in "$1") running=$(bp_running_in "$1")
    for container in $(bp_containers_of "$1"); do
        grep -qx "$1-$container" <<<"$all" || { echo broken; return; }
        grep -qx "$1-$container" <<<"$running" || state=stopped
    done
    echo "$state"
}

# bp_start POD... : plays what is not there, starts what is down, and waits until all is ready.
bp_start() {
    local pod state begun=$SECONDS fresh=() played=()
    podman network exists "$BP_NETWORK" || podman network create "$BP_NETWORK" >/dev/null
    bp_make_secrets "$@"
    for pod in "$@"; do
        state=$(bp_state "$pod")
        case $state in
        running) bp_say "The pod $pod runs already." ;;
        stopped)
            bp_say "The pod $pod is there, but not all of it runs: starting what is down ..."
            bp_restart "$pod" || fresh+=("$pod")
            ;;
        broken)
            bp_say "The pod $pod was left half made: making it anew (its data stay) ..."
            fresh+=("$pod")
            ;;
        absent) fresh+=("$pod") ;;
        esac
        [ "$state" = absent ] || [ "$state" = broken ] || bp_say_if_changed "$pod"
    done
    if [ "${#fresh[@]}" -gt 0 ]; then
        for pod in "${fresh[@]}"; do bp_remove_pod "$pod"; done
        bp_remove_passing_volumes
        bp_fill_secrets "${fresh[@]}"
        for pod in "${fresh[@]}"; do
            bp_play "$pod"
            played+=("$pod")
        done
    fi
    bp_wait_ready "$((begun + BP_TIMEOUT))" "$@"
    for pod in "$@"; do bp_check_key "$pod"; done
}

# Name of a pod's key in its folder of secrets, and the file that it must be the same as.
bp_shown_key() {
    case $1 in
    compute) echo "authorized_keys $(bp_compute_keys)/id_ed25519.pub" ;;
    *) echo "api_key $(bp_key_file)" ;;
    esac
}

# Pods that were started with another BLUESKY_PODS_DIR have other keys than those that are shown.
bp_check_key() {
    local container name file theirs ours
    container=$1-$(bp_containers_with_key "$1" | head -n 1)
    read -r name file < <(bp_shown_key "$1")
    theirs=$(podman exec "$container" sha256sum "$BP_SECRETS/$name" | cut -d' ' -f1) ||
        bp_fail "The container $container has no key at $BP_SECRETS/$name."
    ours=$(sha256sum "$file" | cut -d' ' -f1)
    [ "$theirs" = "$ours" ] || bp_fail \
        "The pod $1 runs with another key than the one in $file:" \
        "it was started with another BLUESKY_PODS_DIR, or the file has changed since." \
        "  To have it take this key: bash launchers/stop_pods.sh, and start again."
}

bp_restart() {
    bp_quietly podman pod start "$1" || {
        bp_say "podman could not start it: making it anew (its data stay) ..."
        return 1
    }
}

bp_say_if_changed() {
    [ "$(cat "$BLUESKY_PODS_DIR/$1.made-from" 2>/dev/null)" = "$(bp_made_from "$1")" ] || bp_say \
        "pods/ or an image has changed since the pod $1 was made. What has changed works after:" \
        "bash launchers/stop_pods.sh, and a start."
}

bp_play() {
    local said log=()
    bp_say "Making the pod $1 ..."
    # A log file of podman's own grows until the disk is full; the journal has its own limits.
    [ "$(podman info --format '{{.Host.LogDriver}}')" != k8s-file ] || log=(--log-opt "max-size=$BP_LOG_SIZE")
    said=$(bp_documents "$1" | podman kube play --network "$BP_NETWORK" "${log[@]}" - 2>&1) ||
        bp_fail "podman could not play pods/$1.yaml:" "$(bp_cause "$said")" \
            "  What is there of it stays, to look at; 'bash launchers/stop_pods.sh' removes it."
    (umask 077 && bp_made_from "$1" >"$BLUESKY_PODS_DIR/$1.made-from")
}

# What podman says of each container that another one drags along hides what went wrong.
bp_cause() { grep -v 'a dependency of container\|failed to connect to syslog\|^\(Pod\|Containers\):$\|^[0-9a-f]*$' <<<"$1" | tail -n 5 | cut -c1-500 | sed 's/^/    /'; }

bp_remove_pod() {
    podman pod exists "$1" || return 0
    bp_quietly podman pod stop --time 10 "$1" || bp_say "The pod $1 did not stop; it is removed by force."
    bp_quietly podman pod rm --force "$1"
}

# bp_quietly COMMAND... : without its stdout, and without podman's remarks that there is no systemd.
bp_quietly() {
    local said status=0
    said=$("$@" 2>&1 >/dev/null) || status=$?
    grep -v 'systemd connection\|failed to connect to syslog' <<<"$said" | grep . >&2 || true
    return "$status"
}

# Volumes that podman made of ConfigMaps and emptyDirs: it keeps them, and does not make the former anew
# when a file has changed. Those in use stay.
bp_remove_passing_volumes() {
    local volume there
    there=$(podman volume ls --quiet)
    for volume in "${!BP_CONFIG_MAPS[@]}" $(for pod in "${BP_PODS[@]}"; do bp_scratch_of "$pod"; done); do
        grep -qx "$volume" <<<"$there" || continue
        [ -n "$(podman ps --all --quiet --filter "volume=$volume")" ] || podman volume rm "$volume" >/dev/null
    done
}

# ---------------------------------------------------------------------------------------------
# Readiness: every container's own liveness probe has succeeded once

# bp_wait_ready DEADLINE POD... ; bp_wait_healthy DEADLINE CONTAINER BEGUN RESTARTS_BEFORE
bp_wait_ready() {
    local deadline=$1 pod container begun=$SECONDS restarts=()
    shift
    for pod in "$@"; do
        # shellcheck disable=SC2046 # one word for each
        mapfile -t restarts < <(bp_restarts $(bp_containers_of "$pod" | sed "s/^/$pod-/"))
        for container in $(bp_containers_of "$pod"); do
            bp_wait_healthy "$deadline" "$pod-$container" "$begun" "${restarts[0]}"
            restarts=("${restarts[@]:1}")
        done
        [ "$pod" != acquisition ] || bp_make_topics "$deadline"
    done
}

bp_wait_healthy() {
    local deadline=$1 container=$2 begun=$3 before=$4 restarts
    until timeout 30 podman healthcheck run "$container" >/dev/null 2>&1; do
        restarts=$(($(bp_restarts "$container") - before))
        [ "$restarts" -lt "$BP_MAX_RESTARTS" ] || {
            # podman would start it again several times a second, for ever.
            bp_quietly podman stop --time 2 "$container" || bp_say "The container $container could not be stopped."
            bp_give_up "$container" "it has ended $restarts times in a row, and is stopped now"
        }
        [ "$SECONDS" -lt "$deadline" ] ||
            bp_give_up "$container" "its liveness probe has not succeeded in $BP_TIMEOUT s (--timeout): $(bp_probe_said "$container")"
        sleep 0.3
    done
    bp_say "  $container: ready after $(bp_seconds_since "$begun")"
}

bp_probe_said() {
    podman inspect --format '{{range .State.Health.Log}}{{json .Output}}{{"\n"}}{{end}}' "$1" 2>/dev/null | tail -n 1 | cut -c1-400
}
bp_restarts() { podman inspect --format '{{.RestartCount}}' "$@"; }

bp_give_up() {
    bp_say "The container $1 is not ready: $2."
    bp_say "Its last lines (all of them: podman logs $1):"
    podman logs --tail 15 "$1" 2>&1 | sed 's/^/    /' >&2
    bp_fail "The pods stay as they are, to look at. Start again: this script; remove them: bash launchers/stop_pods.sh"
}

# Topics have their partitions from the start; a service that finds none would wait.
bp_make_topics() {
    local said='' seconds=$(($1 - SECONDS))
    [ "$seconds" -ge 5 ] || seconds=5
    # shellcheck disable=SC2016
    said=$(timeout $((seconds + 10)) podman exec acquisition-recorder python -c '
import sys
from bluesky_plugins.messaging import MessagingError, make_topics
from bluesky_plugins.settings import load_settings
try:
    make_topics(load_settings(), float(sys.argv[1]))
except MessagingError as error:
    sys.exit(str(error))
' "$seconds" 2>&1) || bp_fail "The topics could not be made in the pod's Kafka: $said" \
        "  podman logs acquisition-kafka, podman logs acquisition-recorder"
    bp_say "  topics: there"
}
