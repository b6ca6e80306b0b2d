"""Plans, callbacks and services that close the loop of a Bluesky experiment."""

from importlib.metadata import version

__version__ = version("bluesky-plugins")

__all__ = ["__version__"]
