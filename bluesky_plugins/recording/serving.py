"""`python -m bluesky_plugins.recording.serving`: the databroker server, recorded runs over HTTP.

A Tiled server on the same adapter that `db` reads with. A client needs the key:
`tiled.client.from_uri("http://HOST:PORT", api_key=KEY)[-1].primary.read()`.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from bluesky_plugins.recording.reading import open_adapter
from bluesky_plugins.settings import ConfigurationError, Settings, load_settings

__all__ = ["make_app", "serve", "served_key"]

PORT = 60641


def served_key(settings: Settings) -> str:
    """The key that clients must have.

    :raises ConfigurationError: there is none, or one that Tiled does not take.
    """
    key = settings.http.key()
    if key is None or not key.isalnum():
        raise ConfigurationError(
            "http.api_key, or the file that http.api_key_file names, must hold a key of letters "
            "and digits: without one nobody could be let in"
        )
    return key


def make_app(adapter: Any, key: str) -> Any:
    """The server as an ASGI application; MongoDB is asked at the first request.

    :param adapter: what is served: see `open_adapter`.
    :param key: lets a client in.
    """
    with warnings.catch_warnings():
        # starlette's word to tiled about the name of its HTTP client.
        warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")
        from tiled.config import Authentication
        from tiled.server.app import build_app

        # It tells its version to everyone who reads a run.
        logging.getLogger("tiled.server.app").setLevel(logging.WARNING)
        return build_app(
            adapter,
            authentication=Authentication(single_user_api_key=key, allow_anonymous_access=False),
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bluesky_plugins.recording.serving")
    parser.add_argument("--config", help="settings file (YAML)")
    parser.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    parser.add_argument("--port", type=int, default=PORT, help="port (default: %(default)s)")
    parser.add_argument(
        "--database",
        choices=("documents", "analysis"),
        default="documents",
        help="measured runs, or analysis runs (default: %(default)s)",
    )
    return parser


def serve(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM.

    :returns: exit status: 0 done, 2 bad input. An address that is taken ends it with 1.
    """
    import uvicorn

    options = _parser().parse_args(arguments)
    try:
        settings = load_settings(options.config)
        key = served_key(settings)
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    app = make_app(open_adapter(settings, options.database), key)
    # Not the access log: a key may stand in an address, as `?api_key=...`.
    uvicorn.run(
        app,
        host=options.host,
        port=options.port,
        access_log=False,
        timeout_graceful_shutdown=3,
        proxy_headers=False,
    )
    return 0


if __name__ == "__main__":
    sys.exit(serve())
