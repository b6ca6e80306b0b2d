import pytest

from bluesky_plugins.recording import Catalog, RunWatch
from bluesky_plugins.recording.reading import _with_database
from bluesky_plugins.settings import Settings


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("mongodb://h:1", "mongodb://h:1/db"),
        ("mongodb://h:1/", "mongodb://h:1/db"),
        ("mongodb://h1:1,h2:2/?replicaSet=r", "mongodb://h1:1,h2:2/db?replicaSet=r"),
        ("mongodb://u:p%40@h", "mongodb://u:p%40@h/db?authSource=admin"),
        ("mongodb://u:p@h/users", "mongodb://u:p@h/db?authSource=users"),
        ("mongodb://u:p@h/?authSource=x&tls=true", "mongodb://u:p@h/db?authSource=x&tls=true"),
    ],
)
def test_the_database_goes_into_the_uri_and_the_login_stays(uri: str, expected: str) -> None:
    assert _with_database(uri, "db") == expected


def test_the_watch_gives_each_ended_run_once() -> None:
    watch = RunWatch()
    watch("start", {"uid": "a"})
    watch("stop", {"run_start": "a"})
    watch("stop", {"run_start": "b"})
    assert watch.take() == ["a", "b"]
    assert watch.take() == []


def test_the_catalog_is_not_opened_by_being_shown_or_completed() -> None:
    db = Catalog(Settings(beamline="mad", mongo={"uri": "mongodb://127.0.0.1:9"}))
    assert repr(db) == "<Catalog of mad, not opened yet>"
    assert "wait" in dir(db)
    assert not hasattr(db, "_repr_html_")
