"""The embedded servers as processes: what they keep when they are killed, and what they say."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pymongo
import pytest
import redis
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from pymongo.errors import DuplicateKeyError, PyMongoError

from bluesky_plugins.embedded import (
    DataFolderError,
    mongo_command,
    prepare_kafka,
    prepare_valkey,
    tethered,
)

# The servers may have to start first, side by side with those of other tests.
pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]
# It only bounds a hang: a busy machine takes ten times as long as an idle one.
DEADLINE = 60.0


def limit_files(server, size: int) -> None:
    """No file of the server may grow beyond `size` bytes: for it, the disk is full."""
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (size, size))


def wait_for_end(server, timeout: float = DEADLINE) -> int:
    """Exit status of a server that ends by itself."""
    return server._process.wait(timeout)


def log_of(server) -> str:
    return server.log.read_text(errors="replace")


# -- all three ------------------------------------------------------------------------------


def test_settings_of_a_test_reach_three_running_servers(make_settings):
    settings = make_settings()
    admin = AdminClient({"bootstrap.servers": settings.kafka.address})
    assert admin.list_topics(timeout=DEADLINE).brokers
    with pymongo.MongoClient(settings.mongo.address) as client:
        assert client.admin.command("ping")["ok"] == 1
    with redis.Redis.from_url(settings.redis.address) as client:
        assert client.ping()


@pytest.mark.parametrize("name", ["kafka", "mongo", "valkey"])
def test_port_that_is_taken_is_named(name, request, tmp_path):
    first = request.getfixturevalue(f"private_{name}")
    port = int(first.address.removesuffix("/0").rpartition(":")[2])
    (other := tmp_path / "other").mkdir()
    argv = {
        "kafka": lambda: prepare_kafka(other, port=port, controller_port=port + 1),
        "mongo": lambda: mongo_command(other / "mongo.mv", port=port),
        "valkey": lambda: prepare_valkey(other, port=port),
    }[name]()
    done = subprocess.run(
        tethered(argv), capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert done.returncode != 0
    assert "Address already in use" in done.stdout + done.stderr


# -- MongoDB --------------------------------------------------------------------------------


class Writers:
    """Threads that insert until the server is gone, and know what was acknowledged."""

    def __init__(self, uri: str, count: int = 4) -> None:
        self.acknowledged: list[set[str]] = [set() for _ in range(count)]
        self._uri = uri
        self._enough = threading.Semaphore(0)
        self._threads = [threading.Thread(target=self._write, args=(i,)) for i in range(count)]

    def run_until(self, writes: int, kill) -> set[str]:
        """`kill` after so many acknowledged commands; the uids that were acknowledged."""
        for thread in self._threads:
            thread.start()
        for _ in range(writes):
            assert self._enough.acquire(timeout=DEADLINE)
        kill()
        for thread in self._threads:
            thread.join(DEADLINE)
        return set().union(*self.acknowledged)

    def _write(self, me: int) -> None:
        # Long enough to connect on a busy machine; after the kill, some wait as long.
        with pymongo.MongoClient(
            self._uri, retryWrites=False, serverSelectionTimeoutMS=5000
        ) as client:
            for n in range(100_000):
                size = 20 if me % 2 else 1
                documents = [{"uid": f"{me}-{n}-{k}", "text": "x" * 300} for k in range(size)]
                try:
                    client.t.c.insert_many(documents, ordered=False)
                except PyMongoError:
                    return
                self.acknowledged[me] |= {d["uid"] for d in documents}
                self._enough.release()


def uids(uri: str) -> Counter[str]:
    with pymongo.MongoClient(uri) as client:
        return Counter(d["uid"] for d in client.t.c.find({}, {"uid": 1}))


def unique(uri: str) -> None:
    with pymongo.MongoClient(uri) as client:
        client.t.c.create_index("uid", unique=True)


def test_killed_mongo_has_all_that_it_acknowledged(private_mongo):
    unique(private_mongo.address)
    for _ in range(2):
        private_mongo.start()
        writers = Writers(private_mongo.address)
        with pymongo.MongoClient(private_mongo.address) as client:
            client.t.c.delete_many({})
        acknowledged = writers.run_until(random.randint(150, 400), private_mongo.kill)
        private_mongo.start()
        found = uids(private_mongo.address)
        assert acknowledged <= set(found)
        assert set(found.values()) == {1}


def test_mongo_without_our_commits_loses_what_it_acknowledged(private_mongo):
    # The library as it comes; when this fails, the commits are no longer needed.
    prepare = private_mongo._prepare
    private_mongo._prepare = lambda: [*prepare(), "--no-commit"]
    private_mongo.stop()
    private_mongo.start()
    unique(private_mongo.address)
    lost: set[str] = set()
    # The background commit comes once a second; a kill right after it would lose nothing.
    for _ in range(3):
        with pymongo.MongoClient(private_mongo.address) as client:
            client.t.c.delete_many({})  # they write the same uids each time
        acknowledged = Writers(private_mongo.address).run_until(150, private_mongo.kill)
        private_mongo.start()
        lost |= acknowledged - set(uids(private_mongo.address))
        if lost:
            break
    assert lost


def test_killed_mongo_has_no_key_without_its_document(private_mongo):
    unique(private_mongo.address)
    Writers(private_mongo.address).run_until(200, private_mongo.kill)
    private_mongo.start()
    found = set(uids(private_mongo.address))
    with pymongo.MongoClient(private_mongo.address) as client:
        # What the writers had on the way when the server died.
        for me in range(4):
            stored = (int(uid.split("-")[1]) for uid in found if uid.startswith(f"{me}-"))
            last = max(stored, default=0)  # one may not have had its turn yet
            for n in range(last, last + 3):
                for k in range(20 if me % 2 else 1):
                    uid = f"{me}-{n}-{k}"
                    try:
                        client.t.c.insert_one({"uid": uid})
                        assert uid not in found
                    except DuplicateKeyError:
                        assert uid in found


@pytest.mark.timed
def test_mongo_ends_with_0_on_sigterm_and_keeps_what_it_has(private_mongo):
    with pymongo.MongoClient(private_mongo.address) as client:
        client.t.c.insert_one({"uid": "a"})
        started = time.monotonic()
        assert private_mongo.stop() == 0
    assert time.monotonic() - started < 5
    private_mongo.start()
    assert uids(private_mongo.address) == {"a": 1}


def test_racing_inserts_of_one_uid_store_it_once(mongo):
    with pymongo.MongoClient(mongo) as client, ThreadPoolExecutor(8) as pool:
        collection = client[f"race-{random.randrange(10**9)}"].c
        collection.create_index("uid", unique=True)

        def insert(uid: int) -> bool:
            try:
                collection.insert_one({"uid": uid})
            except DuplicateKeyError:
                return False
            return True

        assert sum(pool.map(insert, list(range(200)) * 4)) == 200
        assert collection.count_documents({}) == 200


def test_mongo_says_a_version_that_drivers_take(mongo):
    with pymongo.MongoClient(mongo) as client:
        assert client.server_info()["version"] == "5.0.0"
        assert client.admin.command("isMaster")["maxWireVersion"] >= 9


def test_wasteful_file_is_compacted_at_the_next_start(private_mongo, tmp_path):
    with pymongo.MongoClient(private_mongo.address) as client:
        for _ in range(40):
            client.t.c.insert_one({"n": random.randbytes(1_000_000)})
        # Waste at one blow: what is overwritten bit by bit for more than 5 s is used again.
        client.t.c.delete_many({})
        value = {"_id": 1, "n": random.randbytes(1_000_000)}
        client.t.c.insert_one(value)
        private_mongo.kill()
        before = (tmp_path / "mongo.mv").stat().st_size
        private_mongo.start()
        assert client.t.c.find_one({"_id": 1})["n"] == value["n"]
    assert before > 40_000_000
    assert (tmp_path / "mongo.mv").stat().st_size < 10_000_000


def test_file_in_use_by_another_server_is_told(private_mongo, tmp_path):
    done = subprocess.run(
        mongo_command(tmp_path / "mongo.mv", port=1),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 1
    assert f"{tmp_path / 'mongo.mv'} is in use by another server" in done.stderr


def test_file_of_something_else_is_told_and_left_alone(tmp_path):
    file = tmp_path / "mongo.mv"
    file.write_bytes(content := b"\0\1 not a store " * 4000)
    done = subprocess.run(
        mongo_command(file, port=1), capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == 1
    assert f"{file} is damaged or of another version" in done.stderr
    assert file.read_bytes() == content


def stored_until_refused(collection) -> int:
    """Number of documents of 1 MB that were acknowledged before one was not."""
    for stored in range(100):
        try:
            collection.insert_one({"uid": str(stored), "n": random.randbytes(1_000_000)})
        except PyMongoError:
            return stored
    raise AssertionError("100 MB were stored")


def test_mongo_that_cannot_write_ends_and_says_so(private_mongo, tmp_path):
    limit_files(private_mongo, 10_000_000)
    with pymongo.MongoClient(private_mongo.address, retryWrites=False) as client:
        stored = stored_until_refused(client.t.c)
    assert wait_for_end(private_mongo) == 1
    assert f"{tmp_path / 'mongo.mv'} cannot be written" in log_of(private_mongo)
    private_mongo.start()
    assert set(uids(private_mongo.address)) >= {str(n) for n in range(stored)}


# -- Kafka ----------------------------------------------------------------------------------


def make_topic(address: str, name: str = "t", partitions: int = 4) -> None:
    admin = AdminClient({"bootstrap.servers": address})
    admin.create_topics([NewTopic(name, partitions, 1)])[name].result(DEADLINE)


def read_all(address: str, topic: str, partitions: int = 4) -> list[bytes]:
    """Every message, up to the ends at the time of the call."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": "check"})
    try:
        parts = [TopicPartition(topic, p, 0) for p in range(partitions)]
        ends = [consumer.get_watermark_offsets(part, timeout=DEADLINE)[1] for part in parts]
        consumer.assign(parts)
        values: list[bytes] = []
        deadline = time.monotonic() + DEADLINE
        while len(values) < sum(ends) and time.monotonic() < deadline:
            batch = consumer.consume(10_000, timeout=1)
            assert all(message.error() is None for message in batch)
            values += [message.value() for message in batch]
        return values
    finally:
        consumer.close()


