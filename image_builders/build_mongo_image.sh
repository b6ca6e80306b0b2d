#!/usr/bin/env bash
# mongo: MongoDB where a container registry answers, else mongo-java-server as the embedded stack has it
set -euo pipefail
# shellcheck source=image_builders/preamble.sh
source "$(dirname "${BASH_SOURCE[0]}")/preamble.sh" "$@"

bp_mongodb=$BP_REGISTRY/mongo:7.0

# Which of the two was built stands until --force: a registry that comes or goes must not change
# the server below data that are there.
bp_make_mongodb() {
    [ "$BP_REGISTRY" != none ] || return 1
    bp_pull "$bp_mongodb" || return 1
    bp_licenses=SSPL-1.0
    bp_kind=mongodb
    bp_begin "$bp_mongodb"
    buildah copy --quiet --from localhost/bluesky-base "$bp_container" /usr/bin/catatonit /usr/bin/catatonit >/dev/null
    bp_shell <<'EOS'
taken=$(getent passwd 1000 | cut -d: -f1)
[ -z "$taken" ] || userdel --remove "$taken"
groupadd --gid 1000 bluesky
useradd --uid 1000 --gid 1000 --create-home --shell /bin/bash bluesky
install -d -o bluesky -g bluesky -m 0700 /run/bluesky-plugins /run/bluesky-plugins/secrets
EOS
    bp_program start-mongo <<'PROGRAM'
#!/usr/bin/env bash
# Starts MongoDB as a replica set of one, with the user bluesky. MONGO_BIND (127.0.0.1): where it
# listens; MONGO_CACHE_GB (0.5): its cache. Data in /var/lib/mongo.
set -euo pipefail
secret=${BLUESKY_PLUGINS_SECRETS_DIR:-/run/bluesky-plugins/secrets}/mongo_password
[ -s "$secret" ] || {
    echo "mongo: $secret has no password; put one there (launchers/start_core_pods.sh does)" >&2
    exit 1
}
# Members of a replica set show each other this key; here there is one.
key=/var/lib/mongo/.key
[ -s "$key" ] || (umask 077 && head -c 512 /dev/urandom | base64 >"$key.new" && mv "$key.new" "$key")
mongod --dbpath /var/lib/mongo --port 27017 --bind_ip "${MONGO_BIND:-127.0.0.1}" --replSet bluesky \
    --auth --keyFile "$key" --wiredTigerCacheSizeGB "${MONGO_CACHE_GB:-0.5}" --quiet &
server=$!
trap 'kill -TERM "$server"' TERM INT
# Until there is a user, whoever is on this host may make the first one.
MONGO_PASSWORD=$(cat "$secret") timeout 60 mongosh --quiet --nodb --eval '
const until = Date.now() + 50000;
const wait = (what, condition) => { for (;;) { let why = ""; try { const got = condition(); if (got) return got; } catch (error) { why = error.message; }
    if (Date.now() > until) throw new Error(`mongo: ${what}: ${why}`); sleep(100); } };
const client = wait("does not answer", () => new Mongo("mongodb://127.0.0.1:27017/?directConnection=true&serverSelectionTimeoutMS=500"));
const admin = client.getDB("admin"), user = "bluesky", pwd = process.env.MONGO_PASSWORD;
let known = false;
try { known = admin.auth(user, pwd).ok === 1 || true; } catch (error) { known = false; }
if (!known) {
    try { admin.runCommand({replSetInitiate: {_id: "bluesky", members: [{_id: 0, host: "127.0.0.1:27017"}]}}); } catch (error) { if (error.codeName !== "AlreadyInitialized") throw error; }
    wait("is not primary", () => admin.hello().isWritablePrimary);
    admin.createUser({user, pwd, roles: ["readWriteAnyDatabase", "dbAdminAnyDatabase", "clusterMonitor"]});
}' || {
    echo "mongo: the replica set and the user bluesky could not be made (another password than the one of the data?)" >&2
    kill -TERM "$server"
}
# The first wait ends with the signal, the second with the server.
wait "$server" || wait "$server"
PROGRAM
    bp_program probe-mongo <<'PROGRAM'
#!/usr/bin/env bash
# 0 if MongoDB answers a ping within 5 s; else 1 and why.
exec timeout 5 mongosh --quiet --port 27017 --eval 'db.adminCommand({ping: 1}).ok ? print("ok") : quit(1)'
PROGRAM
}

bp_make_mongo_java_server() {
    bp_kind=mongo-java-server
    bp_begin localhost/bluesky-base
    bp_python image_builders/mongo.lock
    bp_package
    bp_jars_of mongo /opt/bluesky-plugins/jars
    bp_program start-mongo <<'PROGRAM'
#!/usr/bin/env bash
# Starts mongo-java-server. MONGO_BIND (127.0.0.1): where it listens; MONGO_HEAP_MB (512): largest heap.
# It has no passwords: whoever reaches its port reads and writes. Data in /var/lib/mongo.
set -euo pipefail
exec python -P -m bluesky_plugins.embedded.mongo --host "${MONGO_BIND:-127.0.0.1}" --port 27017 \
    --file /var/lib/mongo/data.mv --heap-mb "${MONGO_HEAP_MB:-512}" --jars-dir /opt/bluesky-plugins/jars
PROGRAM
    bp_program probe-mongo <<'PROGRAM'
#!/opt/venv/bin/python
"""probe-mongo : 0 if the server here answers a ping within 3 s; else 1 and why."""

import sys

from pymongo import MongoClient
from pymongo.errors import PyMongoError

try:
    with MongoClient("127.0.0.1", 27017, serverSelectionTimeoutMS=3000, socketTimeoutMS=3000) as client:
        client.admin.command("ping")
except PyMongoError as error:
    sys.exit(f"127.0.0.1:27017: {error}")
print("ok")
PROGRAM
}

bp_image mongo "MongoDB, or what speaks its protocol" \
    "The kind is in the label io.bluesky-plugins.mongo; data in /var/lib/mongo" "SSPL-1.0 OR BSD-3-Clause"
# The base also for MongoDB: catatonit comes from there.
bp_from_outside "$(bp_id_of bluesky-base)" image_builders/mongo.lock image_builders/tools.lock \
    "${bp_jars_sources[@]}" "${bp_package_sources[@]}"
bp_kind=
if [ "$bp_cached" = no ]; then
    bp_make_mongodb || bp_make_mongo_java_server
    bp_say "mongo: $bp_kind"
fi
bp_shell <<'EOS'
install -d -o bluesky -g bluesky -m 0700 /var/lib/mongo
EOS
bp_commit --entrypoint '["catatonit", "--"]' --cmd '["/opt/bluesky-plugins/bin/start-mongo"]' --port 27017 \
    --stop-signal SIGTERM --volume /data/db- --volume /data/configdb- \
    --label "io.bluesky-plugins.mongo=$bp_kind" \
    --healthcheck 'CMD /opt/bluesky-plugins/bin/probe-mongo' --healthcheck-interval 10s --healthcheck-timeout 10s \
    --healthcheck-start-period 30s --healthcheck-retries 3
