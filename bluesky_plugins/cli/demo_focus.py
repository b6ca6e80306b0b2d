"""`bluesky-plugins demo-focus`: focus by what processing sees, and show what came out."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from bluesky_plugins.adaptive import FocusFit, fit_focus
from bluesky_plugins.cli.demo import WatchedLog, running_stack
from bluesky_plugins.cli.focus_picture import draw_focus
from bluesky_plugins.cli.focus_runs import HEAD, FocusRuns, waiting_told
from bluesky_plugins.cli.programs import make_program
from bluesky_plugins.cli.stack import command_errors
from bluesky_plugins.cli.stack_processing import LOCAL, PROGRAM, SLURM, program_folder
from bluesky_plugins.embedded import StackError
from bluesky_plugins.settings import Settings, state_dir

__all__ = ["demo_focus"]

LOW, HIGH = -8.0, 8.0  # mm
CLOSE = 0.2  # mm
CONNECT_S = 5.0
NEXT = """
What to try next:
  bluesky-plugins jobs explain {run}
                                          why this run was processed
  bluesky-plugins jobs show {job}
                                          where, with which words, what came back, what it decided
  bluesky-plugins batches show {batch_id}
                                          why each point was measured
  in `bluesky-plugins bsui`:              RE(focus_scan(camera, focus, {low:g}, {high:g}))"""
Say = Callable[[str], None]


def check_target(settings: Settings, target: str) -> None:
    """Say early what cannot work.

    :raises StackError: if the stack does not know the recipe or the target, or that is away.
    """
    from bluesky_plugins.processing import recipes_of

    about = settings.processing.all_targets.get(target)
    recipe = next((one for one in recipes_of(settings) if one.name == "focus"), None)
    if recipe is None:
        file = settings.processing.recipes
        told = f"{file} has no recipe `focus`" if file else "the stack runs without recipes"
        raise StackError(f"{told}; unset processing.recipes, then `down` and `up`")
    if about is None or target not in recipe.targets:
        raise StackError(f"there is no target {target} for recipe focus (processing.targets)")
    if about.kind == "slurm" and about.host is not None:
        address = (about.host, about.port or 22)
        try:
            socket.create_connection(address, CONNECT_S).close()
        except OSError as error:
            raise StackError(
                f"target {target} does not answer at {address[0]}:{address[1]} ({error}); "
                "start it: bash launchers/start_compute_pod.sh"
            ) from None


def make_ready(settings: Settings, target: str, say: Say) -> None:
    """Make the program of target `local`, where that is the one of the state folder.

    :raises StackError: if it cannot be made.
    """
    about = settings.processing.all_targets[target]
    own = program_folder(state_dir()) / "bin" / PROGRAM
    if target == LOCAL and about.programs.get(PROGRAM) == str(own):
        make_program(state_dir(), say)


def measure(settings: Settings, target: str, say: Say) -> tuple[FocusRuns, float]:
    """Run the focus scan; its runs, and where the focus truly is, mm."""
    from bluesky_plugins.processing import MongoJobStore
    from bluesky_plugins.profile import make_namespace

    say("Preparing the RunEngine and the devices ...")
    names = make_namespace(settings, headless=True, table=False, tell=say)
    store = MongoJobStore.from_settings(settings)
    runs = FocusRuns("focus", lambda batch: store.find({"batch_id": batch}, limit=1000)[1], say)
    plan = names["focus_scan"](
        names["camera"],
        names["focus"],
        LOW,
        HIGH,
        target=target,
        to_recommender=WatchedLog(names["to_recommender"], runs),
        from_recommender=names["from_recommender"],
    )
    names["RE"].subscribe(runs.document)
    say(f"\n{HEAD}")
    began = time.monotonic()
    try:
        with waiting_told(say):
            names["RE"](plan)
    finally:
        runs.tell()
        store.close()
    say(f"\n{len(runs.runs)} runs in {time.monotonic() - began:.1f} s; {runs.stop_reason}")
    return runs, true_focus(settings)


def true_focus(settings: Settings) -> float:
    """What only a simulated beamline can say, mm; nothing that recommends ever asks for it."""
    from ophyd import EpicsSignalRO

    signal = EpicsSignalRO(f"{settings.iocs.prefix}focus:true", name="true_focus")
    signal.wait_for_connection(timeout=CONNECT_S)
    return float(signal.get())


def found_focus(runs: FocusRuns) -> FocusFit:
    """The fit that the recommender ended with: the same points, the same mathematics.

    :raises StackError: if there is no focus in them.
    """
    points = runs.reduced
    fit = fit_focus([run.position for run in points], [run.numbers["width"] for run in points])
    if fit is None:
        raise StackError(
            f"no focus is to be seen in {len(points)} widths; the scan ended: {runs.stop_reason}"
        )
    return fit


@click.command("demo-focus")
@click.option(
    "--target",
    type=click.Choice([LOCAL, SLURM]),
    default=LOCAL,
    show_default=True,
    help="Where the frames are reduced: on this machine, or in the pod `compute`.",
)
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to put the picture (PNG).  [default: <state-dir>/demo/<batch_id>.png]",
)
def demo_focus(target: str, as_json: bool, picture: Path | None) -> None:
    """Focus a beam: jobs reduce the camera's frames, their widths decide the next point.

    Uses the stack that runs in the state folder, or starts one and stops it afterwards.
    """

    def say(text: str) -> None:
        click.echo(text, err=as_json)

    with command_errors("demo-focus"), running_stack(say) as settings:
        check_target(settings, target)
        make_ready(settings, target, say)
        runs, true = measure(settings, target, say)
        fit = found_focus(runs)
        path = (picture or state_dir() / "demo" / f"{runs.batch_id}.png").absolute()
        title = f"{len(runs.runs)} runs, each reduced by a job on {target}: {runs.batch_id}"
        draw_focus(runs.reduced, fit, path, title=title, true=true)
        off = abs(fit.best - true)
        say(f"best focus {fit.best:.3f} mm, true {true:.3f} mm: {off:.3f} mm off")
        say(f"\nPicture: {path}")
        # The one that decided where the focus is.
        run = runs.reduced[-2]
        about = {"run": run.uid, "job": run.job[:16], "batch_id": runs.batch_id}
        say(NEXT.format(**about, low=LOW, high=HIGH))
    if as_json:
        click.echo(json.dumps(summary(runs, fit, true, path)))
    sys.exit(0 if off <= CLOSE and len(runs.reduced) == len(runs.runs) else 1)


def summary(runs: FocusRuns, fit: FocusFit, true: float, picture: Path) -> dict[str, Any]:
    """What `--json` says; positions in mm."""
    return {
        "batch_id": runs.batch_id,
        "runs": len(runs.runs),
        "jobs": len({run.job for run in runs.reduced}),
        "best": fit.best,
        "true": true,
        "picture": str(picture),
    }
