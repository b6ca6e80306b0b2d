"""Simulated hardware over EPICS Channel Access (caproto)."""

from .motion import Calibration, Limits, Trajectory
from .server import PortTaken, serve_iocs

__all__ = ["Calibration", "Limits", "PortTaken", "Trajectory", "serve_iocs"]
