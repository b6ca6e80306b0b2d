"""The databroker server: nobody is let in without the key, and there is none without one."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from bluesky_plugins.recording.reading import open_adapter
from bluesky_plugins.recording.serving import make_app, serve
from bluesky_plugins.settings import Settings, load_settings

KEY = "0123abcd"


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A key, and a MongoDB that does not answer: it is asked at the first run that is wanted."""
    monkeypatch.setenv("BLUESKY_PLUGINS_HTTP__API_KEY", KEY)
    monkeypatch.setenv("BLUESKY_PLUGINS_MONGO__URI", "mongodb://127.0.0.1:9")
    return load_settings()


def asked(app: Any, path: str, key: str | None = None) -> int:
    """The status that a GET has."""

    async def ask() -> int:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            headers = {"Authorization": f"Apikey {key}"} if key else {}
            return (await client.get(path, headers=headers)).status_code

    return asyncio.run(ask())


def test_runs_need_the_key_and_health_does_not(settings: Settings) -> None:
    adapter = open_adapter(settings, "documents")
    try:
        app = make_app(adapter, KEY)
        runs = "/api/v1/search/"
        statuses = [asked(app, runs), asked(app, runs, "f" * 8), asked(app, "/healthz")]
    finally:
        adapter.database.client.close()
    assert statuses == [401, 401, 200]


@pytest.mark.parametrize("key", [None, "with-dash"])
def test_key_that_tiled_cannot_take_ends_it_with_a_line(
    key: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if key is not None:
        monkeypatch.setenv("BLUESKY_PLUGINS_HTTP__API_KEY", key)
    assert serve([]) == 2
    told = capsys.readouterr().err
    assert "http.api_key" in told
    assert "with-dash" not in told
