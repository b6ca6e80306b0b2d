"""Plans with a real RunEngine, the recommender service and a real Kafka between them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted
from ophyd.sim import SynAxis, SynGauss

from bluesky_plugins.adaptive import KafkaSuggestions, suggestion_uid
from bluesky_plugins.callbacks import KafkaPublisher
from bluesky_plugins.messaging import Producer
from bluesky_plugins.plans import adaptive_plan, adaptive_scan
from bluesky_plugins.testing import make_suggestion
from tests.system.conftest import DEADLINE

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]
POINTS = [1.5 * n for n in range(17)]


class Bench:
    """A RunEngine, devices and the two ways to and from the recommender."""

    def __init__(self, loop: Any) -> None:
        self.settings = loop.settings
        self.engine = RunEngine({})
        self.motor = SynAxis(name="motor")
        self.det = SynGauss("det", self.motor, "motor", center=0, Imax=1, sigma=1)
        self.points: list[float] = []
        self.starts: list[dict[str, Any]] = []
        self.stops: list[dict[str, Any]] = []
        self.producer = Producer(self.settings)
        self.engine.subscribe(self._note)

    def _note(self, name: str, doc: dict[str, Any]) -> None:
        if name == "event":
            self.points.append(doc["data"]["motor"])
        elif name in ("start", "stop"):
            {"start": self.starts, "stop": self.stops}[name].append(doc)

    def __call__(self, plan: Any, **options: Any) -> Any:
        publisher = KafkaPublisher("adaptive", settings=self.settings, producer=self.producer)
        ways = {
            "to_recommender": publisher,
            "from_recommender": KafkaSuggestions(self.settings),
        }
        return self.engine(plan([self.det], {self.motor: 0}, **{**ways, **options}))

    def publish(self, doc: dict[str, Any]) -> None:
        topic = self.settings.topic("suggestions")
        self.producer.deliver([(topic, doc["batch_id"], "suggestion", doc)], DEADLINE)

    def close(self) -> None:
        if self.engine.state != "idle":
            self.engine.abort()
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01), self.engine.loop).result(DEADLINE)
        self.engine.loop.call_soon_threadsafe(self.engine.loop.stop)
        self.engine._th.join(DEADLINE)
        self.engine.loop.close()
        self.producer.close()


@pytest.fixture
def bench(loop: Any) -> Iterator[Bench]:
    made = Bench(loop)
    yield made
    made.close()


def test_a_scan_is_answered_event_by_event(loop: Any, bench: Bench) -> None:
    loop.service("recommender")
    uids = bench(adaptive_scan)
    assert len(uids) == 1
    assert bench.points[:16] == POINTS[:16]
    assert bench.stops[0]["exit_status"] == "success"
    assert bench.stops[0]["reason"]


def test_points_outside_the_bounds_are_refused_until_the_recommender_gives_up(
    loop: Any, bench: Bench
) -> None:
    loop.service("recommender")
    bench(adaptive_plan, bounds={"motor": (-1, 4)})
    assert bench.points == [0, 1.5, 3]
    batch = bench.starts[0]["batch_id"]
    stored = loop.collection("plugins", "suggestions")
    last = loop.until(lambda: stored.find_one({"batch_id": batch, "action": "stop"}), "the stop")
    assert (last["batch_count"], last["revision"] > 0) == (2, True)


def test_another_recommender_is_chosen_by_the_plan(loop: Any, bench: Bench) -> None:
    loop.service("recommender")
    bench(
        adaptive_plan,
        recommender={"name": "sequence", "parameters": {"sequence": [5.0, -2.0]}},
    )
    assert bench.points == [0, 5, -2]


def test_foreign_stale_and_forged_answers_change_no_point(loop: Any, bench: Bench) -> None:
    loop.service("recommender")
    batch = "the-batch"
    bench.publish(make_suggestion("another", 0, {"motor": 99.0}))

    def interfere(name: str, doc: dict[str, Any]) -> None:
        if name == "stop" and len(bench.stops) < 8:
            count = len(bench.stops) - 1
            bench.publish(make_suggestion("another", count, {"motor": 99.0}))
            forged = make_suggestion(batch, count, {"motor": 99.0})
            bench.publish({**forged, "uid": suggestion_uid(batch, count + 1, 0)})
            if count:
                stale = make_suggestion(batch, count - 1, {"motor": 99.0}, revision=7)
                bench.publish(stale)

    bench.engine.subscribe(interfere)
    bench(adaptive_plan, md={"batch_id": batch})
    assert bench.points == POINTS


def test_pausing_over_the_log_holds_the_plan_until_it_is_resumed(loop: Any, bench: Bench) -> None:
    loop.service("recommender")
    publisher = KafkaPublisher("adaptive", settings=bench.settings, producer=bench.producer)
    asked = threading.Event()

    def pause_at_three(name: str, doc: dict[str, Any]) -> None:
        if name == "event" and doc["data"]["motor"] == 3 and not asked.is_set():
            asked.set()
            publisher.command(
                {
                    "uid": "a-command",
                    "batch_id": bench.starts[0]["batch_id"],
                    "command": "pause",
                    "time": 0.0,
                }
            )

    bench.engine.subscribe(pause_at_three)
    with pytest.raises(RunEngineInterrupted):
        bench(adaptive_plan)
    assert bench.engine.state == "paused"
    assert bench.points == [0, 1.5, 3]
    bench.engine.resume()
    assert bench.points == POINTS


def test_without_arguments_the_settings_say_where_the_recommender_is(
    loop: Any, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.service("recommender")
    monkeypatch.setenv("BLUESKY_PLUGINS_BEAMLINE", bench.settings.beamline)
    monkeypatch.setenv("BLUESKY_PLUGINS_KAFKA__BOOTSTRAP_SERVERS", bench.settings.kafka.address)
    bench(adaptive_plan, to_recommender=None, from_recommender=None)
    assert bench.points == POINTS
