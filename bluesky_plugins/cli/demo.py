"""`bluesky-plugins demo`: close the loop once and show what came out."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import click

from bluesky_plugins.settings import Settings, load_settings, state_dir

__all__ = ["demo"]

NEXT = """
What to try next:
  bluesky-plugins up                      the same beamline, to stay
  bluesky-plugins bsui                    IPython with RE, db, motor, det and the plans
  bluesky-plugins echo                    the documents as they pass, in another terminal
  bluesky-plugins batches show {batch_id}
                                          why each point was measured
  bluesky-plugins batches replay {batch_id}
                                          the same decisions, computed again
(`source .venv/bin/activate` puts the command on your PATH.)"""


class Notebook:
    """What the demo saw: a row for each run, and how the batch ended."""

    def __init__(self, say: Any) -> None:
        self.batch_id = ""
        self.points: list[float] = []
        self.readings: list[float] = []
        self.stop_reason = ""
        self._say = say
        self._count = 0

    def document(self, name: str, doc: dict[str, Any]) -> None:
        """Take the row of a run."""
        if name == "start":
            self.batch_id = doc["batch_id"]
            self._count = doc["batch_count"]
        elif name == "event":
            point, reading = doc["data"]["motor"], doc["data"]["det"]
            self.points.append(float(point))
            self.readings.append(float(reading))
            self._say(f"  {self._count:>5}  {point:>8.3f}  {reading:>10.4g}")


class Ending(Protocol):
    """Who wants to know how the plan ended."""

    stop_reason: str


class WatchedLog:
    """The batch's log, with an ear on how the plan ended."""

    def __init__(self, log: Any, notebook: Ending) -> None:
        self._log = log
        self._notebook = notebook

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """A document of a run."""
        self._log(name, doc)

    def batch_event(self, doc: dict[str, Any]) -> None:
        """What the plan says of the batch."""
        if doc.get("event") == "ended":
            self._notebook.stop_reason = doc.get("reason", "")
        self._log.batch_event(doc)

    def command(self, doc: dict[str, Any]) -> None:
        """What a person asks of the batch."""
        self._log.command(doc)


@contextmanager
def running_stack(say: Any) -> Iterator[Settings]:
    """The stack that runs in the state folder, or one for as long as the demo takes."""
    from bluesky_plugins.cli.stack import start_stack, stop_stack

    started = start_stack(load_settings(with_stack=False), say)
    try:
        yield load_settings()
    finally:
        if started:
            _let_go_of_kafka()
            stop_stack(load_settings(with_stack=False), say)


def _let_go_of_kafka() -> None:
    from bluesky_plugins.messaging import process_producer

    process_producer(load_settings()).close()


def draw(notebook: Notebook, path: Path) -> None:
    """The scan as a picture: the readings over the motor, numbered in their order."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(notebook.points, notebook.readings, "-", color="0.75", zorder=1)
    order = axes.scatter(
        notebook.points, notebook.readings, c=range(len(notebook.points)), cmap="viridis", zorder=2
    )
    figure.colorbar(order, label="batch_count")
    axes.set(
        xlabel="motor", ylabel="det", title=f"{len(notebook.points)} runs of {notebook.batch_id}"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def measure(notebook: Notebook, settings: Settings, say: Any) -> tuple[str, ...]:
    """Run the adaptive plan and read its last run back; returns the uids."""
    say("Preparing the RunEngine and the devices ...")
    from bluesky_plugins.profile import make_namespace

    names = make_namespace(settings, headless=True, table=False, tell=say)
    say("\n  count     motor         det")
    plan = names["adaptive_plan"](
        [names["det"]],
        {names["motor"]: 0},
        to_recommender=WatchedLog(names["to_recommender"], notebook),
        from_recommender=names["from_recommender"],
    )
    names["RE"].subscribe(notebook.document)
    began = time.monotonic()
    uids = tuple(names["RE"](plan))
    say(f"\n{len(uids)} runs in {time.monotonic() - began:.1f} s; {notebook.stop_reason}")
    say(f"\ndb[-1].primary.read():\n{names['db'][-1].primary.read()}")
    return uids


@click.command()
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to put the picture (PNG).  [default: <state-dir>/demo/<batch_id>.png]",
)
def demo(as_json: bool, picture: Path | None) -> None:
    """Close the loop: 17 runs, answered by the recommender service over Kafka.

    Uses the stack that runs in the state folder, or starts one and stops it afterwards.
    """

    def say(text: str) -> None:
        click.echo(text, err=as_json)

    notebook = Notebook(say)
    from bluesky_plugins.cli.stack import command_errors

    with command_errors("demo"), running_stack(say) as settings:
        uids = measure(notebook, settings, say)
        path = (picture or state_dir() / "demo" / f"{notebook.batch_id}.png").absolute()
        draw(notebook, path)
        say(f"\nPicture: {path}")
        say(NEXT.format(batch_id=notebook.batch_id))
    if as_json:
        summary = {
            "batch_id": notebook.batch_id,
            "runs": len(uids),
            "points": notebook.points,
            "uids": list(uids),
            "picture": str(path),
            "stop_reason": notebook.stop_reason,
        }
        click.echo(json.dumps(summary))
    sys.exit(0)
