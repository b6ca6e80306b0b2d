"""A job inside a plan: submitted, and waited for without stopping the RunEngine."""

import logging
import math
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bluesky_plugins.plans.waiting import News, Patience, Plan, wait_until

if TYPE_CHECKING:
    from bluesky_plugins.processing import Job, JobRecord, Trigger

__all__ = ["JobFailed", "trigger_and_wait"]

logger = logging.getLogger(__name__)

LOOK = 0.2  # s; how often the job is looked at


class JobFailed(RuntimeError):  # noqa: N818 - as the field says it
    """A job that a plan waited for did not succeed; the text says how it ended and why.

    `job` is its handle.
    """

    def __init__(self, text: str, job: Any) -> None:
        super().__init__(text)
        self.job = job


def trigger_and_wait(
    argv: Sequence[Any],
    *,
    method: str = "auto",
    timeout: float | None = 3600.0,
    check: bool = True,
    trigger: Any = None,
    **more: Any,
) -> Plan[Any]:
    """Plan stub: have a program carried out, and wait for its end.

    The RunEngine serves pauses, suspenders and aborts meanwhile. A job outlives a plan that is
    aborted. Not between `create` and `save`: the wait is made of checkpoints.

    :param argv: program and arguments, in any shape that `Trigger.run` takes.
    :param method: a `TriggerMethod`, or its value; "auto" is Slurm where it can be reached.
    :param timeout: s; None: as long as it takes. Paused time does not count.
    :param check: raise unless the job succeeded.
    :param trigger: a `Trigger` to use instead of one of this method.
    :param more: of `Trigger.run`: job_name, resources, result, reason.
    :return: the `Job`: a handle with `state`, `numbers`, `logs()`.
    :raises JobFailed: if it did not succeed; with the state and the reason.
    :raises bluesky_plugins.processing.JobTimeoutError: if it has not ended in time; it goes on.
    :raises bluesky_plugins.processing.ArgumentError: if `argv` cannot be given to a program.
    """
    from bluesky_plugins.processing import JobTimeoutError, Trigger, TriggerMethod, trigger_argv

    words = trigger_argv(argv)
    watch = _Watch(trigger or Trigger(TriggerMethod(method)), words, more)
    try:
        patience = Patience(math.inf if timeout is None else timeout)
        found: Plan[JobRecord | None] = wait_until(watch, watch.ended, patience)
        record = yield from found
    finally:
        watch.close()
    job = watch.job
    if record is None:
        raise JobTimeoutError(f"{watch.about} has not ended in {timeout:g} s; {watch.where}")
    if check and record.state != "succeeded":
        raise JobFailed(f"{watch.about} {record.state.value}: {record.reason}", job)
    return job


class _Watch(News):
    """A job and the thread that submits it and looks at it."""

    def __init__(self, trigger: "Trigger", words: Sequence[str], more: dict[str, Any]) -> None:
        super().__init__(f"no job for {words[0]}")
        self.job: Job | None = None
        self.where = "nobody has taken it: is the recommender up?"
        self._record: JobRecord | None = None
        self._trigger, self._words, self._more = trigger, words, more
        threading.Thread(target=self._run, name=f"job {words[0]}"[:40], daemon=True).start()

    @property
    def about(self) -> str:
        """The job, for people."""
        key = "" if self.job is None else f" {self.job.key[:16]}"
        return f"job{key} ({self._words[0]})"

    def ended(self) -> "JobRecord | None":
        """Its record, if it has ended."""
        record = self._record
        return record if record is not None and record.state.final else None

    def close(self) -> None:
        """Look at it no more."""
        with self.lock:
            self._closed = True
            self.lock.notify_all()
        self._tell()

    def _run(self) -> None:
        try:
            self.job = self._trigger.run(self._shape(), **self._more)
            while self.ended() is None and not self._closed:
                self._look()
                with self.lock:
                    self.lock.wait_for(lambda: self._closed, LOOK)
        except Exception as error:
            logger.debug("the job is looked at no more", exc_info=error)
            self._failure = error
        finally:
            self._tell()

    def _shape(self) -> list[Any]:
        """Words as they are: a single text would be split again."""
        return [self._words[0], list(self._words[1:])]

    def _look(self) -> None:
        from bluesky_plugins.processing import StoreDownError

        if self.job is None:
            return
        try:
            record = self.job.record
        except StoreDownError as error:
            self._say(f"the database does not answer: {error}")
            return
        if record is not None:
            self._say(f"it is {record.state.value} on {record.place.target}: {record.reason}")
            self._record = record
            if record.state.final:
                self._tell()

    def _say(self, where: str) -> None:
        if where != self.where:
            self.where = where
            logger.warning("%s: %s", self.about, where)