def test_killed_kafka_has_each_message_once_and_in_order(private_kafka):
    make_topic(private_kafka.address)
    producer = Producer(
        {"bootstrap.servers": private_kafka.address, "enable.idempotence": True, "linger.ms": 1}
    )
    sent = iter(range(10**9))

    def produce(count: int) -> None:
        for _ in range(count):
            n = next(sent)
            producer.produce("t", str(n), key=str(n % 16))
            producer.poll(0)

    for _ in range(2):
        produce(5000)
        producer.poll(0.2)
        produce(3000)
        private_kafka.kill()
        produce(1000)
        private_kafka.start()
    assert producer.flush(DEADLINE) == 0
    values = [int(value) for value in read_all(private_kafka.address, "t")]
    assert sorted(values) == list(range(next(sent)))
    for key in range(16):
        mine = [n for n in values if n % 16 == key]
        assert mine == sorted(mine)


def test_topic_is_not_made_by_a_mistake(kafka):
    producer = Producer({"bootstrap.servers": kafka, "message.timeout.ms": 3000})
    delivered: list[bool] = []
    producer.produce("nowhere", b"x", on_delivery=lambda error, _: delivered.append(error is None))
    producer.flush(DEADLINE)
    assert delivered == [False]
    topics = AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=DEADLINE).topics
    assert "nowhere" not in topics


