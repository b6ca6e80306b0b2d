from typing import Any

import pytest
from bluesky import RunEngine
from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from bluesky.run_engine import DocumentNames
from event_model import compose_run
from ophyd.sim import img

from bluesky_plugins.messaging.keys import Keys


def run_with_everything() -> list[tuple[str, dict[str, Any]]]:
    run = compose_run(metadata={"batch_id": "b"})
    stream = run.compose_descriptor(
        name="primary",
        data_keys={"det": {"dtype": "number", "shape": [], "source": "x", "external": "FILE:"}},
    )
    resource = run.compose_resource(
        spec="s", root="/", resource_path="p", resource_kwargs={}, path_semantics="posix"
    )
    stream_resource = run.compose_stream_resource(
        mimetype="m", uri="file://localhost/p", data_key="det", parameters={}
    )
    datum = resource.compose_datum(datum_kwargs={})
    event = stream.compose_event(data={"det": datum["datum_id"]}, timestamps={"det": 1.0})
    page = {"descriptor": stream.descriptor_doc["uid"], "uid": ["1"], "seq_num": [1]}
    stream_datum = stream_resource.compose_stream_datum(
        indices={"start": 0, "stop": 1}, descriptor=stream.descriptor_doc
    )
    return [
        ("start", run.start_doc),
        ("descriptor", stream.descriptor_doc),
        ("resource", resource.resource_doc),
        ("stream_resource", stream_resource.stream_resource_doc),
        ("datum", datum),
        ("datum_page", {"resource": resource.resource_doc["uid"], "datum_id": ["1"]}),
        ("stream_datum", stream_datum),
        ("event", event),
        ("event_page", page),
        ("bulk_events", {"primary": [event]}),
        ("bulk_datum", {"resource": resource.resource_doc["uid"], "datum_ids": ["1"]}),
        ("stop", run.compose_stop()),
    ]


def test_every_document_belongs_to_its_run_while_others_are_open() -> None:
    keys = Keys()
    runs = [run_with_everything() for _ in range(3)]
    for documents in zip(*runs, strict=True):
        for (name, doc), documents_of_run in zip(documents, runs, strict=True):
            found = keys.run_of(name, doc)
            assert found is not None
            assert (found.uid, found.batch_id) == (documents_of_run[0][1]["uid"], "b"), name


def test_resource_that_names_no_run_belongs_to_the_open_one() -> None:
    keys = Keys()
    documents = run_with_everything()
    keys.run_of(*documents[0])
    resource = {k: v for k, v in documents[2][1].items() if k != "run_start"}
    found = keys.run_of("resource", resource)
    assert found is not None
    assert found.uid == documents[0][1]["uid"]


def test_document_of_a_run_that_began_before_has_its_uid_and_no_batch() -> None:
    found = Keys().run_of("stop", {"run_start": "earlier", "uid": "x"})
    assert found is not None
    assert (found.uid, found.batch_id) == ("earlier", None)


def test_document_of_nothing_known_belongs_to_nothing() -> None:
    assert Keys().run_of("event", {"descriptor": "unknown"}) is None


@pytest.mark.parametrize("stops", [True, False])
def test_memory_is_bounded(stops: bool) -> None:
    keys = Keys(max_open=10)
    for _ in range(40):
        for name, doc in run_with_everything()[: None if stops else -1]:
            keys.run_of(name, doc)
    assert len(keys._runs) <= 10
    assert len(keys._parts) <= 30


def test_documents_of_a_run_engine_all_belong_to_their_run() -> None:
    keys = Keys()
    found: list[tuple[str, Any]] = []
    engine = RunEngine({})
    engine.subscribe(lambda name, doc: found.append((name, keys.run_of(name, doc))))

    @bpp.stage_decorator([img])
    @bpp.run_decorator(md={"batch_id": "b"})
    def plan() -> Any:
        yield from bps.trigger_and_read([img])

    engine(plan())
    assert {"resource", "datum", "event"} <= {name for name, _ in found}
    assert len({run.uid for _, run in found}) == 1
    assert {run.batch_id for _, run in found} == {"b"}
    assert {str(name) for name, _ in found} <= {each.value for each in DocumentNames}
