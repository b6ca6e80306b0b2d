"""The recorder on a real Kafka and MongoDB's protocol: nothing lost, nothing twice."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import confluent_kafka
import pymongo
import pytest

from bluesky_plugins.messaging import Producer, TopicReader, decode, encode, make_topics
from bluesky_plugins.recording import COLLECTIONS, RecorderService, same_content
from bluesky_plugins.settings import Settings
from bluesky_plugins.testing.runs import composed_event, composed_run

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

# It only bounds a hang: a busy machine takes ten times as long as an idle one.
DEADLINE = 90.0
SERVE = [sys.executable, "-m", "bluesky_plugins.cli", "recorder"]
Pairs = list[tuple[str, dict[str, Any]]]


# -- helpers --------------------------------------------------------------------------------


class Recorder:
    """A recorder as a process of its own."""

    def __init__(self, settings: Settings, instance: str = "0") -> None:
        env = {
            "BLUESKY_PLUGINS_BEAMLINE": settings.beamline,
            "BLUESKY_PLUGINS_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.address,
            "BLUESKY_PLUGINS_KAFKA__PARTITIONS": str(settings.kafka.partitions),
            "BLUESKY_PLUGINS_MONGO__URI": settings.mongo.address,
            "BLUESKY_PLUGINS_RECORDING__INSTANCE": instance,
            "BLUESKY_PLUGINS_RECORDING__BULK_SIZE": str(settings.recording.bulk_size),
        }
        self.process = subprocess.Popen(
            SERVE,
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def wait_until_ready(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE)

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def recording(settings: Settings) -> Iterator[RecorderService]:
    """A recorder in a thread of the test, ready."""
    ready = threading.Event()
    service = RecorderService(settings, ready=lambda _line: ready.set())
    thread = threading.Thread(target=service.run)
    thread.start()
    try:
        assert ready.wait(DEADLINE), f"the recorder is not ready after {DEADLINE} s"
        yield service
    finally:
        service.stop()
        thread.join(DEADLINE)
        assert not thread.is_alive(), "the recorder does not stop"


@contextmanager
def sending(settings: Settings) -> Iterator[Callable[..., None]]:
    producer = Producer(settings, spool=False)

    def send(pairs: Pairs, topic: str = "documents") -> None:
        key = next((doc["uid"] for name, doc in pairs if name == "start"), "none")
        full = settings.topic(topic)
        producer.deliver([(full, key, name, doc) for name, doc in pairs], timeout=DEADLINE)

    yield send
    producer.close()


def send_bytes(settings: Settings, topic: str, values: list[bytes | None]) -> None:
    producer = confluent_kafka.Producer({"bootstrap.servers": settings.kafka.address})
    for value in values:
        producer.produce(settings.topic(topic), value, key=b"somebody")
    assert producer.flush(DEADLINE) == 0


def until(what: str, done: Callable[[], Any], timeout: float = DEADLINE) -> Any:
    """The first true result, or the test fails."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while not (result := done()):
        assert time.monotonic() < deadline, f"{what}: not after {timeout} s"
        pause.wait(0.02)
    return result


@pytest.fixture
def client() -> Iterator[Callable[[Settings], Any]]:
    opened: list[Any] = []

    def connect(settings: Settings) -> Any:
        opened.append(pymongo.MongoClient(settings.mongo.address))
        return opened[-1]

    yield connect
    for each in opened:
        each.close()


def stops(database: Any) -> Callable[..., bool]:
    def stored(*runs: Pairs) -> bool:
        wanted = {doc["run_start"] for run in runs for name, doc in run if name == "stop"}
        found = database.run_stop.find({"run_start": {"$in": sorted(wanted)}})
        return {doc["run_start"] for doc in found} == wanted

    return stored


def stored_pairs(database: Any) -> list[tuple[str, dict[str, Any]]]:
    return [
        (name, doc)
        for name, collection in COLLECTIONS.items()
        for doc in database[collection.name].find({}, {"_id": False})
    ]


def assert_each_once(database: Any, *runs: Pairs) -> None:
    stored = stored_pairs(database)
    sent = [(name, doc) for run in runs for name, doc in run]
    assert len(stored) == len(sent)

    def key(pair: tuple[str, dict[str, Any]]) -> tuple[str, str]:
        return pair[0], pair[1][COLLECTIONS[pair[0]].key]

    for one, other in zip(sorted(stored, key=key), sorted(sent, key=key), strict=True):
        assert same_content(list(one), list(other))


