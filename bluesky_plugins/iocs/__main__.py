"""`python -m bluesky_plugins.iocs`: the simulated beamline as a process."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from bluesky_plugins.settings import ConfigurationError, Settings, load_settings

from .server import Part, serve_iocs


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM.

    :returns: exit status: 0 done, 1 failed, 2 bad input.
    """
    options = _parser().parse_args(arguments)
    try:
        settings = _overridden(load_settings(options.config), options)
    except ConfigurationError as error:
        return _fail(str(error), 2)
    try:
        return serve_iocs(
            settings,
            ready=_say,
            only=options.only,
            port=options.port,
            noise=options.noise,
            camera_noise=options.camera_noise,
            seed=options.seed,
        )
    except OSError as error:
        return _fail(str(error), 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bluesky_plugins.iocs", description=__doc__)
    parser.add_argument("--config", help="settings file (YAML)")
    parser.add_argument("--prefix", help="prefix of every PV")
    parser.add_argument(
        "--only",
        choices=[part.value for part in Part],
        help="serve the motors with the point detectors, or the camera (default: all)",
    )
    parser.add_argument("--port", type=_port, help="Channel Access port of this process")
    parser.add_argument("--repeater-port", type=_port, help="Channel Access repeater port")
    parser.add_argument("--noise", type=float, default=0.0, help="of the detectors (default: 0)")
    parser.add_argument(
        "--camera-noise", type=float, default=1.0, help="of the images; 1 is photons' (default)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of that noise (default: 0)")
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 1 <= port <= 65535:
        raise ValueError(text)
    return port


def _overridden(settings: Settings, options: argparse.Namespace) -> Settings:
    given = {
        "prefix": options.prefix,
        "ca_repeater_port": options.repeater_port,
    }
    update = {name: value for name, value in given.items() if value is not None}
    iocs = settings.iocs.model_copy(update=update)
    return settings.model_copy(update={"iocs": iocs})


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _fail(reason: str, status: int) -> int:
    sys.stderr.write(f"{reason}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
