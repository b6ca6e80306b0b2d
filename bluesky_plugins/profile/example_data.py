"""`python -m bluesky_plugins.profile.example_data`: a run of every common shape, to look at."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
from bluesky.utils import FailedStatus, RequestAbort, RunEngineInterrupted

from bluesky_plugins.settings import ConfigurationError, load_settings

__all__ = ["BrokenSampleError", "Ledger", "example_plans", "main"]

Plan = Iterator[Any]
HEADER = f"{'uid':<36}  {'shape':<13}  {'exit_status':<11}  events"


class BrokenSampleError(RuntimeError):
    """What the failed run fails of."""


@dataclass(eq=False)  # a callback is told apart by itself
class Ledger:
    """Takes documents; knows of each run its shape, how it ended and what it has."""

    rows: list[tuple[str, str, str, str]] = field(default_factory=list)
    _shapes: dict[str, str] = field(default_factory=dict)

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take a document of a run."""
        if name == "start":
            self._shapes[doc["uid"]] = doc.get("shape_of_run", doc.get("plan_name", ""))
        elif name == "stop":
            counts = doc.get("num_events", {})
            events = ", ".join(f"{stream} {count}" for stream, count in sorted(counts.items()))
            shape = self._shapes.pop(doc["run_start"], "")
            self.rows.append((doc["run_start"], shape, doc["exit_status"], events))


def example_plans(names: Mapping[str, Any]) -> dict[str, Callable[[], Plan]]:
    """A maker of a plan for each shape of run, by the shape's name.

    :param names: the namespace of the profile.
    """
    motor, motor1, motor2 = (names[name] for name in ("motor", "motor1", "motor2"))
    det, det1, det2, camera = (names[name] for name in ("det", "det1", "det2", "camera"))
    return {
        "count": lambda: bp.count([det1, det2], num=5),
        "scan": lambda: bp.scan([det], motor, 0, 24, 13),
        "grid": lambda: bp.grid_scan([det2], motor1, -2, 4, 4, motor2, -2, 4, 4),
        "camera": lambda: bp.scan([camera, det], motor, 10, 14, 3),
        "fly": lambda: bp.fly([camera]),
        "multi-stream": lambda: _multi_stream([det1], motor1, baseline=[motor, motor2], seen=det1),
        "failed": lambda: _ended_by([det], motor, BrokenSampleError("the sample fell off")),
        "aborted": lambda: _ended_by([det], motor, RequestAbort()),
    }


def _multi_stream(dets: list[Any], motor: Any, *, baseline: list[Any], seen: Any) -> Plan:
    plan = bpp.monitor_during_wrapper(bp.scan(dets, motor, -2, 2, 5), [seen])
    yield from bpp.baseline_wrapper(plan, baseline)


def _ended_by(dets: list[Any], motor: Any, error: Exception) -> Plan:
    def measure() -> Plan:
        for position in (0, 1, 2):
            yield from bps.mv(motor, position)
            yield from bps.trigger_and_read([*dets, motor])
        raise error

    yield from bpp.run_wrapper(measure(), md={"plan_name": "ended_early"})


def run_examples(names: Mapping[str, Any], ledger: Ledger) -> None:
    """Run all of them; that two end early is as it should be.

    :raises FailedStatus: a device failed.
    """
    engine = names["RE"]
    token = engine.subscribe(ledger)
    try:
        for shape, make in example_plans(names).items():
            try:
                engine(make(), shape_of_run=shape, purpose="example data")
            except (BrokenSampleError, RequestAbort, RunEngineInterrupted):
                if shape not in ("failed", "aborted"):
                    raise
    finally:
        engine.unsubscribe(token)


def main() -> int:
    """Generate the data on the stack that runs; the exit status."""
    from bluesky_plugins.profile.devices import connect
    from bluesky_plugins.profile.namespace import make_namespace

    try:
        settings = load_settings()
    except ConfigurationError as error:
        return _fail(str(error), 2)
    # The two runs that end early are no news.
    logging.getLogger("bluesky").setLevel(logging.CRITICAL)
    names = make_namespace(settings, headless=True, table=False, tell=_say)
    if connect([names["motor"], names["camera"]], timeout=1.0):
        return _fail("no beamline answers; start one with `bluesky-plugins up`", 1)
    ledger, failure = Ledger(), None
    try:
        run_examples(names, ledger)
    except FailedStatus as error:
        failure = f"a device failed: {error}"
    left = names["db"].wait()
    _say("\n".join([HEADER, *(_row(row) for row in ledger.rows)]))
    if left:
        failure = failure or f"not recorded yet: {len(left)} runs"
    return 0 if failure is None else _fail(failure, 1)


def _row(row: tuple[str, str, str, str]) -> str:
    uid, shape, status, events = row
    return f"{uid:<36}  {shape:<13}  {status:<11}  {events}"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _fail(reason: str, status: int) -> int:
    sys.stderr.write(f"{reason}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
