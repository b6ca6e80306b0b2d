"""A plot that follows a scan: a viewer, started by a recipe when a run begins.

It reads the run's documents from Kafka and draws one line. It stays until its window is closed,
or its job is cancelled.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from typing import Any

import event_model
import matplotlib.pyplot as plt

from bluesky_plugins.messaging import DecodingError, TopicReader, decode
from bluesky_plugins.settings import load_settings

__all__ = ["Points", "main"]

START_S = 10.0
# Messages at a time, and how often the window is looked after, s.
AT_ONCE, TURN_S = 1000, 0.2


class Points:
    """What has been measured so far in the stream `primary` of one run.

    :param x: key of the event's data; empty: the number of the event.
    """

    def __init__(self, run: str, x: str, y: str) -> None:
        self.run, self.x, self.y = run, x, y
        self.xs: list[float] = []
        self.ys: list[float] = []
        self.ended = ""
        self._stream = ""

    def take(self, name: str, doc: Mapping[str, Any]) -> None:
        """One more document, of this run or another."""
        if name == "descriptor":
            if doc["run_start"] == self.run and doc.get("name") == "primary":
                self._stream = str(doc["uid"])
        elif name == "stop":
            if doc["run_start"] == self.run:
                self.ended = str(doc.get("exit_status"))
        elif name in ("event", "event_page") and doc["descriptor"] == self._stream:
            pages = [doc] if name == "event" else event_model.unpack_event_page(doc)
            for event in pages:
                self._add(event)

    def _add(self, event: Mapping[str, Any]) -> None:
        if self.y not in event["data"]:
            return
        self.xs.append(float(event["data"].get(self.x, event["seq_num"])))
        self.ys.append(float(event["data"].get(self.y, math.nan)))


def follow(points: Points, since: float) -> None:
    """Draw until the window is closed.

    :param since: when the run began, s since the epoch.
    """
    settings = load_settings()
    reader = TopicReader(settings, settings.topic("documents"))
    reader.start(since, START_S)
    figure, axes = plt.subplots()
    (line,) = axes.plot([], [], "o-")
    axes.set(xlabel=points.x or "event", ylabel=points.y, title=f"run {points.run[:8]}")
    figure.show()
    try:
        while plt.fignum_exists(figure.number):
            for message in reader.poll(AT_ONCE, 0.0):
                _take(points, message.value)
            line.set_data(points.xs, points.ys)
            axes.relim()
            axes.autoscale_view()
            axes.set_title(f"run {points.run[:8]} {points.ended}")
            figure.canvas.draw_idle()
            figure.canvas.start_event_loop(TURN_S)
    finally:
        reader.close()


def _take(points: Points, value: bytes | None) -> None:
    try:
        points.take(*decode(value))
    except DecodingError:
        return  # the recorder buries it, and says so


def main(arguments: Sequence[str] | None = None) -> int:
    """Follow one run."""
    parser = argparse.ArgumentParser(description="A plot that follows a run.")
    parser.add_argument("run", help="uid of the run")
    parser.add_argument("y", help="key of the data that is drawn")
    parser.add_argument("--x", default="", help="key of the data (default: number of the event)")
    parser.add_argument("--since", type=float, required=True, help="its start, s since the epoch")
    given = parser.parse_args(arguments)
    follow(Points(given.run, given.x, given.y), given.since)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
