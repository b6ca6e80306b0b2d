"""A recommender as the old deployment has it: RemoteDispatcher in, Redis list out."""

from __future__ import annotations

import json
import sys
from uuid import uuid4

import redis
from bluesky_kafka import RemoteDispatcher

from bluesky_plugins.settings import load_settings

settings = load_settings()
answers = redis.Redis.from_url(settings.redis.address)
point = {}


def recommend(name: str, doc: dict) -> None:
    if name == "event":
        point["motor"] = doc["data"]["motor"] + 1.5
    elif name == "stop":
        answers.lpush(sys.argv[1], json.dumps(point))


dispatcher = RemoteDispatcher(
    topics=[settings.topic("adaptive")],
    bootstrap_servers=settings.kafka.address,
    group_id=uuid4().hex,
    consumer_config={"auto.offset.reset": "latest"},
    polling_duration=0.1,
)
dispatcher.subscribe(recommend)
ready = []


def say_ready() -> bool:
    # It has no way to say that it is ready: once it has its partitions, it is.
    consumer = dispatcher._bluesky_consumer._consumer  # noqa: SLF001
    if not ready and consumer.assignment():
        ready.append(True)
        print("ready", flush=True)
    return True


dispatcher.start(continue_polling=say_ready)