def test_message_as_large_as_a_picture_passes(kafka):
    topic = f"large-{random.randrange(10**9)}"
    make_topic(kafka, topic, 1)
    producer = Producer({"bootstrap.servers": kafka, "message.max.bytes": 20_000_000})
    producer.produce(topic, random.randbytes(15_000_000))
    assert producer.flush(DEADLINE) == 0
    assert [len(value) for value in read_all(kafka, topic, 1)] == [15_000_000]


def test_kafka_keeps_its_data_when_its_ports_change(private_kafka, tmp_path):
    make_topic(private_kafka.address)
    producer = Producer({"bootstrap.servers": private_kafka.address})
    producer.produce("t", b"before")
    assert producer.flush(DEADLINE) == 0
    private_kafka.stop()
    port = int(private_kafka.address.rpartition(":")[2])
    prepare_kafka(tmp_path / "kafka", port=port, controller_port=port + 1)
    private_kafka.start()
    assert read_all(private_kafka.address, "t") == [b"before"]


def test_kafka_lives_in_a_path_with_blanks_and_umlauts(tmp_path, free_kafka):
    server = free_kafka(tmp_path / "Messdaten für 2 Türme")
    make_topic(server.address)
    producer = Producer({"bootstrap.servers": server.address})
    producer.produce("t", b"x", partition=0)
    assert producer.flush(DEADLINE) == 0
    assert (tmp_path / "Messdaten für 2 Türme" / "kafka" / "data" / "t-0").is_dir()


