"""The HTTP API of the recommender: what its batches do, and what people want of them."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response, Security
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyHeader
from pydantic import BaseModel, ConfigDict, Field
from pymongo.errors import PyMongoError

from bluesky_plugins.adaptive.http_jobs import add_jobs
from bluesky_plugins.adaptive.metrics import Metrics
from bluesky_plugins.adaptive.model import Command, CommandKind
from bluesky_plugins.adaptive.store import BatchStore
from bluesky_plugins.adaptive.views import list_batches, show_batch
from bluesky_plugins.messaging import MessagingError, Producer
from bluesky_plugins.processing import Processor
from bluesky_plugins.settings import ConfigurationError, Settings

__all__ = ["Door", "HttpDoor", "make_app"]

SEND_SECONDS = 5.0
_header = APIKeyHeader(
    name="Authorization", auto_error=False, description="`ApiKey <key>`", scheme_name="ApiKey"
)


class Asked(BaseModel):
    """Why, and who asks; both may be left out."""

    model_config = ConfigDict(extra="forbid")
    reason: str = Field("", max_length=1000, description="why, for the batch's story")
    by: str = Field("", max_length=200, description="who asks, for the batch's story")


class Accepted(BaseModel):
    """The command is in the batch's log."""

    batch_id: str
    command: CommandKind
    uid: str = Field(description="of the entry in the log")


class Page(BaseModel):
    """One page of batches, newest first."""

    total: int = Field(description="batches on all pages")
    batches: list[dict[str, Any]]


class Door:
    """What the routes work with."""

    def __init__(
        self,
        settings: Settings,
        store: BatchStore,
        producer: Producer,
        metrics: Metrics,
        health: Callable[[], Mapping[str, Any]],
        *,
        processor: Processor | None = None,
    ) -> None:
        self.settings = settings
        self.processor = processor
        self.store = store
        self.producer = producer
        self.metrics = metrics
        self.health = health
        self.key = settings.http.key()

    def check_key(self, given: str | None) -> None:
        """Let those in who have the key.

        :raises fastapi.HTTPException: 401 for all others.
        """
        if self.key is None:
            return
        expected = f"ApiKey {self.key}".encode()
        if not secrets.compare_digest((given or "").encode(), expected):
            raise HTTPException(401, "a key is needed: `Authorization: ApiKey <key>`")

    def send(self, batch_id: str, kind: CommandKind, asked: Asked) -> Accepted:
        """Put a command into the log of a batch.

        :raises fastapi.HTTPException: 404 if there is no such batch, 409 if it has ended,
            503 if Kafka does not take it.
        """
        record = self.store.batch(batch_id)
        if record is None:
            raise HTTPException(404, f"there is no batch {batch_id}")
        if record["state"] == "ended":
            raise HTTPException(409, f"batch {batch_id} has ended: {record['outcome']}")
        command = Command(
            uid=str(uuid.uuid4()),
            batch_id=batch_id,
            command=kind,
            time=time.time(),
            by=asked.by,
            reason=asked.reason,
        )
        doc = command.model_dump(mode="json")
        topic = self.settings.topic("adaptive")
        try:
            self.producer.deliver([(topic, batch_id, "command", doc)], SEND_SECONDS)
        except MessagingError as error:
            raise HTTPException(503, f"Kafka does not take the command: {error}") from None
        return Accepted(batch_id=batch_id, command=kind, uid=command.uid)


def _door_of(request: Request) -> Door:
    door: Door = request.app.state.door
    return door


def _authorized(
    door: Annotated[Door, Depends(_door_of)], given: Annotated[str | None, Security(_header)]
) -> Door:
    door.check_key(given)
    return door


Authorized = Annotated[Door, Depends(_authorized)]


def _processor(door: Authorized) -> Processor:
    if door.processor is None:
        raise HTTPException(404, "nothing is processed here")
    return door.processor


def _batches(door: Authorized) -> BatchStore:
    return door.store


def make_app() -> FastAPI:
    """The API; `app.state.door` is what it works with."""
    app = FastAPI(
        title="bluesky-plugins recommender",
        version="1",
        description="Adaptive batches: what they did and why; pause, resume and stop them.",
        docs_url=None,
        redoc_url=None,
    )
    _add_views(app)
    _add_commands(app)
    add_jobs(app, _processor, _batches)
    _add_operation(app)
    app.add_exception_handler(PyMongoError, _no_mongo)
    return app


