"""The recommender service on real Kafka and on the MongoDB protocol."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

import httpx
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from bluesky_plugins.adaptive import (
    BatchStore,
    RecommenderService,
    list_batches,
    replay_batch,
    show_batch,
)
from bluesky_plugins.adaptive.keeper import Limits
from bluesky_plugins.adaptive.recommenders import StepRecommender
from bluesky_plugins.adaptive.registry import Registry
from bluesky_plugins.messaging import DecodingError, Producer, TopicReader, decode, make_topics
from bluesky_plugins.settings import Settings
from bluesky_plugins.testing import batches

# The servers may have to start first, side by side with those of other tests.
pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]
# It only bounds a hang: a busy machine takes ten times as long as an idle one.
DEADLINE = 60.0


def until(condition: Callable[[], Any], what: str, timeout: float = DEADLINE) -> Any:
    """Wait for a condition; fails after the deadline, saying for what."""
    deadline, pause = time.monotonic() + timeout, threading.Event()
    while not (found := condition()):
        assert time.monotonic() < deadline, f"no {what} within {timeout} s"
        pause.wait(0.01)
    return found


@contextmanager
def serving(settings: Settings, **options: Any) -> Iterator[RecommenderService]:
    """A service in a thread of this process."""
    is_ready = threading.Event()
    service = RecommenderService(settings, ready=lambda line: is_ready.set(), **options)
    thread = threading.Thread(target=service.run)
    thread.start()
    try:
        assert is_ready.wait(DEADLINE), "the service is not ready"
        yield service
    finally:
        service.stop()
        thread.join(DEADLINE)
        assert not thread.is_alive()


class Plan:
    """What a plan does on the topics, without a RunEngine."""

    def __init__(self, settings: Settings, batch_id: str | None = None) -> None:
        self.settings = settings
        self.batch_id = batch_id or str(uuid4())
        self.producer = Producer(settings, spool=False)
        self.reader = TopicReader(settings, settings.topic("suggestions"))
        self.reader.start("end", DEADLINE)
        self.read: list[tuple[str, dict[str, Any]]] = []

    def send(self, *documents: tuple[str, dict[str, Any]]) -> None:
        topic = self.settings.topic("adaptive")
        own = [(name, self._own(doc)) for name, doc in documents]
        self.producer.deliver([(topic, self.batch_id, n, d) for n, d in own], DEADLINE)

    def _own(self, doc: dict[str, Any]) -> dict[str, Any]:
        return {**doc, "batch_id": self.batch_id} if "batch_id" in doc else doc

    def measure(self, count: int, x: float, **md: Any) -> None:
        uid = f"{self.batch_id}-{count}-{uuid4().hex[:4]}"
        self.send(*batches.run(count, {"motor": x, "det": 1.0}, uid=uid, **md))

    def listen(self) -> list[tuple[str, dict[str, Any]]]:
        """All that was said to this batch so far."""
        for message in self.reader.poll(100, 0.05):
            if message.key == self.batch_id.encode():
                with suppress(DecodingError):
                    self.read.append(decode(message.value))
        return self.read

    def answer(self, count: int, revision: int = 0, timeout: float = DEADLINE) -> dict[str, Any]:
        def found() -> Any:
            given = [doc for name, doc in self.listen() if name == "suggestion"]
            asked = (count, revision)
            return next((d for d in given if (d["batch_count"], d["revision"]) == asked), None)

        return until(found, f"answer to count {count}, revision {revision}", timeout)

    def scan(
        self, x: float = 0.0, count: int = 0, to: int = 100, timeout: float = DEADLINE
    ) -> list[float]:
        """Measure until it is told to stop; the points."""
        points: list[float] = []
        while count <= to:
            self.measure(count, x)
            points.append(x)
            answer = self.answer(count, timeout=timeout)
            if answer["action"] != "move":
                break
            x, count = answer["point"]["motor"], count + 1
        return points

    def close(self) -> None:
        self.producer.close(1.0)
        self.reader.close()


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    made = make_settings(http={"recommender_port": 0})
    make_topics(made, DEADLINE)
    return made


@pytest.fixture
def plan(settings: Settings) -> Iterator[Plan]:
    made = Plan(settings)
    yield made
    made.close()


class Process:
    """A service in a process of its own."""

    def __init__(self, settings: Settings) -> None:
        environment = {
            "BLUESKY_PLUGINS_BEAMLINE": settings.beamline,
            "BLUESKY_PLUGINS_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.address,
            "BLUESKY_PLUGINS_MONGO__URI": settings.mongo.address,
            "BLUESKY_PLUGINS_HTTP__RECOMMENDER_PORT": "0",
        }
        self._environment = {**os.environ, **environment}
        self._popen: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "bluesky_plugins.cli", "recommender"],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ready_line(self) -> str:
        assert self._popen is not None
        assert self._popen.stdout is not None
        return self._popen.stdout.readline()

    def kill(self, number: int = signal.SIGKILL, timeout: float = 5.0) -> int:
        assert self._popen is not None
        assert self._popen.stdout is not None
        self._popen.send_signal(number)
        try:
            return self._popen.wait(timeout)
        finally:
            self._popen.kill()
            self._popen.wait()
            self._popen.stdout.close()


def on_topic(settings: Settings, topic: str) -> list[tuple[str, dict[str, Any]]]:
    """All messages that lie on a topic."""
    reader = TopicReader(settings, settings.topic(topic))
    at, found = reader.start("beginning", DEADLINE), []
    ends = reader.ends(DEADLINE)
    while any(at[partition] < end for partition, end in ends.items()):
        for message in reader.poll(1000, 1.0):
            at[message.partition] = message.offset + 1
            found.append(decode(message.value))
    reader.close()
    return found


def suggested(settings: Settings, batch_id: str) -> list[dict[str, Any]]:
    found = on_topic(settings, "suggestions")
    return [doc for name, doc in found if name == "suggestion" and doc["batch_id"] == batch_id]


SEVENTEEN = [1.5 * n for n in range(17)]
SEQUENCE = {"name": "sequence", "parameters": {"sequence": [5.0, 3.0, 8.0, 1.0, 2.0]}}


def test_seventeen_points_from_0_to_24(settings: Settings, plan: Plan) -> None:
    with serving(settings):
        plan.send(batches.opened())
        assert plan.scan() == SEVENTEEN


def test_a_restarted_service_answers_what_it_missed_and_nothing_twice(
    settings: Settings, plan: Plan
) -> None:
    plan.send(batches.opened(recommender=SEQUENCE))
    with serving(settings):
        for count in range(2):
            plan.measure(count, 0.0)
            plan.answer(count)
    plan.measure(2, 0.0)
    with serving(settings):
        assert plan.answer(2)["point"] == {"motor": 8.0}
        plan.measure(3, 0.0)
        assert plan.answer(3)["point"] == {"motor": 1.0}
    assert [doc["batch_count"] for doc in suggested(settings, plan.batch_id)] == [0, 1, 2, 3]


# So many services are killed soon: on a busy machine one may answer nothing in so short a life.
LIVES = 6


@pytest.mark.timeout(600)
def test_kill_9_at_any_moment_gives_the_same_17_points(settings: Settings, plan: Plan) -> None:
    process, done, kills = Process(settings), threading.Event(), 0
    dice = random.Random(1)

    def torment() -> None:
        nonlocal kills
        while not done.is_set():
            process.start()
            process.ready_line()
            if not done.wait(dice.uniform(0.0, 0.3) if kills < LIVES else None):
                process.kill(timeout=DEADLINE)
                kills += 1
        process.kill(signal.SIGTERM, DEADLINE)

    thread = threading.Thread(target=torment)
    thread.start()
    try:
        plan.send(batches.opened())
        assert plan.scan(timeout=(LIVES + 1) * DEADLINE) == SEVENTEEN
    finally:
        done.set()
        thread.join(2 * DEADLINE)
    assert kills > 0
    stands: dict[int, Any] = {}
    for doc in suggested(settings, plan.batch_id):
        first = stands.setdefault(doc["batch_count"], doc)
        assert {**first, "time": 0} == {**doc, "time": 0}


@pytest.mark.timed
def test_sigterm_ends_it_with_0_within_5_s(settings: Settings) -> None:
    process = Process(settings)
    process.start()
    assert process.ready_line().startswith("recommender ready")
    assert process.kill(signal.SIGTERM) == 0


@pytest.mark.timed
@pytest.mark.parametrize("harm", ["kill", "freeze"])
def test_sigterm_ends_it_also_while_kafka_is_away(
    harm: str, private_kafka: Any, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings(
        kafka={"bootstrap_servers": private_kafka.address}, http={"recommender_port": 0}
    )
    make_topics(settings, DEADLINE)
    process, plan = Process(settings), Plan(settings)
    process.start()
    process.ready_line()
    plan.send(batches.opened())
    plan.scan(to=1)
    plan.send(batches.batch_event("ended", outcome="aborted"))
    getattr(private_kafka, harm)()
    assert process.kill(signal.SIGTERM) == 0
    plan.close()


def test_offsets_move_on_only_up_to_the_oldest_open_batch(settings: Settings, plan: Plan) -> None:
    with serving(settings) as service:
        plan.send(batches.opened())
        plan.measure(0, 0.0)
        plan.answer(0)
        until(lambda: service.store.batch(plan.batch_id), "record of the batch")
        places = service._partitions.values()
        assert [place.committed for place in places if place.position] == [0]
        plan.send(batches.batch_event("ended", outcome="aborted"))
        until(lambda: any(place.committed == 6 for place in places), "commit after the end")


def test_instances_share_the_batches(settings: Settings, make_settings: Any) -> None:
    other = settings.model_copy(
        update={"adaptive": settings.adaptive.model_copy(update={"instance": "1"})}
    )
    plans = [Plan(settings) for _ in range(6)]
    with serving(settings) as first, serving(other) as second:
        both = (first, second)
        until(lambda: all(len(s._partitions) == 2 for s in both), "two partitions each")
        for one in plans:
            one.send(batches.opened())
        scans = [one.scan(to=2) for one in plans]
        held = [set(service.keeper.batches) for service in both]
    for one in plans:
        one.close()
    assert scans == [[0.0, 1.5, 3.0]] * 6
    assert held[0] | held[1] == {one.batch_id for one in plans}
    assert not held[0] & held[1]


def test_batches_of_an_instance_that_stops_go_on_with_another(
    settings: Settings, plan: Plan
) -> None:
    other = settings.model_copy(
        update={"adaptive": settings.adaptive.model_copy(update={"instance": "1"})}
    )
    with serving(settings):
        plan.send(batches.opened(recommender=SEQUENCE))
        plan.measure(0, 0.0)
        plan.answer(0)
        second = RecommenderService(other)
        thread = threading.Thread(target=second.run)
        thread.start()
        until(lambda: second._partitions, "partitions for the second instance")
    plan.measure(1, 0.0)
    try:
        assert plan.answer(1)["point"] == {"motor": 3.0}
    finally:
        second.stop()
        thread.join(DEADLINE)


GARBAGE = [
    None,
    b"",
    b"\x00\xff random",
    b"\x92\xa5start",
    b"\x93\x01\x02\x03",
]


def test_garbage_becomes_dead_letters_and_the_service_goes_on(
    settings: Settings, plan: Plan
) -> None:
    from confluent_kafka import Producer as RawProducer

    raw = RawProducer({"bootstrap.servers": settings.kafka.address})
    broken = [
        ("start", {"uid": "u", "time": 1.0, "batch_id": plan.batch_id, "batch_count": -1}),
        ("start", {"batch_id": plan.batch_id}),
        ("event", {"uid": "e", "time": 1.0, "descriptor": 3, "seq_num": 1, "data": {}}),
        ("nonsense", {"uid": "n"}),
        ("command", {"batch_id": plan.batch_id, "command": "explode", "uid": "c", "time": 1.0}),
        ("batch_event", {"event": "opened", "batch_id": plan.batch_id}),
    ]
    with serving(settings) as service:
        plan.send(batches.opened())
        plan.measure(0, 0.0)
        plan.answer(0)
        for value in GARBAGE:
            raw.produce(settings.topic("adaptive"), value, plan.batch_id.encode())
            raw.produce(settings.topic("suggestions"), value, plan.batch_id.encode())
        raw.flush(DEADLINE)
        plan.send(*broken)
        plan.measure(1, 1.5)
        assert plan.answer(1)["point"] == {"motor": 3.0}
        expected = 2 * len(GARBAGE) + len(broken)
        until(lambda: service.metrics.dead_letters._value.get() == expected, "dead letters")
        # Counted, and sent a moment later.
        until(lambda: len(on_topic(settings, "dead_letters")) >= expected, "them on their topic")
    letters = on_topic(settings, "dead_letters")
    assert len({doc["uid"] for _, doc in letters}) == expected
    assert all(doc["reason"] and doc["service"] == "recommender" for _, doc in letters)


def test_foreign_runs_are_left_alone(settings: Settings, plan: Plan) -> None:
    with serving(settings) as service:
        documents = batches.run(0, {"motor": 1.0, "det": 1.0}, uid="foreign")
        del documents[0][1]["batch_id"]
        topic = settings.topic("adaptive")
        plan.producer.deliver([(topic, "k", name, doc) for name, doc in documents], DEADLINE)
        plan.send(batches.opened())
        assert plan.scan(to=1) == [0.0, 1.5]
        # On another partition, which may come later.
        until(lambda: service.keeper.foreign == 4, "foreign documents")
    assert on_topic(settings, "dead_letters") == []


class Slow(StepRecommender):
    """Takes its time."""

    immediate = False

    def __init__(self, step: float, release: threading.Event) -> None:
        super().__init__(step)
        self.release = release

    def suggest(self, n: int = 1) -> Any:
        self.release.wait(DEADLINE)
        return super().suggest(n)


def slow_registry(release: threading.Event) -> Registry:
    def slow(step: float = 1.0) -> Slow:
        return Slow(step, release)

    return Registry({"slow": slow})


def test_a_long_computation_renews_the_plans_deadline_and_blocks_nobody(
    settings: Settings, plan: Plan
) -> None:
    release, other = threading.Event(), Plan(settings)
    limits = Limits(waiting_every=0.1)
    with serving(settings, registry=slow_registry(release), limits=limits):
        plan.send(batches.opened(recommender={"name": "slow"}))
        plan.measure(0, 0.0)
        other.send(batches.opened())
        assert other.scan(to=1) == [0.0, 1.5]

        def waits() -> Any:
            return next((doc for name, doc in plan.listen() if name == "waiting"), None)

        waiting = until(waits, "waiting message")
        assert waiting["batch_count"] == 0
        assert waiting["until"] > time.time()
        release.set()
        assert plan.answer(0)["point"] == {"motor": 1.0}
    other.close()


def test_a_recommender_that_never_replies_ends_its_batch_with_a_reason(
    settings: Settings, plan: Plan
) -> None:
    release = threading.Event()
    with serving(settings, registry=slow_registry(release), limits=Limits(compute=0.2)):
        plan.send(batches.opened(recommender={"name": "slow"}))
        plan.measure(0, 0.0)
        answer = plan.answer(0)
        release.set()
    assert (answer["action"], answer["reason"]) == ("stop", "recommender slow: no reply in 0.2 s")


def test_answers_go_out_while_mongodb_is_away_and_are_stored_when_it_is_back(
    private_mongo: Any, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings(mongo={"uri": private_mongo.address}, http={"recommender_port": 0})
    make_topics(settings, DEADLINE)
    plan = Plan(settings)
    with serving(settings) as service:
        private_mongo.kill()
        plan.send(batches.opened())
        assert plan.scan() == SEVENTEEN
        plan.send(batches.batch_event("ended", outcome="done"))
        assert all(place.committed == 0 for place in service._partitions.values())
        private_mongo.start()
        until(lambda: any(p.committed for p in service._partitions.values()), "commit")
        stored = service.store.batch_suggestions(plan.batch_id)
        record = service.store.batch(plan.batch_id)
    plan.close()
    assert [doc["batch_count"] for doc in stored] == list(range(17))
    assert record is not None
    assert (record["state"], record["outcome"]) == ("ended", "done")


def test_a_scan_goes_on_when_kafka_is_back(
    private_kafka: Any, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings(
        kafka={"bootstrap_servers": private_kafka.address}, http={"recommender_port": 0}
    )
    make_topics(settings, DEADLINE)
    plan = Plan(settings)
    with serving(settings):
        plan.send(batches.opened())
        assert plan.scan(to=3) == [0.0, 1.5, 3.0, 4.5]
        private_kafka.kill()
        private_kafka.start()
        assert plan.scan(6.0, 4) == SEVENTEEN[4:]
    plan.close()


def test_an_ended_batch_is_taken_up_again_by_a_service_that_forgot_it(
    settings: Settings, plan: Plan
) -> None:
    with serving(settings) as service:
        plan.send(batches.opened(recommender=SEQUENCE))
        plan.measure(0, 0.0)
        plan.answer(0)
        plan.send(batches.batch_event("ended", outcome="failed"))
        until(lambda: any(p.committed == 6 for p in service._partitions.values()), "commit")
    with serving(settings) as service:
        plan.send(batches.opened(recommender=SEQUENCE, resume=True, batch_count=1))
        plan.measure(1, 5.0)
        assert plan.answer(1)["point"] == {"motor": 3.0}
        until(lambda: len(service.store.log(plan.batch_id)) == 11, "whole log")


def test_a_batch_past_kafkas_retention_comes_from_mongodb(settings: Settings, plan: Plan) -> None:
    run = batches.run(0, {"motor": 0.0, "det": 1.0}, uid="old")
    with serving(settings) as service:
        record_documents(service.store, settings, plan, run)
        plan.send(batches.opened(recommender=SEQUENCE), *run)
        plan.answer(0)
        plan.send(batches.batch_event("ended", outcome="failed"))
        until(lambda: any(p.committed == 6 for p in service._partitions.values()), "commit")
        (partition,) = [key[1] for key, p in service._partitions.items() if p.committed]
    admin = AdminClient({"bootstrap.servers": settings.kafka.address})
    gone = TopicPartition(settings.topic("adaptive"), partition, 6)
    admin.delete_records([gone])[gone].result(DEADLINE)
    with serving(settings):
        plan.send(batches.opened(resume=True, batch_count=1))
        plan.measure(1, 5.0)
        assert plan.answer(1)["point"] == {"motor": 3.0}


def test_a_batch_id_used_again_gets_the_same_answers_again(settings: Settings, plan: Plan) -> None:
    with serving(settings) as service:
        plan.send(batches.opened())
        assert plan.scan(to=2) == [0.0, 1.5, 3.0]
        plan.send(batches.batch_event("ended", outcome="aborted"))
        until(lambda: any(p.committed == 14 for p in service._partitions.values()), "commit")
    with serving(settings):
        again = Plan(settings, plan.batch_id)
        again.send(batches.opened())
        assert again.scan(to=4) == [0.0, 1.5, 3.0, 4.5, 6.0]
        again.close()


def test_a_silent_batch_is_closed_by_the_service(settings: Settings, plan: Plan) -> None:
    adaptive = settings.adaptive.model_copy(update={"close_after_seconds": 0.5})
    impatient = settings.model_copy(update={"adaptive": adaptive})
    with serving(impatient) as service:
        plan.send(batches.opened())

        def outcome() -> Any:
            return (service.store.batch(plan.batch_id) or {}).get("outcome")

        assert until(outcome, "end of the batch") == "silent"
    (ended,) = [doc for _, doc in on_topic(settings, "adaptive") if doc.get("event") == "ended"]
    assert ended["reason"] == "no news for 0.5 s"


# ---- what is kept


def record_documents(store: BatchStore, settings: Settings, plan: Plan, documents: Any) -> None:
    """What the recorder does with the documents of a run."""
    places = {"start": "run_start", "stop": "run_stop", "descriptor": "event_descriptor"}
    database = store._client[settings.database("documents")]
    for name, doc in documents:
        database[places.get(name, name)].insert_one({**plan._own(doc)})


def finished_batch(settings: Settings, plan: Plan) -> BatchStore:
    with serving(settings) as service:
        plan.send(batches.opened(recommender={**SEQUENCE, "max_count": 3}))
        for count in range(3):
            uid = f"{plan.batch_id}-{count}"
            run = batches.run(count, {"motor": count, "det": 0.1 * count}, uid=uid)
            record_documents(service.store, settings, plan, run)
            plan.send(*run)
            plan.answer(count)
        plan.send(batches.batch_event("ended", outcome="done"))
        until(lambda: any(p.committed == 14 for p in service._partitions.values()), "commit")
    return BatchStore.from_settings(settings)


def test_a_finished_batch_computed_again_is_the_same(settings: Settings, plan: Plan) -> None:
    store = finished_batch(settings, plan)
    report = replay_batch(store, plan.batch_id, settings)
    store.close()
    assert report is not None
    assert (report.differences, report.entries, report.suggestions) == ([], 14, 3)


def test_an_altered_reading_is_found_where_it_is(settings: Settings, plan: Plan) -> None:
    store = finished_batch(settings, plan)
    uid = f"{plan.batch_id}-1-primary-1"
    events = store._client[settings.database("documents")]["event"]
    events.update_one({"uid": uid}, {"$set": {"data.det": 0.1000001}})
    report = replay_batch(store, plan.batch_id, settings)
    store.close()
    assert report is not None
    places = [(difference.where, difference.what) for difference in report.differences]
    assert places == [
        (f"entry 7, event {uid}", "is not what was read then"),
        ("suggestion 1, revision 0", "inputs"),
        ("suggestion 2, revision 0", "inputs"),
    ]


def test_views_show_what_happened(settings: Settings, plan: Plan) -> None:
    store = finished_batch(settings, plan)
    listed = list_batches(store)
    shown = show_batch(store, plan.batch_id)
    store.close()
    assert listed["total"] == 1
    assert listed["batches"][0]["outcome"] == "done"
    assert shown is not None
    assert [entry["n"] for entry in shown["log"]] == list(range(14))
    assert [doc["point"] for doc in shown["suggestions"]] == [
        {"motor": 5.0},
        {"motor": 3.0},
        {"motor": 8.0},
    ]
    assert shown["story"][-1]["text"] == "ended: done"


# ---- HTTP


@pytest.fixture
def guarded(settings: Settings) -> Settings:
    http = settings.http.model_copy(update={"api_key": pydantic_secret("sesame")})
    return settings.model_copy(update={"http": http})


def pydantic_secret(text: str) -> Any:
    from pydantic import SecretStr

    return SecretStr(text)


@contextmanager
def client_of(service: RecommenderService, key: str | None = "sesame") -> Iterator[httpx.Client]:
    assert service.http_address is not None
    host, port = service.http_address
    headers = {"Authorization": f"ApiKey {key}"} if key else {}
    base_url = f"http://{host}:{port}"
    with httpx.Client(base_url=base_url, headers=headers, timeout=DEADLINE) as client:
        yield client


def test_a_batch_is_paused_resumed_and_stopped_over_http(guarded: Settings, plan: Plan) -> None:
    with serving(guarded) as service, client_of(service) as client:
        plan.send(batches.opened())
        path = f"/api/batches/{plan.batch_id}"
        until(lambda: client.get(path).status_code == 200, "the batch")
        assert client.post(f"{path}/pause", json={"by": "me", "reason": "look"}).status_code == 202
        plan.measure(0, 0.0)
        assert plan.answer(0)["reason"] == "pause by me: look"
        assert client.post(f"{path}/resume").status_code == 202
        assert plan.answer(0, 1)["point"] == {"motor": 1.5}
        assert client.post(f"{path}/stop").status_code == 202
        plan.measure(1, 1.5)
        assert plan.answer(1)["action"] == "stop"
        plan.send(batches.batch_event("ended", outcome="done"))
        until(lambda: client.get(path).json()["state"] == "ended", "end")
        assert client.post(f"{path}/stop").status_code == 409
        texts = [line["text"] for line in client.get(path).json()["story"]]
        assert "pause by me: look" in texts


def test_http_errors_say_what_is_wrong(guarded: Settings) -> None:
    with serving(guarded) as service, client_of(service) as client:
        assert client.get("/api/batches/none").status_code == 404
        assert client.post("/api/batches/none/stop").status_code == 404
        assert client.get("/api/batches?state=odd").status_code == 422
        assert client.post("/api/batches/none/stop", json={"x": 1}).status_code == 422
        assert client.get("/api/batches").json() == {"total": 0, "batches": []}
        assert client.get("/healthz").json()["ok"] is True
        assert "recommender_batches" in client.get("/metrics").text
        with client_of(service, "wrong") as stranger:
            for path in ("/api/batches", "/api/batches/x", "/metrics"):
                assert stranger.get(path).status_code == 401
            assert stranger.post("/api/batches/x/stop").status_code == 401
            assert stranger.get("/healthz").status_code == 200