def dead_letters(settings: Settings, count: int) -> list[dict[str, Any]]:
    reader = TopicReader(settings, settings.topic("dead_letters"))
    reader.start("beginning", timeout=DEADLINE)
    letters: dict[str, dict[str, Any]] = {}

    def read() -> bool:
        for message in reader.poll(100, 0.2):
            _name, doc = decode(message.value)
            letters[doc["uid"]] = doc
        return len(letters) >= count

    until(f"{count} dead letters", read)
    reader.close()
    return list(letters.values())


# -- every document once --------------------------------------------------------------------


def test_runs_are_stored_in_their_databases(
    make_settings: Callable[..., Settings], client: Any
) -> None:
    settings = make_settings()
    measured, analysis = composed_run(5, camera=True), composed_run(2)
    documents = client(settings)[settings.database("documents")]
    with recording(settings), sending(settings) as send:
        send(measured)
        send(analysis, "analysis")
        results = documents.client[settings.database("analysis")]
        until("the runs", lambda: stops(documents)(measured) and stops(results)(analysis))
    assert_each_once(documents, measured)
    assert_each_once(results, analysis)


def test_a_run_of_bluesky_kafka_is_recorded(
    make_settings: Callable[..., Settings], client: Any
) -> None:
    from bluesky_kafka import Publisher

    settings = make_settings()
    make_topics(settings)
    publisher = Publisher(
        topic=settings.topic("documents"),
        bootstrap_servers=settings.kafka.address,
        key="any",
        producer_config={"enable.idempotence": True},
    )
    run = composed_run(3, camera=True)
    database = client(settings)[settings.database("documents")]
    with recording(settings):
        for name, doc in run:
            publisher(name, doc)
        publisher.flush()
        until("the run", lambda: stops(database)(run))
    assert_each_once(database, run)


def test_garbage_is_dead_lettered_and_the_service_goes_on(
    make_settings: Callable[..., Settings], client: Any
) -> None:
    import msgpack
    import msgpack_numpy
    import numpy as np

    settings = make_settings()
    make_topics(settings)
    good, start = encode("event", composed_event()), composed_run()[0][1]
    garbage = [
        b"\xff\x00 random bytes",
        good[:-5],
        b"",
        None,
        msgpack.packb(["event"]),
        msgpack.packb(("event", {"x": np.array([object])}), default=msgpack_numpy.encode),
        encode("event", {"uid": "no more than this"}),
        encode("nonsense", {"uid": "u"}),
        encode("start", {**start, "a.b/c": 1, "uid": 5}),
        encode("stop", {**composed_run()[-1][1], "exit_status": "perhaps"}),
    ]
    run = composed_run(3)
    database = client(settings)[settings.database("documents")]
    with recording(settings), sending(settings) as send:
        send_bytes(settings, "documents", garbage)
        send_bytes(settings, "analysis", garbage)
        send(run)
        # The same key with other content: the first stands.
        event = next(doc for name, doc in run if name == "event")
        until("the run", lambda: stops(database)(run))
        send([("event", {**event, "time": 0.0})])
        letters = dead_letters(settings, 2 * len(garbage) + 1)
    assert len(letters) == 2 * len(garbage) + 1
    assert all(letter["reason"] and letter["service"] == "recorder" for letter in letters)
    assert sum("other content" in letter["reason"] for letter in letters) == 1
    assert_each_once(database, run)


def test_recorders_share_the_partitions_and_one_too_many_is_ready_too(
    make_settings: Callable[..., Settings], client: Any
) -> None:
    settings = make_settings(kafka={"partitions": 2}, recording={"bulk_size": 7})
    runs = [composed_run(20) for _ in range(12)]
    database = client(settings)[settings.database("documents")]
    with Recorder(settings, "0") as a, Recorder(settings, "1") as b, Recorder(settings, "2") as c:
        for each in (a, b, c):
            assert each.wait_until_ready().startswith("recorder ready")
        with sending(settings) as send:
            for run in runs[:6]:
                send(run)
            a.kill()
            for run in runs[6:]:
                send(run)
        until("all runs", lambda: stops(database)(*runs))
    assert_each_once(database, *runs)


# -- killed, stopped, and without its servers -----------------------------------------------


def test_kill_9_at_any_moment_loses_nothing_and_stores_nothing_twice(
    make_settings: Callable[..., Settings], client: Any
) -> None:
    settings = make_settings(recording={"bulk_size": 20})
    database = client(settings)[settings.database("documents")]
    runs = [composed_run(60, camera=True) for _ in range(30)]
    seed = int(os.environ.get("BLUESKY_PLUGINS_TEST_SEED", "4"))
    moments = random.Random(seed)
    with sending(settings) as send:
        make_topics(settings)
        for run in runs:
            send(run)
        rounds = 0
        deadline = time.monotonic() + 15
        while rounds < 3 or (rounds < 6 and time.monotonic() < deadline):
            with Recorder(settings) as recorder:
                recorder.wait_until_ready()
                threading.Event().wait(moments.uniform(0.0, 0.15))
            rounds += 1
    with recording(settings):
        until("all runs", lambda: stops(database)(*runs), 2 * DEADLINE)
    assert_each_once(database, *runs)


