"""The other side of a raw Kafka round trip: reads `jobs`, produces to `analysis` at once."""

from __future__ import annotations

import confluent_kafka

from bluesky_plugins.settings import load_settings

settings = load_settings()
servers = {"bootstrap.servers": settings.kafka.address}
producer = confluent_kafka.Producer({**servers, "enable.idempotence": True, "linger.ms": 0})
consumer = confluent_kafka.Consumer({**servers, "group.id": "raw-echo"})
topic = settings.topic("jobs")
partitions = consumer.list_topics(topic, 10).topics[topic].partitions
consumer.assign([confluent_kafka.TopicPartition(topic, p, 0) for p in partitions])
print("ready", flush=True)
while True:
    message = consumer.poll(1.0)
    if message is not None and message.error() is None:
        producer.produce(settings.topic("analysis"), message.value(), key=message.key())
        producer.poll(0)
