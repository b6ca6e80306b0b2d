"""`python camera_client.py [MOTOR=POSITION...]`: move, take one picture, print what was seen.

A process of its own, as its EPICS addresses are.
"""

import json
import sys

from bluesky_plugins.profile.devices import connect, make_devices
from bluesky_plugins.settings import load_settings

moves = dict(argument.split("=") for argument in sys.argv[1:])
devices = make_devices(load_settings())
missing = connect([devices[name] for name in (*moves, "camera")])
for name, position in moves.items():
    devices[name].set(float(position)).wait(timeout=20)
camera = devices["camera"]
camera.stage()
camera.trigger().wait(timeout=20)
camera.read()
resources = [doc for name, doc in camera.collect_asset_docs() if name == "resource"]
camera.unstage()
print(json.dumps({"missing": missing, "path": resources[0]["resource_path"]}))
