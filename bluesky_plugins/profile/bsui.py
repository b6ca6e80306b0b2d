"""`bluesky-plugins bsui`: IPython with everything that a person needs at the beamline."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from IPython.terminal.interactiveshell import TerminalInteractiveShell
from traitlets.config import Config

from bluesky_plugins.settings import Settings

__all__ = ["BANNER", "run_bsui"]

BANNER = """\
bluesky-plugins bsui, beamline {beamline}
  RE            the RunEngine; db: the runs that were recorded, db[-1] the last one
  devices       {devices}
  plans         {plans}
  RE(adaptive_plan([det], {{motor: 0}}, to_recommender=to_recommender, \
from_recommender=from_recommender))
"""


def run_bsui(
    settings: Settings, *, headless: bool = False, commands: Sequence[str] | None = None
) -> int:
    """Talk to a person, or run what comes through a pipe, until `exit` or the end of input.

    :param headless: no graphics; no display is needed.
    :param commands: run these instead, as if they were typed, and return.
    :returns: exit status: 0, or 1 if one of `commands` failed.
    """
    from bluesky_plugins.profile.namespace import make_namespace

    _quiet()
    _listen_to_plans()
    names = make_namespace(settings, headless=headless, tell=_tell)
    shell = _shell(headless)
    shell.push(names)
    if commands is not None:
        return _run(shell, commands)
    _tell(_banner(settings, names))
    if not headless and sys.stdin.isatty():
        _show_plots(shell)
    shell.mainloop()
    return 0


def _quiet() -> None:
    # What libraries tell their developers is not for a person who measures.
    for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
        warnings.filterwarnings("ignore", category=category)


class _Told(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _tell(self.format(record))


def _listen_to_plans() -> None:
    """Say what adaptive plans log: in run mode no document tells why a batch ended."""
    logger = logging.getLogger("bluesky_plugins.plans")
    logger.setLevel(logging.INFO)
    logger.addHandler(_Told())


def _shell(headless: bool) -> Any:
    config = Config()
    config.TerminalInteractiveShell.banner1 = ""
    config.TerminalInteractiveShell.confirm_exit = False
    config.TerminalInteractiveShell.simple_prompt = not sys.stdin.isatty()
    if not sys.stdin.isatty() or headless:
        config.TerminalInteractiveShell.colors = "nocolor"
        config.HistoryManager.enabled = sys.stdin.isatty()
    return TerminalInteractiveShell.instance(config=config)


def _show_plots(shell: Any) -> None:
    from bluesky_plugins.profile.engine import can_plot, has_display

    if can_plot():
        shell.run_line_magic("matplotlib", "qt")
    elif has_display():
        _tell("No plots: they need Qt, for instance `pip install PyQt5`.")


def _run(shell: Any, commands: Sequence[str]) -> int:
    for command in commands:
        if not shell.run_cell(command, store_history=False).success:
            return 1
    return 0


def _banner(settings: Settings, names: dict[str, Any]) -> str:
    from bluesky_plugins.profile.plans import PLAN_NAMES

    devices = [name for name, value in names.items() if hasattr(value, "describe")]
    plans = ["adaptive_plan", *PLAN_NAMES[:3], "grid_scan", "adaptive_scan", "... (in bp, bps too)"]
    return BANNER.format(
        beamline=settings.beamline, devices=", ".join(devices), plans=", ".join(plans)
    )


def _tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
