"""The processor: reads what is over, has it processed, publishes what comes of it.

Two threads. One reads Kafka, evaluates recipes and stores jobs; offsets move on when that is
stored. The other runs the loop that drives the jobs. Neither is waited for by anyone.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from bluesky_plugins.messaging import BrokerUnreachable, MessagingError, Producer, make_topics
from bluesky_plugins.processing.jobs.job import JobRecord
from bluesky_plugins.processing.jobs.machine import Rules
from bluesky_plugins.processing.model import Login
from bluesky_plugins.processing.recipes.placing import Target
from bluesky_plugins.processing.recipes.recipe import Recipe, RecipeError, read_recipes
from bluesky_plugins.processing.service.acceptance import Acceptance, RunSource
from bluesky_plugins.processing.service.driver import Driver, Pace
from bluesky_plugins.processing.service.postman import Postman
from bluesky_plugins.processing.service.reading import Reader
from bluesky_plugins.processing.service.results import wanted_recipes
from bluesky_plugins.processing.service.store import JobStore, MongoJobStore, StoreDownError
from bluesky_plugins.processing.service.tally import Tally
from bluesky_plugins.processing.targets.logins import LoginOf, LoginScheduler
from bluesky_plugins.processing.targets.named import Site, sites_of
from bluesky_plugins.processing.targets.ports import Fault, Scheduler, TransportError
from bluesky_plugins.settings import ConfigurationError, Settings

__all__ = ["Processor", "recipes_of", "rules_of"]

log = structlog.get_logger(__name__)

RETRY_S = 0.5
# After a failure that nobody foresaw everything is taken up anew.
AGAIN_S = 5.0
STOP_S = 2.0
REACH_S = 10.0
LOGS_S = 20.0


def recipes_of(settings: Settings) -> tuple[Recipe, ...]:
    """The recipes of the file that the settings name.

    :raises ConfigurationError: if it cannot be read, or a recipe in it cannot be used.
    """
    path = settings.processing.recipes
    if path is None:
        return ()
    try:
        return read_recipes(path.read_text())
    except OSError as error:
        raise ConfigurationError(f"processing.recipes {path}: {error.strerror}") from None
    except (RecipeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"processing.recipes {path}: {error}") from None


def rules_of(settings: Settings) -> Rules:
    """The deadlines of the settings."""
    processing = settings.processing
    return Rules(
        submit_s=processing.submit_seconds,
        doubt_s=processing.doubt_seconds,
        search_s=min(Rules().search_s, processing.doubt_seconds / 2.0),
        heartbeat_s=processing.heartbeat_seconds,
        gone_s=processing.gone_seconds,
    )


class Processor:
    """Processing of runs, in threads of a process that does something else as well.

    :param runs: recorded runs.
    :param sites: the targets; those of the settings unless given.
    :raises ConfigurationError: if the recipes or the targets cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        runs: RunSource,
        *,
        store: JobStore | None = None,
        sites: dict[str, Site] | None = None,
    ) -> None:
        self.settings = settings
        self.recipes = recipes_of(settings)
        self.sites = sites_of(settings) if sites is None else sites
        rules = rules_of(settings)
        self.store = store or MongoJobStore.from_settings(settings, rules=rules)
        self._rules = rules
        self._runs = runs
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_loop: asyncio.Event | None = None
        self._driver: Driver | None = None
        self._schedulers: dict[str, Scheduler] = {}
        # Jobs whose logs are being asked for, which somebody else may drive.
        self._looked_at: dict[str, JobRecord] = {}
        self._threads: list[threading.Thread] = []
        self._failures: dict[str, str] = {}

    # ---- from outside

    def start(self) -> None:
        """Begin; returns at once."""
        self._producer = Producer(
            self.settings,
            client_id=f"processing-{self.settings.adaptive.instance}",
            spool=False,
        )
        for name, work in (("processing", self._drive), ("processing-reader", self._read)):
            thread = threading.Thread(
                target=self._keep_on, args=(name, work), name=name, daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def stop(self, timeout: float = STOP_S) -> None:
        """End; jobs go on without us. Waits up to `timeout` s."""
        self._stopping.set()
        self._in_loop(lambda: self._stop_loop.set() if self._stop_loop else None)
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._producer.close(0.5)
        self.store.close()

    @property
    def ready(self) -> bool:
        """Whether it reads what is over."""
        return self._ready.is_set()

    def wait_ready(self, timeout: float) -> bool:
        """Wait until it reads what is over."""
        return self._ready.wait(timeout)

    @property
    def trouble(self) -> dict[str, str]:
        """Who does not answer -> why; what failed that nobody foresaw."""
        driver = self._driver
        return {**(dict(driver.trouble) if driver else {}), **self._failures}

    def jobs(self) -> dict[tuple[str, str], int]:
        """(target, state) -> number of the jobs that are looked after here."""
        driver = self._driver
        live = driver.jobs if driver is not None else []
        return dict(Counter((job.place.target, job.state.value) for job in live))

    @property
    def tally(self) -> Tally:
        """What has happened to jobs since it began to drive them."""
        return self._driver.tally if self._driver is not None else Tally()

    def health(self) -> dict[str, Any]:
        """Whether it reads what is over, whether it drives the jobs, and who does not answer."""
        driver = self._driver
        return {
            "ready": self.ready,
            "leads": driver is not None and driver.leads,
            "jobs": dict(Counter(job.state.value for job in (driver.jobs if driver else ()))),
            "trouble": self.trouble,
        }

    def progress(self, run: str, batch_count: int, recipe: str) -> str | None:
        """Where the job of a recipe for a run, or an event of it, is; for people.

        It asks no server. None where another instance drives the jobs.
        """
        driver = self._driver
        if driver is None or not driver.leads:
            return None
        for job in driver.jobs:
            subject = job.subject
            if (subject.run, subject.batch_count, job.recipe) == (run, batch_count, recipe):
                said = f": {job.reason}" if job.reason else ""
                now = f"ended as {job.state.value}" if job.state.final else f"is {job.state.value}"
                return f"job {job.key[:16]} {now} on {job.place.target}{said}"
        return "no job yet"

    def logs(self, key: str, limit: int = 16_384) -> tuple[str, str]:
        """The ends of stdout and stderr of a job's newest attempt.

        :raises KeyError: if there is no such job.
        :raises TransportError: if its target was not reached.
        """
        job = self.store.job(key)
        if job is None:
            raise KeyError(key)
        record = job.attempt.record or job.attempt.late_record
        if record is not None:
            return record.stdout[-limit:], record.stderr[-limit:]
        scheduler = self._schedulers.get(job.place.target)
        if scheduler is None or job.attempt.submissions == 0:
            return "", ""
        self._looked_at[job.key] = job
        try:
            asked = scheduler.logs(job.key, job.attempt.number, limit)
            out, err = self._on_loop(asked, LOGS_S)
        finally:
            self._looked_at.pop(job.key, None)
        return str(out), str(err)

    # ---- threads

    def _keep_on(self, name: str, work: Callable[[], None]) -> None:
        """Work until the end; what nobody foresaw is said, shown, and begun anew."""
        while not self._stopping.is_set():
            try:
                work()
            except MessagingError as error:
                log.error("Kafka refuses processing", thread=name, reason=str(error))
                self._failures[name] = str(error)
                self._stopping.wait(AGAIN_S)
            except Exception as error:
                log.exception("processing begins anew", thread=name)
                self._failures[name] = repr(error)
                self._stopping.wait(AGAIN_S)

    def _drive(self) -> None:
        if not self._until_stored():
            return
        asyncio.run(self._drive_on_loop())

    def _until_stored(self) -> bool:
        """Wait for the store; False when stopped meanwhile."""
        while not self._stopping.is_set():
            try:
                self.store.prepare()
            except StoreDownError as error:
                self._failures["store"] = str(error)
                self._stopping.wait(RETRY_S)
            else:
                self._failures.pop("store", None)
                return True
        return False

    async def _drive_on_loop(self) -> None:
        processing = self.settings.processing
        self._stop_loop = stop = asyncio.Event()
        schedulers = {name: site.open(self._logins_on(name)) for name, site in self.sites.items()}
        self._schedulers = schedulers
        driver = Driver(
            self.store,
            schedulers,
            Postman(self._producer, self.settings.topic),
            owner=f"{processing.group_id}-{self.settings.adaptive.instance}",
            limits={line: n for site in self.sites.values() for line, n in site.limits.items()},
            rules=self._rules,
            pace=Pace(poll_s=processing.poll_seconds, lease_s=processing.lease_seconds),
        )
        self._driver, self._loop = driver, asyncio.get_running_loop()
        try:
            if not self._stopping.is_set():
                self._failures.pop("processing", None)
                await driver.run(stop)
        finally:
            self._loop = None

    def _read(self) -> None:
        if not self._topics_made():
            return
        acceptance = Acceptance(
            self.store,
            self.recipes,
            {name: (site.kind, site.target) for name, site in self.sites.items()},
            placed=lambda name, paths: self.sites[name].target_for(paths),
            reachable=self._why_unreachable,
            alert=self._alert,
            tell=self._send,
            wanted=wanted_recipes(self.settings.adaptive.dependent_keys),
        )
        reader = Reader(
            self.settings,
            acceptance,
            self._runs,
            mail=self._producer,
            taken=self._wake,
            ready=self._is_ready,
        )
        reader.run(self._stopping)

    def _topics_made(self) -> bool:
        while not self._stopping.is_set():
            try:
                make_topics(self.settings, REACH_S)
                return True
            except BrokerUnreachable:
                self._stopping.wait(RETRY_S)
        return False

    def _is_ready(self) -> None:
        self._failures.pop("processing-reader", None)
        self._ready.set()

    # ---- between the threads

    def _wake(self) -> None:
        self._in_loop(lambda: self._driver.wake() if self._driver else None)

    def _in_loop(self, act: Callable[[], None]) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(act)

    def _on_loop(self, work: Any, timeout: float) -> Any:
        loop = self._loop
        if loop is None:
            work.close()
            raise TransportError("processing is not up", doubtful=False, fault=Fault.SCHEDULER)
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, timeout), loop).result(
            timeout + 1.0
        )

    def _logins_on(self, target: str) -> LoginOf:
        """What tells the account of a job on a target."""

        def login_of(key: str) -> Login | None:
            job = self._driver.job(key) if self._driver else None
            job = job or self._looked_at.get(key)
            places = job.places if job else ()
            return next((place.login for place in places if place.target == target), None)

        return login_of

    def _why_unreachable(self, target: Target) -> str | None:
        scheduler = self._schedulers.get(target.name)
        if scheduler is None:
            return "processing is not up yet"
        try:
            self._on_loop(_asked_once(scheduler, target), REACH_S)
        except TransportError as error:
            return error.reason
        except TimeoutError:
            return f"no answer for {REACH_S:g} s"
        return None

    def _send(self, message: tuple[str, str, str, dict[str, Any]]) -> None:
        short, key, name, doc = message
        self._producer.send(self.settings.topic(short), key, name, doc)

    def _alert(self, message: tuple[str, str, str, dict[str, Any]]) -> None:
        self._send(message)
        doc = message[3]
        log.warning("an alert", run=doc["run"], recipe=doc["recipe"], reason=doc["reason"])


def _asked_once(scheduler: Scheduler, target: Target) -> Coroutine[Any, Any, Any]:
    """The shortest question to a target, as whom its jobs are submitted."""
    if isinstance(scheduler, LoginScheduler) and target.login is not None:
        return scheduler.reach(target.login)
    return scheduler.find([])
