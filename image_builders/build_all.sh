#!/usr/bin/env bash
# Builds every image (not bluesky-dev), or the named ones and those that they are made from.
#
#   bash image_builders/build_all.sh [--force] [--no-pull] [--jobs N] [NAME...]
#
#   --force    build also what has not changed
#   --no-pull  use no container registry
#   --jobs N   so many builds beside each other (default: 2)
#
# What a build says goes into a file of its own, in the folder that the first line names.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launchers/podman.sh
source "$here/../launchers/podman.sh"

# Image, its script, the images whose scripts must be through before. The slowest begin first.
table='
bluesky-base       build_bluesky_base_image.sh
bluesky            build_bluesky_image.sh            bluesky-base
kafka              build_kafka_image.sh              bluesky-base
mongo              build_mongo_image.sh              bluesky-base
caproto            build_caproto_image.sh            bluesky-base
compute            build_compute_image.sh            bluesky-base
redis              build_redis_image.sh              bluesky-base
nginx              build_nginx_image.sh              bluesky-base
typhos             build_typhos_image.sh             bluesky
jupyter            build_jupyter_image.sh            bluesky
databroker-server  build_databroker_server_image.sh  bluesky
'

declare -A script parent state started
declare -a order=() options=() wanted=()
while read -r name file above; do
    [ -n "$name" ] || continue
    order+=("$name")
    script[$name]=$file
    parent[$name]=$above
done <<<"$table"

jobs=2
bp_usage() { sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }
while [ "$#" -gt 0 ]; do
    case $1 in
    --force | --no-pull) options+=("$1") ;;
    --jobs)
        jobs=${2:-}
        [[ $jobs =~ ^[1-9][0-9]?$ ]] || { bp_say "--jobs takes a number from 1 to 99, not '$jobs'"; exit 2; }
        shift
        ;;
    -h | --help) bp_usage; exit 0 ;;
    -*) bp_usage >&2; bp_say "unknown option: $1"; exit 2 ;;
    *)
        [ -n "${script[$1]:-}" ] || { bp_say "no image is called '$1'; there are: ${order[*]}"; exit 2; }
        wanted+=("$1")
        ;;
    esac
    shift
done

# What is to be built: the named and what they are made from.
bp_want() {
    [ -z "${state[$1]:-}" ] || return 0
    state[$1]=waiting
    [ -z "${parent[$1]}" ] || bp_want "${parent[$1]}"
}
[ "${#wanted[@]}" -gt 0 ] || wanted=("${order[@]}")
for name in "${wanted[@]}"; do bp_want "$name"; done
total=${#state[@]}

bp_need_buildah
logs=${XDG_CACHE_HOME:-$HOME/.cache}/bluesky-plugins/images/logs
mkdir -p "$logs"
# One of these at a time: the second finds what the first has built. Its builds do not hold the lock (8>&-).
exec 8>"$logs/lock"
flock --nonblock 8 || {
    echo "Another build of images is at work; waiting for it ..."
    flock --timeout 3600 8 || bp_fail "Another build of images has not ended in an hour ($logs/lock is held)." "  Which one: fuser -v $logs/lock"
}
echo "Building $total images; what each build says: $logs/NAME.log"

# Each build is a group of processes of its own, so that all of it can be ended.
set -m
declare -A running=()
bp_end_builds() {
    local pid
    trap - INT TERM EXIT
    for pid in "${!running[@]}"; do kill -TERM -- "-$pid" 2>/dev/null || true; done
    # Each removes its working container before it ends.
    for pid in "${!running[@]}"; do wait "$pid" || true; done
}
trap bp_end_builds EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

bp_start() {
    local name=$1
    state[$name]=running
    started[$name]=$SECONDS
    bash "$here/${script[$name]}" "${options[@]}" >"$logs/$name.log" 2>&1 </dev/null 8>&- &
    running[$!]=$name
}

bp_start_what_can() {
    local name
    for name in "${order[@]}"; do
        [ "${#running[@]}" -lt "$jobs" ] || return 0
        [ "${state[$name]:-}" = waiting ] || continue
        [ -z "${parent[$name]}" ] || [ "${state[${parent[$name]}]}" = built ] || continue
        bp_start "$name"
    done
}

finished=0
while :; do
    bp_start_what_can
    [ "${#running[@]}" -gt 0 ] || break
    status=0
    # Bounded by the builds: each command in them that fetches something has its own time limit.
    wait -n -p pid "${!running[@]}" || status=$?
    name=${running[$pid]}
    unset "running[$pid]"
    finished=$((finished + 1))
    if [ "$status" -ne 0 ]; then
        bp_fail "[$finished/$total] $name FAILED after $((SECONDS - started[$name])) s, exit status $status. Its last lines ($logs/$name.log):" \
            "$(tail -n 15 "$logs/$name.log" | sed 's/^/    /')" \
            "  That one again, by itself: bash image_builders/${script[$name]}"
    fi
    state[$name]=built
    echo "[$finished/$total] $(tail -n 1 "$logs/$name.log")"
done
echo "All $total images are there, after $SECONDS s."
