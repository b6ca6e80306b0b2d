"""Kafka: the codec, the producer with its spool on disk, consumers, topics, dead letters."""

from bluesky_plugins.messaging.codec import decode, encode
from bluesky_plugins.messaging.consumer import Consumer
from bluesky_plugins.messaging.dead_letters import dead_letter
from bluesky_plugins.messaging.errors import (
    BrokerUnreachable,
    CommitFailed,
    DecodingError,
    EncodingError,
    Fenced,
    MessageTooLarge,
    MessagingError,
    NotDelivered,
    Undeliverable,
)
from bluesky_plugins.messaging.groups import group_members
from bluesky_plugins.messaging.message import Message
from bluesky_plugins.messaging.process import process_producer
from bluesky_plugins.messaging.producer import Producer
from bluesky_plugins.messaging.publisher import KafkaPublisher
from bluesky_plugins.messaging.reader import TopicReader
from bluesky_plugins.messaging.topics import (
    TOPICS,
    broker_count,
    make_topics,
    partition_counts,
)

__all__ = [
    "TOPICS",
    "BrokerUnreachable",
    "CommitFailed",
    "Consumer",
    "DecodingError",
    "EncodingError",
    "Fenced",
    "KafkaPublisher",
    "Message",
    "MessageTooLarge",
    "MessagingError",
    "NotDelivered",
    "Producer",
    "TopicReader",
    "Undeliverable",
    "broker_count",
    "dead_letter",
    "decode",
    "encode",
    "group_members",
    "make_topics",
    "partition_counts",
    "process_producer",
]
