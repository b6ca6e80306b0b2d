"""The embedded servers as processes: what they keep when they are killed, and what they say."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.system


def test_settings_of_a_test_reach_three_running_servers(make_settings):
    import pymongo
    import redis
    from confluent_kafka.admin import AdminClient

    settings = make_settings()
    assert AdminClient({"bootstrap.servers": settings.kafka.address}).list_topics(timeout=5).brokers
    with pymongo.MongoClient(settings.mongo.address) as client:
        assert client.admin.command("ping")["ok"] == 1
    with redis.Redis.from_url(settings.redis.address) as client:
        assert client.ping()


def test_killed_servers_answer_again_on_the_same_address(
    private_kafka, private_mongo, private_valkey
):
    for server in (private_kafka, private_mongo, private_valkey):
        before = server.pid
        server.kill()
        assert not server.running
        server.start()
        assert server.pid != before
