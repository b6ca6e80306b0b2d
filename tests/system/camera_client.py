"""`python camera_client.py [MOTOR=POSITION...]`: move, take one picture, print what was seen.

A process of its own, as its EPICS addresses are.
"""

import json
import sys

from bluesky_plugins.profile.devices import connect, make_devices
from bluesky_plugins.settings import load_settings

moves = dict(argument.split("=") for argument in sys.argv[1:])
devices = make_devices(load_settings())
# It only bounds a hang: a busy machine takes ten times as long as an idle one.
SECONDS = 60.0
missing = connect([devices[name] for name in (*moves, "camera")], timeout=SECONDS)
for name, position in moves.items():
    devices[name].set(float(position)).wait(timeout=SECONDS)
camera = devices["camera"]
camera.stage()
camera.trigger().wait(timeout=SECONDS)
camera.read()
resources = [doc for name, doc in camera.collect_asset_docs() if name == "resource"]
camera.unstage()
print(json.dumps({"missing": missing, "path": resources[0]["resource_path"]}))
