"""Starting the stack, in its order, and taking it back when a part does not start."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bluesky_plugins.cli.stack_parts import (
    NAMES,
    SERVERS,
    data_versions,
    external_servers,
    part_addresses,
    port_wishes,
    server_parts,
    service_parts,
    stack_settings,
)
from bluesky_plugins.embedded import (
    DataFolderError,
    JarError,
    PartState,
    PortReservations,
    Stack,
    StackError,
    StackSpec,
    StateFolder,
    answers,
    choose_ports,
    lacking_jars,
    lacks_cache,
    tail,
)
from bluesky_plugins.settings import Settings, load_settings

__all__ = ["Starter"]

STACK_VERSION = 1
# The simulated hardware needs no server.
FIRST = (*SERVERS, "iocs")


@dataclass
class Starter:
    """Starts the stack of a folder.

    :ivar settings: what a person has set, without what a stack has written.
    :ivar say: takes a line of progress.
    """

    folder: StateFolder
    settings: Settings
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self.stack = Stack(self.folder, self.settings.embedded.stop_seconds)
        self._begun = time.monotonic()

    def start(self) -> bool:
        """Start what does not run, and wait until it answers.

        :returns: False when everything was running already.
        :raises StackError: when something does not start; what was started is stopped again.
        """
        self._check_externals()
        if self.stack.alive:
            return self._complete()
        self.folder.check(data_versions(), self.settings.embedded.minimum_free_mb)
        self.folder.make(data_versions())
        with self._taken_back():
            # Of a stack whose supervisor was killed.
            self.stack.stop()
            self._launch()
            self._bring_up({p for p in NAMES if p not in external_servers(self.settings)})
        return True

    def _complete(self) -> bool:
        missing = {n for n, r in self.stack.records().items() if r.state is not PartState.RUNNING}
        if missing:
            self._bring_up(missing)
        return bool(missing)

    def _check_externals(self) -> None:
        for name, (address, probe) in external_servers(self.settings).items():
            if not answers(probe, timeout=5.0):
                raise StackError(
                    f"{name} at {address} does not answer; it is set by hand (settings file or "
                    "environment), so that `up` does not start one: start it, or unset it"
                )
            self._tell(name, f"external, {address}")

    def _launch(self) -> None:
        reservations = PortReservations()
        try:
            ports = self._choose_ports(reservations)
            self._write_stack_file(ports)
            settings = load_settings()
            self._tell_of_first_time(settings)
            parts = [*self._servers(settings, ports), *service_parts(settings)]
            spec = StackSpec(
                root=self.folder.root,
                parts=tuple(parts),
                max_failures=settings.embedded.max_failures,
                stop_seconds=settings.embedded.stop_seconds,
            )
            self.stack.launch(spec, keep=reservations.descriptors)
        finally:
            reservations.close()

    def _tell_of_first_time(self, settings: Settings) -> None:
        """Say so before minutes, or half a minute, pass without a word."""
        folder = settings.embedded.jars_dir
        own = {"kafka", "mongo"} - set(external_servers(self.settings))
        kafka = lacking_jars("kafka", folder) if "kafka" in own else ()
        mongo = lacking_jars("mongo", folder) if "mongo" in own else ()
        lacking = len({*kafka, *mongo})
        if lacking:
            self.say(f"fetching {lacking} jars of the servers (about 50 MB, the first time only)")
        if "kafka" in own and lacks_cache(folder):
            self.say("making the cache of Kafka's JVM (about 10 s, the first time only)")

    def _choose_ports(self, reservations: PortReservations) -> dict[str, int]:
        try:
            remembered = self.folder.read(self.folder.ports_file) or {}
        except StackError:
            # Clients have to look up the addresses again, and nothing else is lost.
            remembered = {}
        known = {n: p for n, p in remembered.items() if isinstance(p, int)}
        ports = choose_ports(port_wishes(self.settings), known, reservations.take)
        self.folder.write(self.folder.ports_file, {**known, **ports})
        return ports

    def _write_stack_file(self, ports: Mapping[str, int]) -> None:
        content = {
            "version": STACK_VERSION,
            "settings": stack_settings(self.settings, ports, self.folder),
            "external": sorted(external_servers(self.settings)),
        }
        self.folder.write(self.folder.stack_file, content)

    def _servers(self, settings: Settings, ports: Mapping[str, int]) -> list[Any]:
        try:
            return server_parts(settings, ports, self.folder)
        except (DataFolderError, JarError) as error:
            raise StackError(str(error)) from None
        except OSError as error:
            raise StackError(f"{error.filename or self.folder.data}: {error.strerror}") from None

    def _bring_up(self, names: Collection[str]) -> None:
        first = [n for n in names if n in FIRST]
        self._start(first)
        self._make_topics()
        self._start([n for n in names if n not in FIRST])

    def _start(self, names: Collection[str]) -> None:
        if not names:
            return
        self.stack.start(names)
        settings = load_settings()
        addresses = part_addresses(settings)
        failed = self.stack.wait_ready(
            names,
            settings.embedded.ready_seconds,
            lambda name: self._tell(name, f"ready{_at(addresses[name])}"),
        )
        if failed:
            raise StackError("\n".join(self._explain(n, why) for n, why in sorted(failed.items())))

    def _make_topics(self) -> None:
        from bluesky_plugins.messaging import MessagingError, make_topics

        try:
            make_topics(load_settings())
        except MessagingError as error:
            raise StackError(f"the topics could not be made: {error}") from None

    def _explain(self, name: str, why: str) -> str:
        path = self.folder.log / f"{name}.log"
        last = "\n".join(f"  {line}" for line in tail(path)) or "  (it is empty)"
        return f"{name} {why}; {path} ends with:\n{last}"

    def _tell(self, name: str, what: str) -> None:
        self.say(f"{name:<12} {what}  ({time.monotonic() - self._begun:.1f} s)")

    @contextlib.contextmanager
    def _taken_back(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.say("stopping what was started")
            self.stack.stop()
            self.folder.stack_file.unlink(missing_ok=True)
            raise


def _at(address: str | None) -> str:
    return f", {address}" if address else ""
