from pathlib import Path
from typing import Any

import pytest
from bluesky import RunEngine
from bluesky.plans import count
from bluesky.run_engine import DocumentNames
from ophyd.sim import det

from bluesky_plugins.messaging import KafkaPublisher, Producer, decode
from bluesky_plugins.settings import KafkaSettings, Settings
from bluesky_plugins.testing import FakeBus, FakeProducer

SETTINGS = Settings(beamline="unit")


@pytest.fixture
def bus() -> FakeBus:
    return FakeBus([SETTINGS.topic(name) for name in ("documents", "adaptive")] + ["my.topic"])


def publisher(bus: FakeBus, topic: str = "documents") -> KafkaPublisher:
    return KafkaPublisher(topic, settings=SETTINGS, producer=FakeProducer(bus))  # type: ignore[arg-type]


def keyed(bus: FakeBus, topic: str) -> list[tuple[str, str]]:
    found = bus.messages(topic)
    return [((m.key or b"").decode(), decode(m.value)[0]) for m in found]


def test_documents_of_a_run_are_keyed_by_its_uid(bus: FakeBus) -> None:
    engine = RunEngine({})
    engine.subscribe(publisher(bus))
    (uid,) = engine(count([det], 2))
    names = ["start", "descriptor", "event", "event", "stop"]
    assert keyed(bus, "unit.bluesky.documents") == [(uid, name) for name in names]


def test_adaptive_topic_gets_only_runs_of_a_batch_keyed_by_it(bus: FakeBus) -> None:
    engine = RunEngine({})
    engine.subscribe(publisher(bus, "adaptive"))
    engine(count([det]))
    engine(count([det]), batch_id="b")
    names = ["start", "descriptor", "event", "stop"]
    assert keyed(bus, "unit.bluesky.adaptive") == [("b", name) for name in names]


def test_batch_events_and_commands_are_keyed_by_their_batch(bus: FakeBus) -> None:
    adaptive = publisher(bus, "adaptive")
    adaptive.batch_event({"batch_id": "b", "event": "opened"})
    adaptive.command({"batch_id": "b", "command": "stop"})
    assert keyed(bus, "unit.bluesky.adaptive") == [("b", "batch_event"), ("b", "command")]


def test_name_with_a_dot_is_the_full_one(bus: FakeBus) -> None:
    publisher(bus, "my.topic")("start", {"uid": "1"})
    assert keyed(bus, "my.topic") == [("1", "start")]


def test_names_may_be_members_of_an_enumeration(bus: FakeBus) -> None:
    publisher(bus)(DocumentNames.start, {"uid": "1"})  # type: ignore[arg-type]
    assert keyed(bus, "unit.bluesky.documents") == [("1", "start")]


@pytest.mark.parametrize(
    ("name", "doc"),
    [("start", {}), ("event", {}), ("descriptor", {"run_start": "1"}), ("what", {"a": object()})],
)
def test_document_that_is_none_does_not_raise_into_the_run_engine(
    bus: FakeBus, name: str, doc: dict[str, Any]
) -> None:
    publisher(bus)(name, doc)


def test_run_engine_goes_on_while_nobody_answers(tmp_path: Path) -> None:
    kafka = KafkaSettings(bootstrap_servers="127.0.0.1:1", spool_dir=tmp_path)
    producer = Producer(Settings(beamline="unit", kafka=kafka))
    engine = RunEngine({})
    engine.subscribe(KafkaPublisher(settings=SETTINGS, producer=producer))
    engine(count([det], 10))
    assert producer.close(0.0) == 13
    assert len(list(tmp_path.glob("*/*.spool"))) >= 1


class Ordered(FakeProducer):
    """Says in which order it was asked to send and to flush."""

    def __init__(self, bus: FakeBus) -> None:
        super().__init__(bus)
        self.asked: list[str] = []

    def send(self, topic: str, key: str, name: str, doc: Any, *, soon: bool = False) -> None:
        self.asked.append(f"{topic.rpartition('.')[2]} {name}")
        super().send(topic, key, name, doc, soon=soon)

    def flush(self, timeout: float) -> int:
        self.asked.append("flush")
        return super().flush(timeout)


def asked_of(bus: FakeBus, **md: Any) -> list[str]:
    producer = Ordered(bus)
    engine = RunEngine({})
    for topic in ("documents", "adaptive"):
        engine.subscribe(KafkaPublisher(topic, settings=SETTINGS, producer=producer))  # type: ignore[arg-type]
    engine(count([det]), **md)
    return producer.asked


def test_what_is_answered_is_sent_after_all_that_was_gathered(bus: FakeBus) -> None:
    asked = asked_of(bus, batch_id="b")
    assert asked[-3:] == ["documents stop", "flush", "adaptive stop"]
    assert asked.count("flush") == 1


def test_each_event_that_is_answered_waits_for_the_documents(bus: FakeBus) -> None:
    asked = asked_of(bus, batch_id="b", batch_mode="event")
    event = asked.index("adaptive event")
    assert asked[event - 2 : event] == ["documents event", "flush"]


def test_a_plain_run_is_not_held_up(bus: FakeBus) -> None:
    assert "flush" not in asked_of(bus)
