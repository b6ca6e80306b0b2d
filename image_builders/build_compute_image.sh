#!/usr/bin/env bash
# compute: a Slurm of one node with munge and sshd, all as an ordinary user, and the programs of its jobs
set -euo pipefail
# shellcheck source=image_builders/preamble.sh
source "$(dirname "${BASH_SOURCE[0]}")/preamble.sh" "$@"

# Debian's packages and the programs' libraries change seldom: an image of their own below the rest.
bp_image compute-libraries "Slurm and sshd" \
    "Debian's Slurm, munge and sshd, and what image_builders/focus.lock names; the image compute is made from it" \
    GPL-2.0-or-later
bp_from bluesky-base image_builders/focus.lock
bp_apt slurmctld slurmd slurm-client munge openssh-server openssh-client
bp_focus_libraries
# The packages' own keys, users' folders and services are of no use: everything runs as one user.
bp_shell <<'EOS'
usermod --login beamline --home /home/beamline --move-home --password '*' bluesky
groupmod --new-name beamline bluesky
rm -rf /etc/ssh/ssh_host_* /etc/munge/munge.key /etc/slurm /var/lib/slurm /var/log/slurm /var/log/munge /var/lib/munge
install -d -o beamline -g beamline -m 0700 /run/compute /var/lib/slurm
install -d -o beamline -g beamline -m 0755 /home/beamline /beamline/camera
install -d /etc/compute /beamline/data
EOS
bp_commit --user beamline --workingdir /home/beamline

bp_image compute "Compute" \
    "A Slurm of one node, and sshd on port 60622 for the user beamline; start-slurm, start-sshd" GPL-2.0-or-later
bp_from compute-libraries pods/compute "${bp_focus_sources[@]}"
bp_copy pods/compute/slurm.conf pods/compute/sshd_config /etc/compute/
bp_focus
bp_program start-slurm <<'PROGRAM'
#!/usr/bin/env bash
# start-slurm [FILE=/etc/compute/slurm.conf] : munged, slurmctld and slurmd of a cluster that is this container.
# It ends when one of them does, so that the container is started again; then no job of before is left, and
# Slurm is told so. COMPUTE_CPUS (those of the machine), COMPUTE_MEMORY_MB (the container's limit, a tenth
# left out): what jobs may have.
set -euo pipefail
template=${1:-/etc/compute/slurm.conf}
# Shared with the container of sshd: Slurm's configuration and munge's socket.
run=/run/compute
export SLURM_CONF=$run/slurm.conf

say() { echo "compute: $*" >&2; }

# The limit of the container, or what the machine has, MB.
memory_mb() {
    local limit machine
    machine=$(awk '/^MemTotal:/ {print int($2 / 1024)}' /proc/meminfo)
    limit=$(cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null | head -n 1) || true
    if [[ $limit =~ ^[0-9]{1,15}$ ]] && [ "$((limit / 1048576))" -lt "$machine" ]; then
        machine=$((limit / 1048576))
    fi
    echo "$((machine * 9 / 10))"
}

configure() {
    local host cpus memory
    host=$(hostname -s)
    cpus=${COMPUTE_CPUS:-$(nproc)}
    memory=${COMPUTE_MEMORY_MB:-$(memory_mb)}
    [[ $cpus =~ ^[1-9][0-9]*$ && $memory =~ ^[1-9][0-9]*$ ]] || {
        say "COMPUTE_CPUS and COMPUTE_MEMORY_MB must be whole numbers, not '$cpus' and '$memory'"
        exit 1
    }
    sed -e "s/@HOST@/$host/g" -e "s/@CPUS@/$cpus/g" -e "s/@MEMORY_MB@/$memory/g" \
        -e "s/@MEMORY_PER_CPU_MB@/$((memory / cpus))/g" "$template" >"$SLURM_CONF.new"
    mv "$SLURM_CONF.new" "$SLURM_CONF"
}

# until_true SECONDS WHAT COMMAND... : or everything ends.
until_true() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || { say "$what: not within the time for it"; exit 1; }
        read -r -t 0.1 <>"$pause" || true
    done
}

controller_answers() { [[ $(scontrol ping) == *"is UP"* ]]; }

