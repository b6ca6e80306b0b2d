"""What makes a service alive, and what does not."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from bluesky_plugins.cli.liveness import (
    httpserver_alive,
    iocs_alive,
    queueserver_alive,
    recommender_alive,
    recorder_alive,
)
from bluesky_plugins.recording.beat import Beat, beat_file
from bluesky_plugins.settings import Settings

NOBODY = 1  # a port that nobody listens on


@pytest.fixture
def answering() -> Iterator[Callable[[int, object], Settings]]:
    """`answering(status, content)`: settings whose HTTP servers answer so, to who has the key."""
    servers: list[HTTPServer] = []

    def answer(status: int, content: object) -> Settings:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                known = self.headers.get("Authorization") == "ApiKey key"
                body = json.dumps(content).encode()
                self.send_response(status if known else 401)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                return

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        return Settings(http={"api_key": "key", "recommender_port": port, "queueserver_port": port})

    yield answer
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_recorder_that_beats_is_alive() -> None:
    settings = Settings()
    Beat(beat_file(settings))()
    assert recorder_alive(settings, 30.0).alive


def test_a_recorder_without_a_beat_is_not_alive() -> None:
    assert not recorder_alive(Settings(), 30.0).alive


def test_a_beat_older_than_the_limit_is_no_life() -> None:
    settings = Settings()
    Beat(beat_file(settings))()
    long_ago = time.time() - 31
    os.utime(beat_file(settings), (long_ago, long_ago))
    assert not recorder_alive(settings, 30.0).alive


def test_the_beat_of_another_instance_is_not_ours() -> None:
    Beat(beat_file(Settings(recording={"instance": "1"})))()
    assert not recorder_alive(Settings(recording={"instance": "0"}), 30.0).alive


def test_a_group_with_slashes_beats_in_the_state_folder(tmp_path: Path) -> None:
    path = beat_file(Settings(recording={"group_id": "../../x"}))
    assert path.parent == tmp_path / "state" / "beats"


def test_a_beat_that_cannot_be_written_does_not_stop_the_loop(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    Beat(tmp_path / "file" / "beat")()


@pytest.mark.parametrize(("status", "alive"), [(200, True), (503, True)])
def test_a_recommender_is_alive_whatever_its_servers_do(
    answering: Callable[[int, object], Settings], status: int, alive: bool
) -> None:
    settings = answering(status, {"ok": status == 200, "alive": True})
    assert recommender_alive(settings, 5.0).alive is alive


@pytest.mark.parametrize("content", [{"ok": False, "alive": False}, {}, []])
def test_a_recommender_whose_loop_hangs_is_not_alive(
    answering: Callable[[int, object], Settings], content: object
) -> None:
    assert not recommender_alive(answering(503, content), 5.0).alive


@pytest.mark.parametrize(
    ("status", "alive"), [(200, True), (408, True), (401, False), (500, False)]
)
def test_a_queue_http_server_is_judged_by_its_own_answer(
    answering: Callable[[int, object], Settings], status: int, alive: bool
) -> None:
    assert httpserver_alive(answering(status, {}), 5.0).alive is alive


def test_where_nobody_listens_nothing_is_alive() -> None:
    ports = ("recommender_port", "queueserver_port", "queueserver_control_port")
    settings = Settings(http={"api_key": "key", **dict.fromkeys(ports, NOBODY)})
    assert not recommender_alive(settings, 0.5).alive
    assert not httpserver_alive(settings, 0.5).alive
    assert not queueserver_alive(settings, 0.2).alive
    assert not iocs_alive(settings, NOBODY, 0.2).alive
