"""What may be said to a target, and what a target may say."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bluesky_plugins.processing.model import (
    EndReason,
    JobState,
    Resources,
    ResultRecord,
    ResultSpec,
    Submission,
    job_key,
)

KEY = "a" * 64
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def submission(**changes: Any) -> Submission:
    return Submission(**{"key": KEY, "attempt": 1, "argv": ("/bin/true",), **changes})


@pytest.mark.parametrize(
    "word",
    ["a b", "it's", '"', "$(id)", "`id`", "a\nb", "ü…", "", "-rf", ";", "&", "\\", "*", "\x01"],
)
def test_a_word_passes_as_it_is(word: str) -> None:
    before = submission(argv=("/bin/echo", word))
    assert Submission.model_validate_json(before.model_dump_json()).argv[1] == word


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (("x", "a\0b"), "NUL"),
        (("x", "a" * 131_072), "longer than 131071 bytes"),
        (("x", "ü" * 65_536), "longer than 131071 bytes"),
        (("x", *["a" * 131_000] * 9), "all words together"),
        (("x", "\udcff"), "UTF-8"),
        ((), "the program"),
        (("",), "the program"),
    ],
)
def test_what_no_program_can_be_given_is_refused(argv: tuple[str, ...], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        submission(argv=argv)


@pytest.mark.parametrize("environment", [{"A=B": "x"}, {"": "x"}, {"A": "x\0"}, {"1A": "x"}])
def test_an_environment_that_cannot_be_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        submission(environment=environment)


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "", "a\0"])
def test_outputs_and_results_stay_below_the_working_directory(path: str) -> None:
    with pytest.raises(ValidationError):
        submission(outputs=(path,))
    with pytest.raises(ValidationError):
        ResultSpec(file=path, numbers=("peak",))


@pytest.mark.parametrize("name", ["--uid=0", "a b", "", "a;b", "$(id)", "a\n"])
def test_what_a_scheduler_knows_by_name_is_no_option(name: str) -> None:
    with pytest.raises(ValidationError):
        Resources(partition=name)


def test_the_job_name_begins_the_key() -> None:
    assert submission().job_name == "bp-" + "a" * 16


@given(VALUES, st.text(), st.text())
def test_equal_parameters_in_any_order_make_the_same_key(value: Any, one: str, two: str) -> None:
    forth, back = {one: value, two: 1}, {}
    for name in reversed(list(forth)):
        back[name] = forth[name]
    assert job_key("run", "r", "1", forth) == job_key("run", "r", "1", back)


def test_each_part_makes_another_key() -> None:
    keys = {
        job_key("run", "r", "1", {}),
        job_key("ru", "nr", "1", {}),
        job_key("run", "r", "2", {}),
        job_key("run", "r", "1", {"a": 1}),
        job_key("run", "r", "1", {"a": "1"}),
        job_key("run", "r", "1", {"a": True}),
        job_key("run", "r", "1", {}, "fresh"),
    }
    assert len(keys) == 7
    assert all(len(key) == 64 for key in keys)


def test_a_key_never_changes_from_one_release_to_the_next() -> None:
    assert job_key("run", "focus", "1", {"threshold": 3}) == (
        "07615c370beea75451b0243f186f69cd83770475accf53d7adc72f60f0492746"
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, object()])
def test_a_parameter_that_is_no_json_value_makes_no_key(value: Any) -> None:
    with pytest.raises(ValueError, match="JSON"):
        job_key("run", "r", "1", {"a": value})


def made(**changes: Any) -> ResultRecord:
    values = {"key": KEY, "attempt": 1, "reason": "exited", "started": 1.0, "ended": 2.0}
    return ResultRecord.model_validate({**values, **changes})


def test_only_an_exit_with_0_is_a_success() -> None:
    assert made(exit_code=0).state is JobState.SUCCEEDED
    assert made(exit_code=1).state is JobState.FAILED
    assert made().state is JobState.FAILED
    others = {made(reason=one, exit_code=0).state for one in EndReason if one != "exited"}
    assert others == {JobState.FAILED, JobState.TIMED_OUT, JobState.CANCELLED}


@pytest.mark.parametrize(
    "changes",
    [
        {"numbers": {"peak": math.nan}},
        {"numbers": {"peak": "x"}},
        {"numbers": {"a.b": 1}},
        {"unknown": 1},
        {"attempt": 0},
        {"key": "../../etc"},
        {"stdout": "x" * 20_000},
        {"ended": math.inf},
    ],
)
def test_a_record_that_is_none_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        made(**changes)
