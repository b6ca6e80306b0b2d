"""The reader of what is over, with messages and stores in memory: nothing stops it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

from bluesky_plugins.messaging import Message, encode
from bluesky_plugins.processing.recipes.evaluation import Ending
from bluesky_plugins.processing.recipes.recipe import Recipe
from bluesky_plugins.processing.service import acceptance as accepting
from bluesky_plugins.processing.service.acceptance import Acceptance
from bluesky_plugins.processing.service.reading import Reader
from bluesky_plugins.settings import Settings
from bluesky_plugins.testing import MemoryJobStore, composed_run

RECIPE = Recipe.model_validate(
    {"name": "r", "when": {"start": {}}, "targets": ["local"], "argv": ["/bin/true"]}
)


class Mail:
    def __init__(self) -> None:
        self.sent: list[tuple[str, str, str, Mapping[str, Any]]] = []

    def deliver(
        self, messages: Iterable[tuple[str, str, str, Mapping[str, Any]]], timeout: float
    ) -> None:
        self.sent += messages


class Tape:
    """A consumer of messages that are there from the start; it stops the reader at their end."""

    def __init__(self, messages: list[Message], stopping: threading.Event) -> None:
        self._messages, self._stopping = messages, stopping
        self.committed: dict[tuple[str, int], int] = {}

    def poll(self, most: int, timeout: float) -> list[Message]:
        messages, self._messages = self._messages, []
        if not messages:
            self._stopping.set()
        return messages

    def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        self.committed.update(offsets)

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def close(self) -> None: ...


class Bench:
    def __init__(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings, self.mail, self.store = settings, Mail(), MemoryJobStore()
        self.alerts: list[dict[str, Any]] = []
        self._patch = monkeypatch

    def message(self, short: str, offset: int, value: bytes) -> Message:
        return Message(self.settings.topic(short), 0, offset, b"k", value, 0.0)

    def read(self, messages: list[Message]) -> Tape:
        stopping = threading.Event()
        tape = Tape(messages, stopping)
        acceptance = Acceptance(
            self.store,
            [RECIPE],
            {},
            reachable=lambda name: None,
            alert=lambda one: self.alerts.append(one[3]),
        )
        reader = Reader(
            self.settings,
            acceptance,
            NoRuns(),
            mail=self.mail,
            taken=lambda: None,
            ready=lambda: None,
        )

        def consumer(*arguments: Any, on_assign: Callable[[Any], None], **more: Any) -> Tape:
            on_assign([(one, 0, 0) for one in arguments[1]])
            return tape

        self._patch.setattr("bluesky_plugins.processing.service.reading.Consumer", consumer)
        reader.run(stopping)
        return tape


class NoRuns:
    def documents(self, uid: str) -> None:
        return None

    def last_of_batch(self, batch_id: str) -> None:
        return None


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(Settings(beamline="t"), monkeypatch)


MALFORMED = [
    ("request", {}, "request"),
    ("request", {"request": "explode", "uid": "1", "time": 1.0}, "explode"),
    ("request", {"request": "cancel", "uid": "1", "time": 1.0, "key": "xyz"}, "key"),
    ("request", {"request": "submit", "uid": "1", "time": 1.0, "argv": []}, "argv"),
    ("request", {"request": "submit", "uid": "1", "time": 1.0, "argv": ["/x", "a\0"]}, "NUL"),
    ("request", {"request": "submit", "uid": "1", "time": 1.0, "argv": ["/x"], "up": 1}, "up"),
    ("request", {"request": "process", "uid": "1", "time": 1.0, "run": "r", "recipe": "n"}, "n"),
]


@pytest.mark.parametrize(("name", "doc", "words"), MALFORMED)
def test_a_request_that_cannot_be_is_a_dead_letter_with_its_reason(
    bench: Bench, name: str, doc: dict[str, Any], words: str
) -> None:
    bench.read([bench.message("jobs", 0, encode(name, doc))])

    ((topic, _, kind, letter),) = bench.mail.sent
    assert (topic, kind) == (bench.settings.topic("dead_letters"), "dead_letter")
    assert letter["service"] == "processing"
    assert words in letter["reason"]


def test_what_cannot_be_decoded_is_a_dead_letter(bench: Bench) -> None:
    bench.read([bench.message("jobs", 0, b"\x92\xa7request\xc1")])

    assert [name for _, _, name, _ in bench.mail.sent] == ["dead_letter"]


def run_messages(bench: Bench, first: int, **start: Any) -> list[Message]:
    documents = composed_run(1, **start)
    return [
        bench.message("documents", first + n, encode(name, doc))
        for n, (name, doc) in enumerate(documents)
    ]


def test_a_run_that_cannot_be_processed_is_told_of_and_the_next_one_is_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = accepting.evaluate

    def breaks(recipes: Any, ending: Ending) -> Any:
        if ending.run.start.get("sample") == "poison":
            raise ZeroDivisionError("nobody foresaw this")
        return real(recipes, ending)

    monkeypatch.setattr(accepting, "evaluate", breaks)
    poison = run_messages(bench, 0, sample="poison")
    good = run_messages(bench, len(poison), sample="good")

    tape = bench.read([*poison, *good])

    reasons = {alert["reason"] for alert in bench.alerts}
    assert reasons == {"cannot be processed: ZeroDivisionError: nobody foresaw this"}
    assert bench.store.find({}, limit=9)[0] == 1
    assert tape.committed[bench.settings.topic("documents"), 0] == len(poison) + len(good)
