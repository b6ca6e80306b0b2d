"""What a client of the simulated beamline sees; a process of its own, as its EPICS addresses are.

`python beamline_client.py`: talks to the IOCs of its settings, prints one JSON object.
"""

import itertools
import json
import subprocess
import sys
import threading
import time

from bluesky_plugins.profile.devices import connect, make_devices
from bluesky_plugins.settings import load_settings

# It only bounds a hang: a busy machine takes ten times as long as an idle one.
SECONDS = 60.0
devices = make_devices(load_settings())
missing = connect(devices.values(), timeout=SECONDS)
import ophyd  # noqa: E402 (its control layer is set above)

PAUSE = threading.Event()
PREFIX = load_settings().iocs.prefix
motor, motor1 = devices["motor"], devices["motor1"]
det, camera = devices["det"], devices["camera"]


def signal(field):
    made = ophyd.EpicsSignal(f"{PREFIX}motor{field}", name=field)
    made.wait_for_connection(timeout=SECONDS)
    return made


def until(condition):
    deadline = time.monotonic() + SECONDS
    while not condition() and time.monotonic() < deadline:
        PAUSE.wait(0.002)


def timed_move(device, position):
    began = time.monotonic()
    status = device.set(position)
    status.wait(timeout=SECONDS)
    return {"at": device.position, "took": time.monotonic() - began, "success": status.success}


def await_end(status):
    """As the RunEngine does: by the callbacks, before which ophyd has stopped a move that failed.

    `status.wait` returns earlier, and that stop then meets the next move.
    """
    ended = threading.Event()
    status.add_callback(lambda _: ended.set())
    assert ended.wait(timeout=SECONDS)


def refusal(call, *args):
    try:
        call(*args)
    except Exception as error:  # noqa: BLE001 (its kind is the result)
        return type(error).__name__
    return None


def raw_put(value):
    """A put that passes by ophyd's own check."""
    before = motor.position
    motor.user_setpoint._write_pv.put(value, wait=True, timeout=SECONDS)
    return {"moved": motor.position != before, "violation": signal(".LVIO").get()}


def stopped_move():
    seen = []
    token = motor.motor_done_move.subscribe(lambda value, **_: seen.append(value), run=False)
    motor.set(0).wait(timeout=SECONDS)
    usual = motor.velocity.get()
    motor.velocity.put(5, wait=True)  # so that it is stopped on its way, however late that is
    status = motor.set(90)
    until(lambda: motor.position >= 2)
    motor.stop()
    await_end(status)
    # For ophyd it has ended at once, with the record it ends when that has stopped.
    until(lambda: seen[-1:] == [1])
    motor.motor_done_move.unsubscribe(token)
    motor.velocity.put(usual, wait=True)
    return {
        "at": motor.user_readback.get(use_monitor=False),
        "setpoint": motor.user_setpoint.get(use_monitor=False),
        "moving": motor.moving,
        "done": [value for value, _ in itertools.groupby(seen)],
    }


def limits_when(device, high):
    """Its limits, once the client has heard of the new ones."""
    until(lambda: device.limits[1] == high)
    return list(device.limits)


def redefined():
    motor1.set(3).wait(timeout=SECONDS)
    motor1.set_current_position(0)
    out = {"limits": limits_when(motor1, 97), "offset": motor1.user_offset.get(use_monitor=False)}
    out["move"] = timed_move(motor1, 2)
    motor1.set_current_position(5)
    motor1.set(0).wait(timeout=SECONDS)
    return out


def pictures():
    camera.stage()
    camera.trigger().wait(timeout=SECONDS)
    camera.unstage()
    camera.fly_frames.put(3)
    camera.kickoff().wait(timeout=SECONDS)
    camera.complete().wait(timeout=SECONDS)
    return {"events": len(list(camera.collect())), "assets": list(camera.collect_asset_docs())}


def escape():
    camera.file_path.put("../..", wait=True)
    status = camera.trigger()
    try:
        status.wait(timeout=SECONDS)
    except Exception as error:  # noqa: BLE001 (its text is the result)
        return str(error)
    return None


def readings_follow():
    out = []
    for position in (12, 16, 12):
        motor.set(position).wait(timeout=SECONDS)
        out.append(det.get())
    return out


def limits():
    signal(".HLM").put(50, wait=True)
    out = {"limits": limits_when(motor, 50), "beyond": refusal(motor.set, 51)}
    motor.set(2).wait(timeout=SECONDS)
    out["after_a_move"] = refusal(motor.set, 51)
    signal(".HLM").put(100, wait=True)
    return out


def refused_on_the_way():
    """A move that the record refuses, though the client let it pass."""
    motor.user_setpoint.check_value = lambda value: None
    status = motor.set(1000)
    del motor.user_setpoint.check_value
    await_end(status)
    return refusal(status.wait)


def home():
    status = motor.home("forward", wait=False)
    status.wait(timeout=SECONDS)
    return motor.position


def repeaters():
    listed = subprocess.run(["ps", "-eo", "ppid,args"], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if "caproto.commandline.repeater" in line]


result = {
    "missing": missing,
    "reading": {name: sorted(devices[name].read()) for name in ("motor", "det")},
    "units": [motor.egu, motor.precision],
    "step": [timed_move(motor, position) for position in (1.5, 3.0, 3.0, 24.0)],
    "beyond": refusal(motor.set, 101),
    "nan": raw_put(float("nan")),
    "far": raw_put(1000.0),
    "stopped": stopped_move(),
    "redefined": redefined(),
    "limits": limits(),
    "refused": refused_on_the_way(),
    "home": home(),
    "det": readings_follow(),
    "pictures": pictures(),
    "escape": escape(),
    "repeaters": repeaters(),
}
json.dump(result, sys.stdout, default=lambda value: value.item())
