"""Read runs back: databroker's tiled client on what the recorder wrote, in this process."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from bluesky_plugins.recording.stored import StoredRuns
from bluesky_plugins.settings import Settings

__all__ = ["Catalog", "RunWatch", "open_adapter", "open_db"]

log = logging.getLogger(__name__)

OF_DEVICES = frozenset(
    ("name", "parent", "hints", "children", "read", "describe", "kickoff", "complete")
)


def open_db(
    settings: Settings,
    database: str = "documents",
    *,
    handlers: Mapping[str, Callable[..., Any]] | None = None,
) -> Any:
    """The tiled client of a database: `open_db(settings)[-1].primary.read()`.

    The first call imports databroker and tiled's server, which takes seconds.

    :param database: short name: `documents` for measured runs, `analysis` for analysis runs.
    :param handlers: further handlers, by the `spec` of resource documents; the simulated
        camera's and those that are installed for databroker are always there.
    :returns: a `CatalogOfBlueskyRuns`.
    """
    return _in_process_client(open_adapter(settings, database, handlers))


def open_adapter(
    settings: Settings, database: str, handlers: Mapping[str, Callable[..., Any]] | None = None
) -> Any:
    """What Tiled serves of a database: see `open_db`."""
    from databroker.mongo_normalized import MongoAdapter, discover_handlers

    from bluesky_plugins.recording.cameras import CAMERA_SPEC, CameraHandler, kept_inside_root

    return MongoAdapter.from_uri(
        _with_database(settings.mongo.address, settings.database(database)),
        handler_registry={**discover_handlers(), CAMERA_SPEC: CameraHandler, **(handlers or {})},
        transforms={"resource": kept_inside_root},
        # A run that was looked at while it went on must not look unfinished afterwards.
        cache_ttl_partial=0,
    )


def _in_process_client(adapter: Any) -> Any:
    with warnings.catch_warnings():
        # starlette's word to tiled about the name of its HTTP client.
        warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")
        from tiled.client import Context, from_context
        from tiled.server.app import build_app

        # It tells its version to everyone who reads a run.
        logging.getLogger("tiled.server.app").setLevel(logging.WARNING)
        return from_context(Context.from_app(build_app(adapter)))


class RunWatch:
    """Remembers which runs have ended: `RE.subscribe(watch)`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended: dict[str, None] = {}

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take note of a stop document."""
        if name == "stop":
            with self._lock:
                self._ended[doc["run_start"]] = None

    def take(self) -> list[str]:
        """The uids of the runs that ended since the last call, in that order."""
        with self._lock:
            ended, self._ended = list(self._ended), {}
            return ended


class Catalog:
    """`db`: databroker's client, opened at its first use.

    Whatever is asked of it right after `RE(...)` first waits, at most
    `settings.recording.db_wait_seconds`, until the stop documents of the runs that `watch` saw
    ending are stored, and says so. When that time is over, it says so and answers with what there
    is; it does not wait for these runs again.

    :param watch: subscribed to the RunEngine; None never waits.
    :param tell: takes the lines for a person.
    """

    def __init__(
        self,
        settings: Settings,
        watch: RunWatch | None = None,
        *,
        tell: Callable[[str], None] = log.info,
    ) -> None:
        self._settings = settings
        self._watch = watch
        self._tell = tell
        self._opening = threading.Lock()
        self._client: Any = None
        self._adapter: Any = None

    def wait(self) -> set[str]:
        """Wait for the runs that ended.

        :returns: the uids of those that are not stored even now.
        """
        ended = self._watch.take() if self._watch is not None else []
        if not ended:
            return set()
        seconds = self._settings.recording.db_wait_seconds
        with StoredRuns(self._settings) as runs:
            left = runs.wait_for_stops(ended, seconds, self._tell)
        if left:
            shown = ", ".join(sorted(uid[:8] for uid in left))
            self._tell(f"not stored within {seconds:g} s: run {shown}; is the recorder running?")
        return left

    def close(self) -> None:
        """Let go of the connections; it opens again when it is used again."""
        with self._opening:
            if self._client is not None:
                self._client.context.close()
                self._adapter.database.client.close()
            self._client = self._adapter = None

    def __getitem__(self, key: Any) -> Any:
        return self._ready()[key]

    def __getattr__(self, name: str) -> Any:
        # Looked for by copying, pickling and IPython's display, and by bluesky and queueserver
        # when they look for devices; none of these asks for data.
        if name.startswith("_") or name in OF_DEVICES:
            raise AttributeError(name)
        return getattr(self._ready(), name)

    def __len__(self) -> int:
        return len(self._ready())

    def __iter__(self) -> Iterator[str]:
        return iter(self._ready())

    def __contains__(self, key: object) -> bool:
        return key in self._ready()

    def __dir__(self) -> list[str]:
        # Completion at the prompt must neither wait nor connect.
        return sorted({*super().__dir__(), *(dir(self._client) if self._client else ())})

    def __repr__(self) -> str:
        if self._client is None:
            return f"<Catalog of {self._settings.beamline}, not opened yet>"
        return repr(self._ready())

    def _ready(self) -> Any:
        self.wait()
        with self._opening:
            if self._client is None:
                self._adapter = open_adapter(self._settings, "documents")
                self._client = _in_process_client(self._adapter)
            return self._client


def _with_database(uri: str, database: str) -> str:
    """The URI with the database that a client opens by default."""
    parts = urlsplit(uri)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if "@" in parts.netloc and "authSource" not in query:
        # Where the user is known does not change with the database.
        query["authSource"] = parts.path.strip("/") or "admin"
    return urlunsplit((parts.scheme, parts.netloc, f"/{database}", urlencode(query), ""))
