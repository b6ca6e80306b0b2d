"""What people see of a job."""

from __future__ import annotations

import json
from typing import Any

from bluesky_plugins.processing import PathRule, Rules, show_job
from bluesky_plugins.processing.jobs.events import Admitted, Observed
from bluesky_plugins.processing.jobs.job import Place
from bluesky_plugins.processing.model import Login, OutputFile
from bluesky_plugins.testing import MemoryJobStore
from bluesky_plugins.testing.jobs import JobBench, observation, record, unaccepted

FILE = OutputFile(path="/core/1/processed/fit.h5", size=12, mtime=1001.5)


def shown(**place: Any) -> dict[str, Any]:
    """A job that succeeded and left a file, as it is shown."""
    one = JobBench(unaccepted(places=(Place(target="slurm", argv=("/bin/fit",), **place),)))
    one.tell(Admitted(time=1001.0))
    done = observation(record=record(one.job, outputs=(FILE,)))
    one.tell(Observed(time=1003.0, attempt=1, observation=done))
    store = MemoryJobStore(Rules())
    store.accept(one.job)
    found = show_job(store, one.job.key)
    assert found is not None
    return found


def test_a_file_is_shown_where_its_target_has_it_and_where_this_host_does() -> None:
    rule = PathRule(local="/gpfs/current", remote="/core/1")
    assert shown(paths=(rule,))["outputs"] == [
        {
            "path": "/core/1/processed/fit.h5",
            "here": "/gpfs/current/processed/fit.h5",
            "size": 12,
            "mtime": 1001.5,
        }
    ]


def test_a_file_that_this_host_does_not_see_is_not_said_to_be_here() -> None:
    assert [file["here"] for file in shown()["outputs"]] == [None]


def test_a_file_of_this_host_is_where_it_is() -> None:
    assert [file["here"] for file in shown(here=True)["outputs"]] == [FILE.path]


def test_where_the_key_of_an_account_lies_is_not_shown() -> None:
    login = Login(host="node", user="bt", key="/secret/key", work_dir="/w")
    found = shown(login=login)
    assert found["places"][0]["login"]["user"] == "bt"
    assert "/secret/key" not in json.dumps(found)
