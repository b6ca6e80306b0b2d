"""The control layer: ophyd over caproto, pointed at the IOCs of the settings."""

from __future__ import annotations

import os

from bluesky_plugins.settings import Settings

__all__ = ["use_epics"]


def use_epics(settings: Settings) -> None:
    """Make ophyd of this process talk to the IOCs of `settings`.

    Must come before the first device is made: caproto reads the environment then.
    """
    os.environ.update(settings.epics_environment)
    os.environ["OPHYD_CONTROL_LAYER"] = "caproto"
    import ophyd

    # The process may have imported ophyd before, with another layer or none.
    ophyd.set_cl("caproto")
