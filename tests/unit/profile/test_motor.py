"""How the end of a move is told."""

from __future__ import annotations

import threading
from typing import Any

from ophyd.positioner import PositionerBase, SoftPositioner

from bluesky_plugins.profile.motor import Motor


class Stage(SoftPositioner):
    """A positioner that ends its moves as our motors do, and only when it is told to."""

    _done_moving = Motor._done_moving

    def __init__(self, **kwargs: Any) -> None:
        self._telling = threading.Lock()
        super().__init__(**kwargs)


def test_a_move_that_begins_while_the_end_of_another_is_told_has_an_end_of_its_own() -> None:
    stage = Stage(name="stage", init_pos=0.0)
    begun: list[Any] = []
    first = PositionerBase.move(stage, 1.0)
    # In the list itself: a subscription would run in ophyd's thread, at a moment of its own.
    stage._callbacks[stage._SUB_REQ_DONE][-1] = lambda **_: begun.append(
        PositionerBase.move(stage, 2.0)
    )
    stage._done_moving(success=True)
    stage._done_moving(success=True)
    first.wait(timeout=5.0)
    begun[0].wait(timeout=5.0)