def _no_mongo(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": f"MongoDB does not answer: {error}"}, 503)


def _add_views(app: FastAPI) -> None:
    @app.get("/api/batches", summary="Batches, newest first")
    def batches(
        door: Authorized,
        state: Literal["open", "silent", "ended"] | None = None,
        recommender: str | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 50,
        skip: Annotated[int, Query(ge=0, le=10**9)] = 0,
    ) -> Page:
        found = list_batches(
            door.store,
            state=state,
            recommender=recommender,
            limit=limit,
            skip=skip,
            silent_after=door.settings.adaptive.silent_after_seconds,
        )
        return Page.model_validate(found)

    @app.get("/api/batches/{batch_id:path}", summary="A batch: suggestions, log and story")
    def batch(door: Authorized, batch_id: str) -> Response:
        found = show_batch(
            door.store, batch_id, silent_after=door.settings.adaptive.silent_after_seconds
        )
        if found is None:
            raise HTTPException(404, f"there is no batch {batch_id}")
        return Response(_json(found), media_type="application/json")


def _json(found: Mapping[str, Any]) -> bytes:
    """JSON that says NaN and infinities as strings: a point may be anything."""
    return (
        _AnyJson.model_validate({"value": found}).model_dump_json(include={"value"}).encode()[9:-1]
    )


class _AnyJson(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="strings", ser_json_bytes="base64")
    value: Any


def _add_commands(app: FastAPI) -> None:
    @app.post(
        "/api/batches/{batch_id:path}/pause", status_code=202, summary="Pause at the next answer"
    )
    def pause(door: Authorized, batch_id: str, asked: Asked | None = None) -> Accepted:
        return door.send(batch_id, CommandKind.PAUSE, asked or Asked())

    @app.post("/api/batches/{batch_id:path}/resume", status_code=202, summary="Go on after a pause")
    def resume(door: Authorized, batch_id: str, asked: Asked | None = None) -> Accepted:
        return door.send(batch_id, CommandKind.RESUME, asked or Asked())

    @app.post(
        "/api/batches/{batch_id:path}/stop", status_code=202, summary="Stop at the next answer"
    )
    def stop(door: Authorized, batch_id: str, asked: Asked | None = None) -> Accepted:
        return door.send(batch_id, CommandKind.STOP, asked or Asked())


def _add_operation(app: FastAPI) -> None:
    @app.get(
        "/healthz",
        summary="Whether the service works, `ok`, and whether its loop turns, `alive`; no key",
    )
    def healthz(door: Annotated[Door, Depends(_door_of)]) -> JSONResponse:
        health = dict(door.health())
        well = all(health[part] for part in ("kafka", "mongo", "ready", "alive"))
        return JSONResponse({"ok": well, **health}, 200 if well else 503)

    @app.get("/metrics", summary="Prometheus metrics")
    def metrics(door: Authorized) -> Response:
        if (processor := door.processor) is not None:
            door.metrics.processing(processor.jobs(), len(processor.trouble), processor.tally)
        return Response(door.metrics.text(), media_type="text/plain; version=0.0.4")


class HttpDoor:
    """Serves the API from a thread.

    :raises ConfigurationError: if the address is not loopback and there is no key.
    """

    def __init__(
        self,
        settings: Settings,
        store: BatchStore,
        producer: Producer,
        metrics: Metrics,
        health: Callable[[], Mapping[str, Any]],
        *,
        processor: Processor | None = None,
    ) -> None:
        self._settings = settings
        door = Door(settings, store, producer, metrics, health, processor=processor)
        host = settings.http.host
        if door.key is None and not _is_loopback(host):
            raise ConfigurationError(
                f"http.host {host} is not this machine alone: set http.api_key or http.api_key_file"
            )
        app = make_app()
        app.state.door = door
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None
        self.address: tuple[str, int] | None = None

    def start(self) -> None:
        """Bind and serve.

        :raises ConfigurationError: if the address cannot be bound.
        """
        host, port = self._settings.http.host, self._settings.http.recommender_port
        try:
            bound = _bound(host, port)
        except OSError as error:
            raise ConfigurationError(
                f"http.host {host}, http.recommender_port {port}: {error.strerror}"
            ) from None
        self.address = bound.getsockname()[:2]
        self._thread = threading.Thread(
            target=self._server.run, args=([bound],), name="http", daemon=True
        )
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Stop serving; waits up to `timeout` s."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(timeout)


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(100)
    except OSError:
        bound.close()
        raise
    return bound


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
