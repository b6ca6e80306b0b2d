"""`python -m bluesky_plugins.cli`: the command, where its script is not on PATH."""

from bluesky_plugins.cli import main

main()
