"""One fixed scenario for every way of running, and what the store then holds, made comparable.

Needs running services (recommender, recorder) and nothing of the tests but this file, so that
it can be piped into an interpreter that stands elsewhere, in a container for instance:

    python -m tests.scenario --config FILE --json
    podman exec -i acquisition-recorder python - --json < tests/scenario.py

17 adaptive runs, one count, one run that fails. `--only UID...` measures nothing and says what
the store of the settings holds of these runs: of a second recorder with its own store.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pymongo
from bluesky import RunEngine
from bluesky import plan_stubs as bps
from bluesky import plans as bp
from bluesky import preprocessors as bpp
from ophyd.sim import SynAxis, SynGauss

from bluesky_plugins.adaptive import KafkaSuggestions
from bluesky_plugins.messaging import KafkaPublisher, process_producer
from bluesky_plugins.plans import adaptive_plan
from bluesky_plugins.settings import Settings, load_settings

STEP = {"name": "step", "parameters": {"step": 1.5}, "max_count": 15}
ADAPTIVE_RUNS = 17
# What is another one each time, or another one on another machine.
VARYING = frozenset(
    ("_id", "uid", "run_start", "descriptor", "time", "timestamps", "scan_id", "versions")
)
# Of what a recommender said: what it decided, not when or in which words.
TOLD = ("batch_count", "revision", "action", "point")

Documents = dict[str, Any]


class ScenarioError(RuntimeError):
    """The scenario did not come to its end; the text says what was missing."""


def scenario(settings: Settings, *, timeout: float = 120.0) -> Documents:
    """Measure the scenario and return what the store then holds of it.

    :param settings: of a beamline whose recommender and recorder run.
    :param timeout: for each of: the answers, the documents' way into the store, s.
    :returns: `runs`, in the order of measuring, and `suggestions`, without uids, times and
        such: the same wherever the services run.
    :raises ScenarioError: something did not come in time.
    """
    uids = measure(settings, timeout=timeout)
    return documents_of(settings, uids, suggestions=ADAPTIVE_RUNS, timeout=timeout)


def measure(settings: Settings, *, timeout: float = 120.0) -> list[str]:
    """Measure the scenario.

    :returns: uids of the runs, in order.
    """
    motor = SynAxis(name="motor")
    det = SynGauss("det", motor, "motor", center=0, Imax=1, sigma=1)
    uids: list[str] = []
    with running_engine() as engine:
        engine.subscribe(KafkaPublisher("documents", settings=settings))
        engine.subscribe(lambda _name, doc: uids.append(doc["uid"]), "start")
        engine(
            adaptive_plan(
                [det],
                {motor: 0},
                to_recommender=KafkaPublisher("adaptive", settings=settings),
                from_recommender=KafkaSuggestions(settings),
                recommender=STEP,
                timeout=timeout,
            )
        )
        engine(bp.count([det], num=3, md={"sample": "silver behenate"}))
        try:
            engine(failing(det))
        except ValueError:
            pass
        else:
            raise ScenarioError("the run that is to fail did not")
    if unsent := process_producer(settings).flush(timeout):
        raise ScenarioError(f"{unsent} messages are not at Kafka after {timeout} s")
    return uids


@contextmanager
def running_engine() -> Iterator[RunEngine]:
    engine = RunEngine({})
    try:
        yield engine
    finally:
        engine.loop.call_soon_threadsafe(engine.loop.stop)
        engine._th.join(10)
        engine.loop.close()


@bpp.run_decorator(md={"plan_name": "failing"})
def failing(det: Any) -> Iterator[Any]:
    yield from bps.trigger_and_read([det])
    raise ValueError("a shutter that does not open")


def documents_of(
    settings: Settings, uids: Sequence[str], *, suggestions: int = 0, timeout: float = 120.0
) -> Documents:
    """What the store holds of these runs, and of the suggestions to them.

    :param suggestions: as many are waited for.
    :raises ScenarioError: their stop documents are not there in time.
    """
    with pymongo.MongoClient[Any](settings.mongo.address, appname="scenario") as client:
        documents = client[settings.database("documents")]
        starts = {"uid": {"$in": list(uids)}}
        of_runs = {"run_start": {"$in": list(uids)}}
        until(lambda: documents.run_stop.count_documents(of_runs) >= len(uids), "stops", timeout)
        found = [run_of(documents, uid) for uid in uids]
        batches = documents.run_start.distinct("batch_id", starts)
        told = client[settings.database("plugins")].suggestions
        of_batches = {"batch_id": {"$in": batches}}
        until(lambda: told.count_documents(of_batches) >= suggestions, "suggestions", timeout)
        said = list(told.find(of_batches, dict.fromkeys(TOLD, True)))
    known = {uid: f"run {n}" for n, uid in enumerate(uids)}
    known |= dict.fromkeys(batches, "the batch")
    said.sort(key=lambda doc: (doc["batch_count"], doc["revision"]))
    return {"runs": plain(found, known), "suggestions": plain(said, known)}


def run_of(documents: Any, uid: str) -> Documents:
    """All that is stored of a run: every document of each kind, so that a double shows."""
    descriptors = list(documents.event_descriptor.find({"run_start": uid}))
    events = documents.event.find({"descriptor": {"$in": [d["uid"] for d in descriptors]}})
    return {
        "start": list(documents.run_start.find({"uid": uid})),
        "descriptors": sorted(descriptors, key=lambda doc: doc["name"]),
        "events": sorted(events, key=lambda doc: doc["seq_num"]),
        "stop": list(documents.run_stop.find({"run_start": uid})),
    }


def plain(value: Any, known: Mapping[str, str]) -> Any:
    """Without what varies; uids inside are called by their place."""
    if isinstance(value, Mapping):
        return {k: plain(v, known) for k, v in sorted(value.items()) if k not in VARYING}
    if isinstance(value, list | tuple):
        return [plain(each, known) for each in value]
    return known.get(value, value) if isinstance(value, str) else value


def until(condition: Callable[[], bool], what: str, timeout: float) -> None:
    deadline, pause = time.monotonic() + timeout, threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            raise ScenarioError(f"no {what} in the store within {timeout} s")
        pause.wait(0.05)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.scenario", description=__doc__)
    parser.add_argument("--config", help="settings file; else from the environment")
    parser.add_argument("--json", action="store_true", help="all documents, not a summary")
    parser.add_argument("--timeout", type=float, default=120.0, help="s, for each part")
    parser.add_argument("--uids", action="store_true", help="measure only, and print the uids")
    parser.add_argument("--only", nargs="+", metavar="UID", help="of these runs, measure nothing")
    options = parser.parse_args()
    settings = load_settings(options.config)
    try:
        uids = options.only or measure(settings, timeout=options.timeout)
        if options.uids:
            print("\n".join(uids))
            return 0
        answers = 0 if options.only else ADAPTIVE_RUNS
        found = documents_of(settings, uids, suggestions=answers, timeout=options.timeout)
    except ScenarioError as error:
        print(f"scenario: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(found, indent=1, sort_keys=True))
    else:
        print(f"{len(found['runs'])} runs, {len(found['suggestions'])} suggestions are stored")
    return 0


if __name__ == "__main__":
    sys.exit(main())
