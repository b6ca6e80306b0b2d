"""`python -m bluesky_plugins.profile.queue_http`: the queue's HTTP server.

bluesky-httpserver with the key of the stack, the old routes, and a door that refuses numbers
which are not finite; those would end in an error 500.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import uvicorn
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bluesky_plugins.profile.queue_files import control_address, info_address
from bluesky_plugins.profile.queue_points import RefusedBodyError, check_body
from bluesky_plugins.settings import ConfigurationError, Settings, load_settings

__all__ = ["FiniteDoor", "main", "server_environment"]

MAX_BODY = 16 * 2**20
GRACE_SECONDS = 2


class FiniteDoor:
    """Answers 422 with the reason where `check_body` refuses, 413 where a body has no end."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http" or scope["method"] not in ("POST", "PUT"):
            await self._app(scope, receive, send)
            return
        body = await _body(receive)
        if body is None:
            await JSONResponse({"detail": "the body is too large"}, 413)(scope, receive, send)
            return
        try:
            if b"multipart/form-data" not in dict(scope["headers"]).get(b"content-type", b""):
                check_body(body)
        except RefusedBodyError as error:
            await JSONResponse({"detail": str(error)}, 422)(scope, receive, send)
            return
        await self._app(scope, _replayed(body, receive), send)


async def _body(receive: Receive) -> bytes | None:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY:
            return None
        if not message.get("more_body"):
            return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def server_environment(settings: Settings) -> dict[str, str]:
    """What bluesky-httpserver reads from its environment.

    :raises ConfigurationError: without a key, or with one that it would not take.
    """
    key = settings.http.key()
    if key is None:
        raise ConfigurationError("the queue's HTTP server needs http.api_key or http.api_key_file")
    if not (key.isascii() and key.isalnum()):
        raise ConfigurationError("the HTTP key may have letters and digits only")
    return {
        "QSERVER_HTTP_SERVER_SINGLE_USER_API_KEY": key,
        "QSERVER_HTTP_CUSTOM_ROUTERS": "bluesky_plugins.profile.queue_routes.router",
        "QSERVER_ZMQ_CONTROL_ADDRESS": control_address(settings),
        "QSERVER_ZMQ_INFO_ADDRESS": info_address(settings),
    }


def _application() -> Any:
    from bluesky_httpserver.app import build_app
    from bluesky_httpserver.config import construct_build_app_kwargs

    app = build_app(**construct_build_app_kwargs({}))
    app.add_middleware(FiniteDoor)
    return app


def main() -> int:
    """Serve until SIGTERM; the exit status."""
    try:
        settings = load_settings()
        os.environ.update(server_environment(settings))
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    # uvicorn raises the signal again once it has ended in good order.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    server = uvicorn.Server(_uvicorn_config(settings))
    server.run()
    return 0 if server.started else 1


def _uvicorn_config(settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        _application(),
        host=settings.http.host,
        port=settings.http.queueserver_port,
        log_level="warning",
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


if __name__ == "__main__":
    sys.exit(main())
