"""The names that bsui and the queue's worker share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import structlog

from bluesky_plugins.settings import Settings

__all__ = ["make_namespace"]

log = structlog.get_logger(__name__)


def make_namespace(
    settings: Settings,
    *,
    headless: bool = False,
    table: bool = True,
    tell: Callable[[str], None] = log.info,
) -> dict[str, Any]:
    """`RE, db`, the devices, `to_recommender`, `from_recommender`, `Trigger`, the plans, by name.

    :param headless: no graphics; no display is needed.
    :param table: show a live table of each run.
    :param tell: takes lines for a person: what is not connected, what `db` waits for.
    """
    _choose_display(headless)
    from bluesky_plugins.adaptive import KafkaSuggestions
    from bluesky_plugins.callbacks import KafkaPublisher
    from bluesky_plugins.processing import Trigger, TriggerMethod
    from bluesky_plugins.profile.devices import connect, make_devices
    from bluesky_plugins.profile.engine import make_engine
    from bluesky_plugins.profile.plans import usual_plans
    from bluesky_plugins.recording import Catalog, RunWatch

    devices = make_devices(settings)
    engine = make_engine(settings, headless=headless, table=table)
    watch = RunWatch()
    engine.subscribe(watch)
    missing = connect(devices.values())
    if missing:
        tell(f"not connected: {', '.join(missing)}; do the IOCs run? `bluesky-plugins status`")
    return {
        **usual_plans(),
        **devices,
        "RE": engine,
        "db": Catalog(settings, watch, tell=tell),
        "to_recommender": KafkaPublisher("adaptive", settings=settings),
        "from_recommender": KafkaSuggestions(settings),
        "Trigger": partial(Trigger, settings=settings),
        "TriggerMethod": TriggerMethod,
    }


def _choose_display(headless: bool) -> None:
    """Before the RunEngine and its callbacks are made: they look at matplotlib's backend then."""
    import matplotlib as mpl

    from bluesky_plugins.profile.engine import can_plot

    if headless:
        mpl.use("Agg")
    elif can_plot():
        mpl.use("QtAgg")