@pytest.mark.timed
def test_sigterm_ends_it_within_5_s_with_status_0_and_what_it_held_is_stored(
    make_settings: Callable[..., Settings], client: Any
) -> None:
    settings = make_settings()
    run = composed_run(400)
    database = client(settings)[settings.database("documents")]
    with Recorder(settings) as recorder, sending(settings) as send:
        recorder.wait_until_ready()
        send(run)
        until("some of it", lambda: database.event.find_one({}))
        recorder.process.send_signal(signal.SIGTERM)
        assert recorder.process.wait(5) == 0
    with recording(settings):
        until("the rest", lambda: stops(database)(run))
    assert_each_once(database, run)


def test_mongodb_killed_and_started_again_loses_nothing(
    make_settings: Callable[..., Settings], private_mongo: Any, client: Any
) -> None:
    settings = make_settings(mongo={"uri": private_mongo.address}, recording={"bulk_size": 20})
    before, during = composed_run(50), [composed_run(50) for _ in range(3)]
    with recording(settings), sending(settings) as send:
        send(before)
        stored = stops(client(settings)[settings.database("documents")])
        until("the first run", lambda: stored(before))
        private_mongo.kill()
        for run in during:
            send(run)
        private_mongo.start()
        database = client(settings)[settings.database("documents")]
        until("all runs", lambda: stops(database)(before, *during))
    assert_each_once(database, before, *during)


@pytest.mark.timed
def test_without_mongodb_it_stops_within_5_s_and_loses_nothing(
    make_settings: Callable[..., Settings], private_mongo: Any, client: Any
) -> None:
    settings = make_settings(mongo={"uri": private_mongo.address})
    run = composed_run(50)
    with Recorder(settings) as recorder, sending(settings) as send:
        recorder.wait_until_ready()
        private_mongo.freeze()
        send(run)
        recorder.process.send_signal(signal.SIGTERM)
        assert recorder.process.wait(5) == 0
    private_mongo.thaw()
    database = client(settings)[settings.database("documents")]
    with recording(settings):
        until("the run", lambda: stops(database)(run))
    assert_each_once(database, run)


@pytest.mark.timed
@pytest.mark.parametrize("outage", ["freeze", "kill"])
def test_without_kafka_it_stops_within_5_s_and_loses_nothing(
    outage: str, make_settings: Callable[..., Settings], private_kafka: Any, client: Any
) -> None:
    settings = make_settings(kafka={"bootstrap_servers": private_kafka.address})
    run = composed_run(300)
    database = client(settings)[settings.database("documents")]
    with Recorder(settings) as recorder:
        recorder.wait_until_ready()
        with sending(settings) as send:
            send(run)
        until("some of it", lambda: database.event.find_one({}))
        getattr(private_kafka, outage)()
        recorder.process.send_signal(signal.SIGTERM)
        assert recorder.process.wait(5) == 0
    private_kafka.thaw() if outage == "freeze" else private_kafka.start()
    with recording(settings):
        until("the run", lambda: stops(database)(run))
    assert_each_once(database, run)


def test_kafka_killed_and_started_again_loses_nothing(
    make_settings: Callable[..., Settings], private_kafka: Any, client: Any
) -> None:
    settings = make_settings(kafka={"bootstrap_servers": private_kafka.address})
    before, after = composed_run(50), composed_run(50)
    database = client(settings)[settings.database("documents")]
    with recording(settings):
        with sending(settings) as send:
            send(before)
        private_kafka.kill()
        private_kafka.start()
        with sending(settings) as send:
            send(after)
        until("both runs", lambda: stops(database)(before, after))
    assert_each_once(database, before, after)


def test_started_before_its_servers_it_waits_for_them(
    make_settings: Callable[..., Settings], private_mongo: Any, client: Any
) -> None:
    settings = make_settings(mongo={"uri": private_mongo.address})
    private_mongo.kill()
    run = composed_run()
    with Recorder(settings) as recorder:
        private_mongo.start()
        assert recorder.wait_until_ready().startswith("recorder ready")
        with sending(settings) as send:
            send(run)
        database = client(settings)[settings.database("documents")]
        until("the run", lambda: stops(database)(run))
