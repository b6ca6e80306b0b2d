"""Plans that ask a recommender for each next point.

Annotations are evaluated here: the queueserver reads them as text, and quoted ones are no types.
"""

from collections.abc import Callable, Generator, Mapping
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
from bluesky.utils import Msg, RunEngineControlException

from bluesky_plugins.adaptive import BatchMode
from bluesky_plugins.plans.batch import Batch, BatchPlan, End, Start
from bluesky_plugins.plans.defaults import default_callback, default_channel
from bluesky_plugins.plans.waiting import Plan

__all__ = ["TakeReadingError", "adaptive_plan", "adaptive_scan"]


class TakeReadingError(RuntimeError):
    """`take_reading` did not make exactly one run, or one event, for a point."""


def adaptive_plan(
    dets: Any,
    first_point: Any,
    *,
    to_recommender: Any = None,
    from_recommender: Any = None,
    md: Any = None,
    take_reading: Any = None,
    recommender: Any = None,
    bounds: Any = None,
    timeout: float = 60.0,
    on_timeout: str = "fail",
    resume: Any = None,
) -> Plan[list[str]]:
    """Measure where a recommender says: one run for each point.

    :param dets: detectors to read.
    :param first_point: motor -> position of the first point, in the motor's units.
    :param to_recommender: callback that gets the documents of this plan's runs; None means
        the `adaptive` topic of the settings' Kafka.
    :param from_recommender: a channel of suggestions, or a queue with `get(timeout=)` of dicts
        and None; None means the `suggestions` topic.
    :param md: metadata for each run; may name `batch_id`.
    :param take_reading: plan `f(devices, md=)` that makes exactly one run; None is `count`.
    :param recommender: who shall recommend: a registered name, or a dict with name and any of
        parameters, max_count, independent_keys, dependent_keys; None leaves it to the service.
    :param bounds: motor or its name -> (low, high), both included, in the motor's units.
    :param timeout: s without an answer or news of one; paused time does not count.
    :param on_timeout: "fail", "stop" (end cleanly) or "pause" (`RE.resume()` waits again).
    :param resume: batch_id of a batch whose plan died: go on where it was.
    :return: uids of the runs.
    :raises AdaptiveTimeout: no answer in time, with on_timeout "fail".
    :raises ValueError: for a first point or bounds that cannot be; nothing was opened.
    """
    batch = Batch(
        mode=BatchMode.RUN,
        dets=list(dets),
        first_point=first_point,
        to_recommender=default_callback() if to_recommender is None else to_recommender,
        from_recommender=default_channel() if from_recommender is None else from_recommender,
        md=md,
        recommender=recommender,
        bounds=bounds,
        timeout=timeout,
        on_timeout=on_timeout,
        resume=resume,
    )
    return (yield from batch.run(_RunPerPoint(take_reading or bp.count)))


def adaptive_scan(
    dets: Any,
    first_point: Any,
    *,
    to_recommender: Any = None,
    from_recommender: Any = None,
    md: Any = None,
    take_reading: Any = None,
    recommender: Any = None,
    bounds: Any = None,
    timeout: float = 60.0,
    on_timeout: str = "fail",
    resume: Any = None,
) -> Plan[list[str]]:
    """Measure where a recommender says: one run, one event for each point.

    As `adaptive_plan`, but for:

    :param take_reading: plan `f(devices)` that makes exactly one event in the stream
        `primary`; None is `trigger_and_read`.
    :return: list with the uid of the run; its stop document says why it ended.
    """
    batch = Batch(
        mode=BatchMode.EVENT,
        dets=list(dets),
        first_point=first_point,
        to_recommender=default_callback() if to_recommender is None else to_recommender,
        from_recommender=default_channel() if from_recommender is None else from_recommender,
        md=md,
        recommender=recommender,
        bounds=bounds,
        timeout=timeout,
        on_timeout=on_timeout,
        resume=resume,
    )
    return (yield from batch.run(_EventPerPoint(take_reading or bps.trigger_and_read)))


class _RunPerPoint:
    """Measures a batch with one run for each point."""

    def __init__(self, take_reading: Callable[..., Any]) -> None:
        self._take_reading = take_reading

    def __call__(self, plan: BatchPlan, start: Start) -> Plan[End]:
        point, count = start.point, start.count
        while True:
            yield from plan.batch.motors.move(point)
            yield from plan.prepare()
            yield from self._measure(plan.batch, count)
            answer = yield from plan.next_point(count)
            if isinstance(answer, End):
                return answer
            point, count = answer, count + 1

    def _measure(self, batch: Batch, count: int) -> Plan[None]:
        md = batch.start_md(count)
        opened = 0

        def watch(msg: Msg) -> Msg:
            nonlocal opened
            if msg.command != "open_run":
                return msg
            opened += 1
            if opened > 1:
                raise TakeReadingError(f"take_reading opened a second run for count {count}")
            # A reading that forgets its metadata would never be answered.
            return msg._replace(kwargs={**msg.kwargs, **md})

        yield from bpp.msg_mutator(self._take_reading(batch.devices, md=md), watch)
        if not opened:
            raise TakeReadingError(f"take_reading opened no run for count {count}")


class _EventPerPoint:
    """Measures a batch with one event for each point of one run."""

    def __init__(self, take_reading: Callable[..., Any]) -> None:
        self._take_reading = take_reading

    def __call__(self, plan: BatchPlan, start: Start) -> Plan[End]:
        run = self._run(plan, start)
        end: End = yield from bpp.stage_wrapper(run, plan.batch.devices)
        return end

    def _run(self, plan: BatchPlan, start: Start) -> Plan[End]:
        yield from bps.open_run(_with_dimensions(plan.batch, start.count))
        end: End = yield from bpp.contingency_wrapper(
            self._points(plan, start), except_plan=_close_failed
        )
        yield from bps.close_run(exit_status="success", reason=end.reason)
        return end

    def _points(self, plan: BatchPlan, start: Start) -> Plan[End]:
        point, count = start.point, start.count
        while True:
            yield from bps.checkpoint()
            yield from plan.batch.motors.move(point)
            yield from plan.prepare()
            yield from self._measure(plan.batch, count)
            answer = yield from plan.next_point(count)
            if isinstance(answer, End):
                return answer
            point, count = answer, count + 1

    def _measure(self, batch: Batch, count: int) -> Plan[None]:
        events = 0
        stream = ""

        def watch(msg: Msg) -> Msg:
            nonlocal events, stream
            if msg.command == "create":
                stream = msg.kwargs.get("name", "primary")
            elif msg.command == "save":
                events += stream == "primary"
            elif msg.command in ("open_run", "close_run"):
                raise TakeReadingError(f"take_reading opened or closed a run at count {count}")
            return msg

        yield from bpp.msg_mutator(self._take_reading(batch.devices), watch)
        if events != 1:
            raise TakeReadingError(
                f"take_reading made {events} events in stream primary at count {count}, not 1"
            )


def _close_failed(error: Exception) -> Generator[Msg, Any, None]:
    if isinstance(error, RunEngineControlException):
        yield from bps.close_run(exit_status=error.exit_status, reason=str(error) or "aborted")
    else:
        yield from bps.close_run(exit_status="fail", reason=str(error) or type(error).__name__)


def _with_dimensions(batch: Batch, count: int) -> Mapping[str, Any]:
    md = batch.start_md(count)
    names = batch.motors.names
    hints = {"dimensions": [([name], "primary") for name in names], **md.get("hints", {})}
    about = {"plan_name": "adaptive_scan", "motors": names}
    about["detectors"] = [det.name for det in batch.dets]
    return {**about, **md, "hints": hints}
