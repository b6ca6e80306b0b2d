"""What the recorder wrote is what suitcase-mongo writes, and databroker reads it."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pymongo
import pytest

from bluesky_plugins.messaging import Producer
from bluesky_plugins.recording import (
    COLLECTIONS,
    Catalog,
    MongoDocumentStore,
    RecorderService,
    RunWatch,
    StoredRuns,
    connect,
    open_db,
    records_of,
    same_content,
)
from bluesky_plugins.settings import Settings

# databroker, tiled and ophyd.sim leave clients and event loops to the garbage collector.
pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
Pairs = list[tuple[str, dict[str, Any]]]
# It only bounds a hang: a busy machine takes ten times as long as an idle one.
DEADLINE = 60.0


# -- runs of every shape --------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_engine() -> Any:
    from bluesky import RunEngine

    return RunEngine({}, context_managers=[])


def taken(engine: Any, plan: Any, *, fails: bool = False) -> Pairs:
    pairs: Pairs = []
    token = engine.subscribe(lambda name, doc: pairs.append((name, doc)))
    try:
        if fails:
            with pytest.raises(RuntimeError, match="on purpose"):
                engine(plan)
        else:
            engine(plan)
    finally:
        engine.unsubscribe(token)
    return pairs


def count(engine: Any, _folder: Path) -> Pairs:
    from bluesky.plans import count as plan
    from ophyd.sim import SynSignal, det, rand

    spectrum = SynSignal(name="spectrum", func=lambda: np.array([1.0, np.nan, np.inf]))
    return taken(engine, plan([det, rand, spectrum], 3, md={"sample": {"mass": np.float64(1.5)}}))


def scan(engine: Any, _folder: Path) -> Pairs:
    from bluesky.plans import scan as plan
    from ophyd.sim import det, motor

    return taken(engine, plan([det], motor, -1, 1, 5))


def streams(engine: Any, _folder: Path) -> Pairs:
    from bluesky.plans import scan as plan
    from bluesky.preprocessors import baseline_wrapper, monitor_during_wrapper
    from ophyd.sim import det, motor, motor1, noisy_det

    inner = plan([det], motor, -1, 1, 3)
    return taken(engine, monitor_during_wrapper(baseline_wrapper(inner, [motor1]), [noisy_det]))


def aborted(engine: Any, _folder: Path) -> Pairs:
    from bluesky.plan_stubs import trigger_and_read
    from bluesky.preprocessors import run_wrapper
    from ophyd.sim import det

    def fails() -> Any:
        yield from trigger_and_read([det])
        raise RuntimeError("on purpose")

    return taken(engine, run_wrapper(fails()), fails=True)


def flight(engine: Any, _folder: Path) -> Pairs:
    from bluesky.plans import fly
    from ophyd.sim import MockFlyer, det, motor

    return taken(engine, fly([MockFlyer("flyer", det, motor, -1, 1, 5)]))


def camera(_engine: Any, folder: Path) -> Pairs:
    """As the simulated camera documents its files."""
    import event_model

    with h5py.File(folder / "a.h5", "w") as file:
        file["/entry/data"] = np.arange(18, dtype="u2").reshape(3, 2, 3)
    bundle = event_model.compose_run(metadata={"scan_id": 77})
    image = {"source": "x", "dtype": "array", "shape": [2, 3], "external": "FILESTORE:"}
    descriptor = bundle.compose_descriptor(
        name="primary",
        data_keys={"image": {**image, "dtype_numpy": "<u2"}},
        object_keys={"camera": ["image"]},
    )
    resource = bundle.compose_resource(
        spec="BP_CAMERA_HDF5",
        root=str(folder),
        resource_path="a.h5",
        resource_kwargs={"dataset": "/entry/data"},
    )
    data = [resource.compose_datum(datum_kwargs={"index": i}) for i in range(3)]
    events = [
        descriptor.compose_event(
            data={"image": d["datum_id"]}, timestamps={"image": 1.0}, filled={"image": False}
        )
        for d in data
    ]
    return [
        ("start", bundle.start_doc),
        ("descriptor", descriptor.descriptor_doc),
        ("resource", resource.resource_doc),
        ("datum_page", event_model.pack_datum_page(*data)),
        ("event_page", event_model.pack_event_page(*events)),
        ("stop", bundle.compose_stop()),
    ]


SHAPES = {f.__name__: f for f in (count, scan, streams, aborted, flight, camera)}


# -- helpers --------------------------------------------------------------------------------


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings(recording={"db_wait_seconds": DEADLINE})


@pytest.fixture
def recorder(settings: Settings) -> Iterator[None]:
    ready = threading.Event()
    service = RecorderService(settings, ready=lambda _line: ready.set())
    thread = threading.Thread(target=service.run)
    thread.start()
    assert ready.wait(DEADLINE)
    yield
    service.stop()
    thread.join(DEADLINE)


def send(settings: Settings, pairs: Pairs) -> None:
    producer = Producer(settings, spool=False)
    key = pairs[0][1]["uid"]
    topic = settings.topic("documents")
    producer.deliver([(topic, key, n, d) for n, d in pairs], timeout=DEADLINE)
    producer.close()


def store(settings: Settings, pairs: Pairs) -> str:
    """Store a run without Kafka; its uid."""
    documents = MongoDocumentStore(connect(settings), settings.database("documents"))
    documents.prepare()
    documents.write([record for name, doc in pairs for record in records_of(name, doc)])
    documents.close()
    return str(pairs[0][1]["uid"])


def wait_for(settings: Settings, uid: str) -> None:
    with StoredRuns(settings) as runs:
        assert not runs.wait_for_stops([uid], DEADLINE, lambda _line: None)


# -- the same as suitcase-mongo -------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.usefixtures("recorder")
def test_the_recorder_writes_what_suitcase_mongo_writes(
    shape: str, settings: Settings, run_engine: Any, tmp_path: Path
) -> None:
    from suitcase.mongo_normalized import Serializer

    pairs = SHAPES[shape](run_engine, tmp_path)
    with pymongo.MongoClient(settings.mongo.address) as client:
        theirs = client[f"{settings.beamline}-suitcase"]
        serializer = Serializer(theirs, theirs)
        for name, doc in pairs:
            serializer(name, doc)
        send(settings, pairs)
        wait_for(settings, pairs[0][1]["uid"])
        ours = client[settings.database("documents")]
        total = 0
        for collection in COLLECTIONS.values():
            mine, other = (
                sorted(
                    db[collection.name].find({}, {"_id": False}), key=lambda d: d[collection.key]
                )
                for db in (ours, theirs)
            )
            assert same_content(mine, other), collection.name
            total += len(mine)
    assert total >= len(pairs)


# -- databroker -----------------------------------------------------------------------------


def test_databroker_reads_a_scan(settings: Settings, run_engine: Any, tmp_path: Path) -> None:
    from databroker.v1 import Broker
    from tiled.queries import Key

    uid = store(settings, scan(run_engine, tmp_path))
    db = open_db(settings)
    data = db[-1].primary.read()
    np.testing.assert_allclose(data["motor"], [-1, -0.5, 0, 0.5, 1])
    assert db[uid].metadata["stop"]["exit_status"] == "success"
    assert db[uid[:8]].metadata["start"]["uid"] == uid
    assert db[db[-1].metadata["start"]["scan_id"]].metadata["start"]["uid"] == uid
    assert len(db.search(Key("plan_name") == "scan")) == 1
    assert len(db.search(Key("plan_name") == "count")) == 0
    table = Broker(db)[-1].table()
    np.testing.assert_allclose(table["motor"], [-1, -0.5, 0, 0.5, 1])


def test_databroker_reads_every_stream(settings: Settings, run_engine: Any, tmp_path: Path) -> None:
    store(settings, streams(run_engine, tmp_path))
    run = open_db(settings)[-1]
    assert set(run) == {"primary", "baseline", "noisy_det_monitor"}
    assert len(run.baseline.read()["motor1"]) == 2


def test_databroker_reads_nan_and_arrays(
    settings: Settings, run_engine: Any, tmp_path: Path
) -> None:
    store(settings, count(run_engine, tmp_path))
    spectrum = open_db(settings)[-1].primary.read()["spectrum"]
    np.testing.assert_array_equal(spectrum, [[1.0, np.nan, np.inf]] * 3)


def test_databroker_fills_the_images_of_the_camera(
    settings: Settings, run_engine: Any, tmp_path: Path
) -> None:
    store(settings, camera(run_engine, tmp_path))
    images = open_db(settings)[-1].primary.read()["image"]
    np.testing.assert_array_equal(images, np.arange(18).reshape(3, 2, 3))


def test_a_camera_file_outside_of_its_root_is_not_read(
    settings: Settings, run_engine: Any, tmp_path: Path
) -> None:
    pairs = camera(run_engine, tmp_path)
    resource = next(doc for name, doc in pairs if name == "resource")
    resource.update(root=str(tmp_path / "inner"), resource_path="../a.h5")
    store(settings, pairs)
    with pytest.raises(ValueError, match="leads out of"):
        open_db(settings)[-1].primary.read()


# -- db[-1] right after RE(...) -------------------------------------------------------------


@pytest.mark.usefixtures("recorder")
def test_db_waits_until_the_run_is_stored(
    settings: Settings, run_engine: Any, tmp_path: Path
) -> None:
    watch, said = RunWatch(), list[str]()

    def tell(line: str) -> None:
        said.append(line)
        late.start()  # what it waits for is sent when it waits

    db = Catalog(settings, watch, tell=tell)
    before = scan(run_engine, tmp_path)
    send(settings, before)
    wait_for(settings, before[0][1]["uid"])
    assert len(db) == 1  # opened, and the run is known to its cache
    pairs = scan(run_engine, tmp_path)
    send(settings, pairs[:-1])
    for name, doc in pairs:
        watch(name, doc)
    late = threading.Thread(target=send, args=[settings, [pairs[0], pairs[-1]]])
    run = db[-1]
    late.join()
    assert run.metadata["start"]["uid"] == pairs[0][1]["uid"]
    assert run.metadata["stop"]["exit_status"] == "success"
    assert len(run.primary.read()["motor"]) == 5
    assert len(said) == 1
    assert "waiting, at most 60 s" in said[0]
    db.close()
    assert len(db) == 2  # opened again
    db.close()


def test_db_says_so_when_the_run_is_not_stored_in_time(
    make_settings: Callable[..., Settings], run_engine: Any, tmp_path: Path
) -> None:
    # Longer than the first look takes, after which it says that it waits.
    settings = make_settings(recording={"db_wait_seconds": 3.0})
    store(settings, scan(run_engine, tmp_path))
    watch, said = RunWatch(), list[str]()
    db = Catalog(settings, watch, tell=said.append)
    watch("stop", {"run_start": "abcdefgh-1"})
    assert len(db) == 1
    assert said[1] == "not stored within 3 s: run abcdefgh; is the recorder running?"
    assert len(db) == 1
    assert len(said) == 2


def test_a_run_that_was_looked_at_while_it_went_on_is_complete_afterwards(
    settings: Settings, run_engine: Any, tmp_path: Path
) -> None:
    pairs = scan(run_engine, tmp_path)
    store(settings, pairs[:4])
    db = Catalog(settings)
    assert db[-1].metadata["stop"] is None
    store(settings, pairs)
    assert db[-1].metadata["stop"]["num_events"] == {"primary": 5}
    assert len(db[-1].primary.read()["motor"]) == 5


# -- runs as plain data ---------------------------------------------------------------------


def test_runs_are_listed_newest_first_and_shown(
    settings: Settings, run_engine: Any, tmp_path: Path
) -> None:
    first = store(settings, scan(run_engine, tmp_path))
    last = store(settings, aborted(run_engine, tmp_path))
    with StoredRuns(settings) as runs:
        listed = runs.latest()
        assert [run["uid"] for run in listed] == [last, first]
        assert [run["exit_status"] for run in listed] == ["fail", "success"]
        assert listed[1]["plan_name"] == "scan"
        for which in (first, first[:6], str(listed[1]["scan_id"]), "-2"):
            found = runs.find(which)
            assert found is not None
            assert found["start"]["uid"] == first
            assert found["events"] == {"primary": 5}
        assert runs.find("nothing-like-it") is None
        assert runs.find("-3") is None