daemons=()
stop() {
    trap - EXIT TERM INT
    # Jobs end with the container; the next start tells Slurm so. slurmctld writes its queue down before it ends.
    for pid in "${daemons[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    wait
    exit "$1"
}
trap 'stop $?' EXIT
trap 'stop 0' TERM INT

umask 077
pause=/tmp/compute.pause
rm -rf "$run/munge.socket" "$run/munge.socket.lock" /tmp/slurmd "$pause"
mkfifo "$pause"
mkdir -p /var/lib/slurm/state /tmp/slurmd
configure
# Of this life of the container: all who need it start with it.
rm -f /tmp/munge.key
head -c 128 /dev/urandom >/tmp/munge.key
chmod 0400 /tmp/munge.key
munged --foreground --force --num-threads=2 --key-file=/tmp/munge.key --socket="$run/munge.socket" \
    --pid-file=/tmp/munged.pid --log-file=/tmp/munged.log --seed-file=/tmp/munged.seed &
daemons+=("$!")
until_true 10 "munged has its socket" test -S "$run/munge.socket"
slurmctld -D &
daemons+=("$!")
until_true 30 "slurmctld answers" controller_answers
# What it remembers as running ended with the container. Told so, Slurm fails it and frees what it held; else
# such a job would be started a second time, or hold its place for ever.
lost=$(squeue --noheader --states RUNNING,COMPLETING,SUSPENDED --format %i | wc -l)
if [ "$lost" -gt 0 ]; then
    say "$lost jobs ended with the container; Slurm is told that their node failed"
    scontrol update NodeName=compute State=DOWN Reason="the container was started again"
fi
slurmd -D &
daemons+=("$!")
until_true 30 "the node is idle" probe-compute slurm
say "ready: $(sinfo --noheader --format '%c CPUs, %m MB, node %T')"
status=0
wait -n "${daemons[@]}" || status=$?
say "a daemon has ended with status $status; the container ends"
exit 1
PROGRAM
bp_program start-sshd <<'PROGRAM'
#!/usr/bin/env bash
# start-sshd [FILE=/etc/compute/sshd_config] : sshd for the user beamline. Host key and authorized_keys are
# in the folder of secrets.
set -euo pipefail
file=${1:-/etc/compute/sshd_config}
secrets=/run/bluesky-plugins/secrets
for name in ssh_host_ed25519_key authorized_keys; do
    [ -r "$secrets/$name" ] || {
        echo "compute: $secrets/$name cannot be read; put one there (launchers/start_compute_pod.sh does)" >&2
        exit 1
    }
done
exec /usr/sbin/sshd -D -e -f "$file"
PROGRAM
bp_program probe-compute <<'PROGRAM'
#!/usr/bin/env bash
# probe-compute [slurm|sshd] : 0 if Slurm's node takes jobs (or a person has drained it), and if sshd answers;
# else 1 and why.
set -euo pipefail
export SLURM_CONF=/run/compute/slurm.conf
slurm() {
    local state
    state=$(timeout 8 sinfo --noheader --format %T 2>&1) || state="no answer: $state"
    echo "node $state"
    [[ $state =~ ^(idle|mixed|allocated|completing|draining|drained|planned|reserved|maint)$ ]]
}
sshd() {
    local line=
    exec 3<>/dev/tcp/127.0.0.1/60622
    read -r -t 5 -u 3 line || true
    exec 3>&-
    echo "sshd ${line:-says nothing}"
    [[ $line == SSH-2.0-* ]]
}
case ${1:-both} in
slurm) slurm ;;
sshd) sshd ;;
both) slurm && sshd ;;
*) echo "usage: probe-compute [slurm|sshd]" >&2; exit 2 ;;
esac
PROGRAM
bp_commit --user beamline --workingdir /home/beamline --cmd '["start-slurm"]' --port 60622 --stop-signal SIGTERM \
    --env SLURM_CONF=/run/compute/slurm.conf \
    --healthcheck 'CMD probe-compute slurm' --healthcheck-interval 10s --healthcheck-timeout 10s \
    --healthcheck-start-period 30s --healthcheck-retries 3
