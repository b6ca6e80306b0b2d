#!/usr/bin/env bash
# redis: Debian's Redis with a password, writing every change to disk
set -euo pipefail
# shellcheck source=image_builders/preamble.sh
source "$(dirname "${BASH_SOURCE[0]}")/preamble.sh" "$@"

bp_image redis "Redis" "Redis with a password from a file; append-only file in /var/lib/redis" \
    BSD-3-Clause
bp_from bluesky-base
bp_apt redis-server
bp_shell <<'EOS'
install -d -o bluesky -g bluesky -m 0700 /var/lib/redis
rm -rf /etc/redis /var/log/redis
EOS
bp_program redis-password <<'PROGRAM'
#!/usr/bin/env bash
# The password, from its file, to stdout.
set -euo pipefail
file=${BLUESKY_PLUGINS_SECRETS_DIR:-/run/bluesky-plugins/secrets}/redis_password
password=$(cat "$file" 2>&1) || {
    echo "redis: the password cannot be read: $password; put one there (launchers/start_core_pods.sh does)" >&2
    exit 1
}
# What it may hold is what needs no quotes in Redis's configuration.
[[ $password =~ ^[A-Za-z0-9_-]{8,}$ ]] || {
    echo "redis: $file must hold one line of at least 8 letters, digits, _ or -" >&2
    exit 1
}
printf '%s' "$password"
PROGRAM
bp_program start-redis <<'PROGRAM'
#!/usr/bin/env bash
# Starts Redis. REDIS_BIND (127.0.0.1): where it listens; REDIS_MAXMEMORY (256mb): it refuses
# writes beyond that, nothing that a queue holds is dropped.
set -euo pipefail
password=$(redis-password)
# By stdin: an argument would show the password to everybody who may list processes.
exec redis-server - <<CONFIGURATION
bind ${REDIS_BIND:-127.0.0.1}
port 6379
dir /var/lib/redis
appendonly yes
appendfsync everysec
maxmemory ${REDIS_MAXMEMORY:-256mb}
maxmemory-policy noeviction
requirepass $password
CONFIGURATION
PROGRAM
bp_program probe-redis <<'PROGRAM'
#!/usr/bin/env bash
# 0 if Redis answers PING to the password; else 1 and its answer.
set -euo pipefail
REDISCLI_AUTH=$(redis-password)
export REDISCLI_AUTH
answer=$(timeout 3 redis-cli -h "${1:-127.0.0.1}" --no-auth-warning ping 2>&1) || answer="no answer: $answer"
echo "$answer"
[ "$answer" = PONG ]
PROGRAM
bp_commit --cmd '["start-redis"]' --port 6379 --stop-signal SIGTERM \
    --healthcheck 'CMD probe-redis' --healthcheck-interval 10s --healthcheck-timeout 5s --healthcheck-retries 3
