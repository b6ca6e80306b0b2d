"""The HTTP API without servers, and its description."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import mongomock
import pytest
from pymongo.errors import ServerSelectionTimeoutError

from bluesky_plugins.adaptive import BatchStore
from bluesky_plugins.adaptive.http import HttpDoor, make_app
from bluesky_plugins.adaptive.metrics import Metrics
from bluesky_plugins.messaging import NotDelivered
from bluesky_plugins.settings import ConfigurationError, Settings

DESCRIPTION = Path(__file__).parents[3] / "docs" / "reference" / "openapi-recommender.json"


class Sent:
    """A producer that keeps what it is given."""

    healthy = True

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.down = False

    def deliver(self, messages: Any, timeout: float) -> None:
        if self.down:
            raise NotDelivered("nobody answers")
        self.messages += messages


HEALTH = {"kafka": True, "mongo": True, "ready": True, "backlog": 0, "alive": True}


@pytest.fixture
def store() -> BatchStore:
    made = BatchStore(mongomock.MongoClient(), Settings())
    record = {"batch_id": "b", "state": "open", "entries": 1, "last_time": 0.0, "story": []}
    made.write_batches([record])
    made.write_suggestions([{"uid": "s", "batch_id": "b", "point": {"x": float("nan")}}])
    return made


@pytest.fixture
def sent() -> Sent:
    return Sent()


@pytest.fixture
def client(store: BatchStore, sent: Sent) -> Iterator[httpx.Client]:
    door = door_of(store, sent)
    door.start()
    assert door.address is not None
    with httpx.Client(base_url="http://{}:{}".format(*door.address), timeout=50) as made:
        yield made
    door.stop(5.0)


def door_of(store: BatchStore, sent: Any, **http: Any) -> HttpDoor:
    settings = Settings(http={"recommender_port": 0, **http})
    return HttpDoor(settings, store, sent, Metrics(), lambda: HEALTH)


def test_the_api_is_the_one_described() -> None:
    wanted = json.dumps(make_app().openapi(), indent=2, sort_keys=True) + "\n"
    assert DESCRIPTION.read_text() == wanted, (
        "the HTTP API changed; write its description anew: python tests/unit/adaptive/test_http.py"
    )


def test_a_command_goes_into_the_batchs_log(client: httpx.Client, sent: Sent) -> None:
    answer = client.post("/api/batches/b/pause", json={"by": "me"})
    ((topic, key, name, doc),) = sent.messages
    assert (topic, key, name) == ("mad.bluesky.adaptive", "b", "command")
    assert (doc["command"], doc["by"], doc["uid"]) == ("pause", "me", answer.json()["uid"])


@pytest.mark.parametrize("path", ["team/a b", "team%2Fa%20b"])
def test_the_id_of_a_batch_may_have_slashes(
    client: httpx.Client, store: BatchStore, sent: Sent, path: str
) -> None:
    named = {"batch_id": "team/a b", "state": "open", "entries": 1, "last_time": 0.0, "story": []}
    store.write_batches([named])
    assert client.get(f"/api/batches/{path}").json()["batch_id"] == "team/a b"
    assert client.post(f"/api/batches/{path}/stop").status_code == 202
    assert [key for _, key, _, _ in sent.messages] == ["team/a b"]


def test_without_kafka_a_command_is_503(client: httpx.Client, sent: Sent) -> None:
    sent.down = True
    assert client.post("/api/batches/b/stop").status_code == 503


def test_without_mongodb_a_view_is_503(
    client: httpx.Client, store: BatchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(batch_id: str) -> None:
        raise ServerSelectionTimeoutError("nobody answers")

    monkeypatch.setattr(store, "batch", away)
    assert client.get("/api/batches/b").status_code == 503


def test_a_batch_without_news_is_silent(client: httpx.Client) -> None:
    assert client.get("/api/batches", params={"state": "silent"}).json()["total"] == 1
    assert client.get("/api/batches", params={"state": "open"}).json()["total"] == 0
    assert client.get("/api/batches/b").json()["state"] == "silent"


def test_a_batch_that_awaits_processing_is_not_silent(
    client: httpx.Client, store: BatchStore
) -> None:
    awaiting = {"batch_count": 3, "run": "r", "recipes": ["fit"], "since": 0.0}
    waits = {"batch_id": "w", "state": "open", "entries": 1, "last_time": 0.0, "story": []}
    store.write_batches([{**waits, "awaiting": awaiting}])
    assert client.get("/api/batches", params={"state": "silent"}).json()["total"] == 1
    (found,) = client.get("/api/batches", params={"state": "open"}).json()["batches"]
    assert (found["batch_id"], found["awaiting"]) == ("w", awaiting)
    assert client.get("/api/batches/w").json()["state"] == "open"


def test_what_is_not_finite_is_shown_as_text(client: httpx.Client) -> None:
    assert client.get("/api/batches/b").json()["suggestions"][0]["point"] == {"x": "NaN"}


def test_beyond_loopback_a_key_is_needed(store: BatchStore, sent: Sent) -> None:
    with pytest.raises(ConfigurationError, match=r"set http\.api_key"):
        door_of(store, sent, host="0.0.0.0")  # noqa: S104


def test_a_port_that_is_taken_is_named(store: BatchStore, sent: Sent, client: httpx.Client) -> None:
    port = client.base_url.port
    with pytest.raises(ConfigurationError, match=f"recommender_port {port}"):
        door_of(store, sent, recommender_port=port).start()


if __name__ == "__main__":
    DESCRIPTION.write_text(json.dumps(make_app().openapi(), indent=2, sort_keys=True) + "\n")
