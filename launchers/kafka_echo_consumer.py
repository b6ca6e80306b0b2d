#!/usr/bin/env python3
"""Print the Bluesky documents of a beamline as they come over Kafka.

Stand-alone, for people outside:

    pip install -r requirements.txt
    python kafka_echo_consumer.py --bootstrap-servers HOST:PORT

It belongs to no consumer group, so it disturbs nobody. Documents are data only: what would
have to be unpickled (arrays of Python objects) is shown as garbage, like everything else
that cannot be decoded.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
import uuid
from datetime import datetime
from typing import Any

import msgpack
import msgpack_numpy
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

OBJECTS = (b"O", "O")


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--bootstrap-servers",
        default="127.0.0.1:9092",
        metavar="HOST:PORT[,...]",
        help="where Kafka is (default: %(default)s)",
    )
    add(
        "--topics",
        nargs="+",
        default=["mad.bluesky.documents"],
        metavar="TOPIC",
        help="full names of the topics (default: mad.bluesky.documents)",
    )
    add("--from-beginning", action="store_true", help="print what is there already (default: no)")
    add("--full", action="store_true", help="print whole documents (default: one line each)")
    add(
        "--max-messages",
        type=int,
        default=None,
        metavar="N",
        help="end after this many messages (default: never)",
    )
    add(
        "--timeout",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="fail when Kafka does not answer at the start, in seconds (default: %(default)s)",
    )
    return parser.parse_args(argv)


def revive(obj: dict[Any, Any]) -> Any:
    """Arrays and numpy scalars, but never what msgpack_numpy would unpickle."""
    if b"nd" in obj and obj.get(b"kind") in OBJECTS:
        raise ValueError("an array of Python objects (pickled) is refused")
    return msgpack_numpy.decode(obj)


def decode(value: bytes | None) -> tuple[str, dict[str, Any]]:
    """The name and the document of a message.

    :raises ValueError: if it is not such a pair.
    """
    if not value:
        raise ValueError("empty message")
    try:
        pair = msgpack.unpackb(value, object_hook=revive)
    except Exception as error:
        raise ValueError(f"not a msgpack document: {error}") from error
    if not (isinstance(pair, list) and len(pair) == 2):
        raise ValueError("not a pair of name and document")
    name, doc = pair
    if not (isinstance(name, str) and isinstance(doc, dict)):
        raise ValueError("not a pair of name and document")
    return name, doc


def printable(text: str) -> str:
    """Without what would steer a terminal."""
    return text if text.isprintable() else repr(text)[1:-1]


def line(message: Any, full: bool) -> str:
    """What is printed for a message."""
    milliseconds = message.timestamp()[1]
    seconds = milliseconds / 1000 if milliseconds > 0 else time.time()
    when = f"{datetime.fromtimestamp(seconds):%H:%M:%S.%f}"[:-3]
    begin = f"{when}  {message.topic()}"
    try:
        name, doc = decode(message.value())
    except ValueError as error:
        where = f"partition {message.partition()}, offset {message.offset()}"
        return f"{begin}  GARBAGE  {printable(str(error))} ({where})"
    shown = doc.get("data", doc) if not full else doc
    text = printable(str(shown))
    cut = text if full or len(text) <= 160 else text[:157] + "..."
    return f"{begin}  {printable(name):<15} {cut}"


def start(consumer: Consumer, topics: list[str], beginning: bool, timeout: float) -> None:
    """Stand in every partition of the topics.

    :raises KafkaException: if the broker does not say where they begin or end.
    """
    deadline = time.monotonic() + timeout
    places = []
    for topic in topics:
        known = consumer.list_topics(topic, timeout=timeout).topics[topic]
        if known.error is not None:
            raise KafkaException(known.error)
        for number in known.partitions:
            place = TopicPartition(topic, number)
            left = max(deadline - time.monotonic(), 0.1)
            low, high = consumer.get_watermark_offsets(place, timeout=left)
            places.append(TopicPartition(topic, number, low if beginning else high))
    consumer.assign(places)


def echo(consumer: Consumer, options: argparse.Namespace) -> None:
    """Print messages until there were enough."""
    count = 0
    while options.max_messages is None or count < options.max_messages:
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error() is not None:
            if message.error().code() != KafkaError.OFFSET_OUT_OF_RANGE:
                print(f"Kafka: {message.error()}", file=sys.stderr)
            continue
        print(line(message, options.full), flush=True)
        count += 1


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done (also after Ctrl-C or SIGTERM), 1 when Kafka does not answer."""
    options = arguments(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    consumer = Consumer(
        {
            "bootstrap.servers": options.bootstrap_servers,
            "group.id": f"echo-{uuid.uuid4().hex}",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "reconnect.backoff.max.ms": 1000,
            "log_level": 0,
        }
    )
    try:
        start(consumer, options.topics, options.from_beginning, options.timeout)
        print(f"listening to {', '.join(options.topics)}", file=sys.stderr, flush=True)
        echo(consumer, options)
    except KafkaException as error:
        print(f"Kafka at {options.bootstrap_servers}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    finally:
        consumer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
