from typing import Any

import pytest

from bluesky_plugins.profile.stuck import POLLS, StuckWatch, looks_stuck

STUCK = {
    "manager_state": "executing_queue",
    "worker_environment_state": "idle",
    "re_state": "idle",
    "running_item_uid": "a",
    "run_list_uid": "b",
}


def after(*statuses: dict[str, Any] | None) -> StuckWatch:
    watch = StuckWatch()
    for status in statuses:
        watch = watch.after(status)
    return watch


def test_manager_that_stays_executing_with_an_idle_worker_is_stuck():
    assert after(*[STUCK] * POLLS).stuck


def test_manager_between_two_plans_is_not_stuck():
    assert not after(*[STUCK] * (POLLS - 1)).stuck


@pytest.mark.parametrize(
    "change",
    [
        {"manager_state": "idle"},
        {"re_state": "running"},
        {"re_state": "paused"},
        {"worker_environment_state": "executing_plan"},
    ],
)
def test_worker_that_works_is_not_stuck(change: dict[str, str]):
    assert not looks_stuck(STUCK | change)


def test_next_plan_begins_the_watch_anew():
    assert not after(*[STUCK] * (POLLS - 1), STUCK | {"running_item_uid": "c"}).stuck


def test_manager_that_does_not_answer_begins_the_watch_anew():
    assert not after(*[STUCK] * (POLLS - 1), None, STUCK).stuck