def test_data_of_another_version_of_kafka_are_refused(private_kafka, tmp_path):
    private_kafka.stop()
    mark = tmp_path / "kafka" / "data" / "bluesky-plugins.json"
    mark.write_text(json.dumps({"server": "kafka", "version": "5.0.0"}))
    with pytest.raises(DataFolderError, match=r"5\.0\.0.*4\.1\.1"):
        private_kafka.start()


def test_kafka_that_cannot_write_ends_and_says_so(private_kafka, tmp_path):
    make_topic(private_kafka.address, partitions=1)
    # Above the 10 MB that an index file has from the start.
    limit_files(private_kafka, 12_000_000)
    # Idempotent: what the broker took without having said so must not be there twice.
    own = {"enable.idempotence": True, "compression.type": "none", "linger.ms": 0}
    producer = Producer({"bootstrap.servers": private_kafka.address, **own})
    for _ in range(30):
        producer.produce("t", os.urandom(900_000))
        producer.poll(0)
    producer.poll(1)
    assert wait_for_end(private_kafka) != 0
    assert f"{tmp_path / 'kafka' / 'data'}" in log_of(private_kafka)
    private_kafka.start()
    assert producer.flush(DEADLINE) == 0
    assert len(read_all(private_kafka.address, "t", 1)) == 30


@pytest.mark.timed
def test_killed_kafka_answers_again_soon(private_kafka):
    make_topic(private_kafka.address)
    private_kafka.kill()
    started = time.monotonic()
    private_kafka.start()
    # 1.7 s on an idle machine. With Kafka's defaults it is 11 s.
    assert time.monotonic() - started < 8


def test_frozen_kafka_is_seen_as_not_answering(private_kafka):
    client = AdminClient({"bootstrap.servers": private_kafka.address})
    private_kafka.freeze()
    with pytest.raises(KafkaException):
        client.list_topics(timeout=1)
    private_kafka.thaw()
    assert client.list_topics(timeout=DEADLINE).brokers


# -- Valkey ---------------------------------------------------------------------------------


def test_killed_valkey_has_all_that_it_acknowledged(private_valkey):
    with redis.Redis.from_url(private_valkey.address) as client:
        for n in range(2000):
            client.rpush("queue", n)
    private_valkey.kill()
    private_valkey.start()
    with redis.Redis.from_url(private_valkey.address) as client:
        assert client.lrange("queue", 0, -1) == [str(n).encode() for n in range(2000)]
