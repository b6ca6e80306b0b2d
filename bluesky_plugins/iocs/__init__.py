"""Simulated hardware over EPICS Channel Access (caproto)."""

from .motion import Calibration, Limits, Trajectory
from .server import PortTakenError, serve_iocs

__all__ = ["Calibration", "Limits", "PortTakenError", "Trajectory", "serve_iocs"]
