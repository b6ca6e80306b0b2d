"""Pinned jars: fetched once, checked before every use. The repository is one on loopback."""

from __future__ import annotations

import gc
import hashlib
import http.server
import re
import threading
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from bluesky_plugins.embedded import jars
from bluesky_plugins.embedded.jars import Jar, JarError, classpath, locked_jars

# jgo leaves the connections of what it fetched to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

CONTENT = b"PK one jar"
GOOD = Jar("org.example", "thing", "1.0", hashlib.sha256(CONTENT).hexdigest())


class Repository(http.server.ThreadingHTTPServer):
    """Serves `content` for each path that is in it, and counts."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.content: dict[str, bytes] = {}
        self.asked: list[str] = []


class Answer(http.server.BaseHTTPRequestHandler):
    server: Repository

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        body = self.server.content.get(self.path)
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    with Repository() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        config = tmp_path / "jgo.conf"
        config.write_text(f"[repositories]\nlocal = http://127.0.0.1:{server.server_port}\n")
        monkeypatch.setenv("JGO_CONFIG_FILE", str(config))
        monkeypatch.setattr(jars, "locked_jars", lambda _: (GOOD,))
        server.content[f"/{GOOD.path}"] = CONTENT
        yield server
        server.shutdown()
        thread.join()
        gc.collect()


def jar_requests(repository: Repository) -> int:
    return sum(path.endswith(".jar") for path in repository.asked)


@pytest.mark.parametrize("server", ["kafka", "mongo"])
def test_lock_file_names_no_host(server):
    assert "://" not in (files("bluesky_plugins.embedded") / f"{server}.lock.toml").read_text()


@pytest.mark.parametrize("server", ["kafka", "mongo"])
def test_every_locked_jar_has_a_sha256(server):
    assert all(re.fullmatch("[0-9a-f]{64}", jar.sha256) for jar in locked_jars(server))


def test_all_of_kafka_is_one_version():
    # Versions that another library manages would mix an older client into the broker.
    versions = {jar.version for jar in locked_jars("kafka") if jar.group == "org.apache.kafka"}
    assert versions == {"4.1.1"}


def test_missing_jar_is_fetched_to_its_place(repository, tmp_path):
    assert classpath("kafka", tmp_path / "jars") == [tmp_path / "jars" / GOOD.path]
    assert (tmp_path / "jars" / GOOD.path).read_bytes() == CONTENT


def test_jars_that_are_there_are_not_looked_up(repository, tmp_path):
    classpath("kafka", tmp_path / "jars")
    repository.asked.clear()
    classpath("kafka", tmp_path / "jars")
    assert repository.asked == []


def test_wrong_jar_is_named_with_what_to_do(repository, tmp_path):
    (path,) = classpath("kafka", tmp_path / "jars")
    path.write_bytes(b"PK another jar")
    with pytest.raises(JarError, match=rf"{re.escape(str(path))} is not the pinned .*delete"):
        classpath("kafka", tmp_path / "jars")


def test_wrong_content_of_the_repository_is_not_kept(repository, tmp_path):
    repository.content[f"/{GOOD.path}"] = b"PK evil"
    with pytest.raises(JarError, match=r"not what is pinned.*not kept"):
        classpath("kafka", tmp_path / "jars")
    assert not list((tmp_path / "jars").rglob("*.jar"))


def test_unreachable_jar_says_where_to_put_it(repository, tmp_path):
    repository.content.clear()
    with pytest.raises(JarError, match=re.escape(f"put it at {tmp_path / 'jars' / GOOD.path}")):
        classpath("kafka", tmp_path / "jars")


def test_two_at_once_fetch_once(repository, tmp_path):
    start = threading.Barrier(4)

    def resolve() -> None:
        start.wait(30)
        classpath("kafka", tmp_path / "jars")

    threads = [threading.Thread(target=resolve) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert jar_requests(repository) == 1


def test_folder_that_cannot_be_made_is_named(repository, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JarError, match=re.escape(str(tmp_path / "file" / "jars"))):
        classpath("kafka", tmp_path / "file" / "jars")
