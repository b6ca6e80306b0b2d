"""Whether the 0MQ proxy answers at both its ends: `probe_proxy.py IN_ADDRESS OUT_ADDRESS`.

A handshake of 0MQ and no message: whoever listens to documents would have to drop it.
"""

from __future__ import annotations

import sys

import zmq
from zmq.utils.monitor import recv_monitor_message

SECONDS = 5.0


def answers(context: zmq.Context[zmq.Socket[bytes]], kind: int, address: str) -> bool:
    """Whether a 0MQ socket at `address` (host:port) shakes hands in time."""
    with context.socket(kind) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        with socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED) as events:
            socket.connect(f"tcp://{address}")
            shaken = bool(events.poll(int(SECONDS * 1000)))
            if shaken:
                recv_monitor_message(events)
            socket.disable_monitor()
            return shaken


def main(in_address: str, out_address: str) -> int:
    """Exit status: 0 if both ends answer, else 1 with a line that says which does not."""
    with zmq.Context() as context:
        for kind, address in ((zmq.PUB, in_address), (zmq.SUB, out_address)):
            if not answers(context, kind, address):
                sys.stderr.write(f"the 0MQ proxy does not answer at {address} in {SECONDS:g} s\n")
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
