"""An adaptive plan in a process of its own, on simulated devices: says each run, then a report.

Started with one argument, the options in JSON: those of `adaptive_plan`, and `delay`, the time
that a reading takes, s, `x`, where it starts, and `scan`, for `adaptive_scan` instead, each of
whose events is said.
"""

from __future__ import annotations

import json
import sys
import time

from bluesky import RunEngine
from bluesky import plan_stubs as bps
from bluesky import plans as bp
from ophyd.sim import det, motor

from bluesky_plugins.callbacks import KafkaPublisher
from bluesky_plugins.messaging import process_producer
from bluesky_plugins.plans import adaptive_plan, adaptive_scan
from bluesky_plugins.settings import load_settings


def main() -> None:
    options = json.loads(sys.argv[1])
    delay = options.pop("delay", 0.05)
    settings = load_settings()
    scan = options.pop("scan", False)
    points, counts, batch, runs = [], [], [], []

    def watch(name: str, doc: dict) -> None:
        if name == "start":
            batch.append(doc["batch_id"])
            runs.append(doc["uid"])
            counts.append(doc["batch_count"])
        if name == "event":
            points.append(doc["data"]["motor"])
            if scan:
                print(f"event {doc['seq_num']} of {batch[-1]} at {points[-1]}", flush=True)
        if name == "stop":
            print(f"run {counts[-1]} of {batch[-1]} at {points[-1]}", flush=True)

    def slow_count(detectors, md):
        yield from bps.sleep(delay)
        return (yield from bp.count(detectors, md=md))

    def slow_reading(devices):
        yield from bps.sleep(delay)
        return (yield from bps.trigger_and_read(devices))

    plan, reading = (adaptive_scan, slow_reading) if scan else (adaptive_plan, slow_count)
    engine = RunEngine({})
    engine.subscribe(KafkaPublisher("documents"))
    engine.subscribe(watch)
    first_point = {motor: options.pop("x", 0.0)}
    begun = time.monotonic()
    error = ""
    try:
        engine(plan([det], first_point, take_reading=reading, **options))
    except Exception as caught:  # noqa: BLE001
        error = f"{type(caught).__name__}: {caught}"
    seconds = time.monotonic() - begun
    unsent = process_producer(settings).flush(30.0)
    report = {
        "uids": len(points),
        "runs": runs,
        "batch_id": batch[-1] if batch else None,
        "points": points,
        "counts": counts,
        "seconds": seconds,
        "unsent": unsent,
        "error": error,
    }
    print(json.dumps(report), flush=True)


main()
