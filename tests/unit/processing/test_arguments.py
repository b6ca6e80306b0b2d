"""Words with placeholders, and a person's lists of arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluesky_plugins.processing.model import unsafe
from bluesky_plugins.processing.recipes.arguments import (
    ArgumentError,
    filled_argv,
    filled_environment,
    trigger_argv,
)
from bluesky_plugins.processing.recipes.templates import fill

CONTEXT: dict[str, Any] = {
    "start": {
        "uid": "abc",
        "scan_id": 7,
        "sample": "it's a b; $(id)\n ü",
        "motors": ["x", "y"],
        "shape": [],
        "hints": {"dimensions": [[["motor"], "primary"]]},
        "exposure": 0.1,
        "dark": False,
        "nothing": None,
        "a.b": "dotted",
        "big": 10**400,
    },
    "event": {
        "data": {"motor": np.float64(1.5), "mad:det": 3, "image": np.arange(4), "n": np.int64(4)}
    },
    "files": [{"path": "/data/1.h5"}, {"path": "/data/2.h5"}],
    "file": ArgumentError("the run has 2 files; {*files.path} is all"),
    "parameters": {"threshold": 3.5, "names": ["a b", ""]},
    "stop": None,
}


def filled(template: str) -> list[str]:
    return [word.text for word in fill(template, CONTEXT)]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{start.uid}", "abc"),
        ("--n={start.scan_id}/{start.uid}", "--n=7/abc"),
        ("{start.sample}", "it's a b; $(id)\n ü"),
        ("{start.exposure}", "0.1"),
        ("{start.exposure:.3f}", "0.100"),
        ("{start.scan_id:05d}", "00007"),
        ("{start.dark}", "false"),
        ("{start.motors[1]}", "y"),
        ("{start.motors.0}", "x"),
        ("{start.motors[-1]}", "y"),
        ("{start.a.b}", "dotted"),
        ("{start[a.b]}", "dotted"),
        ("{start.hints:json}", '{"dimensions": [[["motor"], "primary"]]}'),
        ("{start.sample:json}", '"it\'s a b; $(id)\\n ü"'),
        ("{event.data.motor}", "1.5"),
        ("{event.data.n}", "4"),
        ("{event.data[mad:det]}", "3"),
        ("{event.data.image:json}", "[0, 1, 2, 3]"),
        ("{event.data:json}", None),
        ("{parameters.threshold}", "3.5"),
        ("{files[1].path}", "/data/2.h5"),
        ("{{start.uid}}", "{start.uid}"),
        ("100%", "100%"),
        ("$HOME `id`", "$HOME `id`"),
    ],
)
def test_a_value_comes_into_its_word(template: str, expected: str | None) -> None:
    (word,) = filled(template)
    assert expected is None or word == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{*start.motors}", ["x", "y"]),
        ("{*files.path}", ["/data/1.h5", "/data/2.h5"]),
        ("{*parameters.names}", ["a b", ""]),
        ("{*start.shape}", []),
        ("{*event.data.image}", ["0", "1", "2", "3"]),
    ],
)
def test_a_list_becomes_words(template: str, expected: list[str]) -> None:
    assert filled(template) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (
            "{start.scanid}",
            "{start.scanid} has no value: the start document has no scanid; did you mean scan_id?",
        ),
        ("{start.hints.dims}", "hints of the start document has no dims"),
        ("{start.nothing}", "{start.nothing} has no value: it is null"),
        ("{start.uid.x}", "uid of the start document is 'abc' and has no x"),
        ("{start.motors[2]}", "motors of the start document has 2 members and no 2"),
        ("{stop.time}", "{stop.time} has no value: there is no stop document"),
        ("{batch.batch_id}", "{batch.batch_id} has no value: there is no batch"),
        ("{file.path}", "{file.path} has no value: the run has 2 files; {*files.path} is all"),
        ("{start.motors}", "['x', 'y'] is no text or number; {*...} makes a word of each"),
        ("{*start.uid}", "{*start.uid}: 'abc' is no list"),
        ("{start.uid:d}", "{start.uid:d}: 'abc' is no number"),
        ("{start.dark:d}", "False is no number"),
        ("{start.exposure:d}", "Unknown format code 'd'"),
        ("{start.big:f}", "too large"),
        ("{start.__class__}", "the start document has no __class__"),
        ("{start.uid.__class__}", "has no __class__"),
        ("{start}", "is no text or number"),
    ],
)
def test_a_value_that_is_missing_is_an_error_that_names_it(template: str, expected: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        filled(template)
    assert expected in str(caught.value)


@pytest.mark.parametrize("value", ["a\0b", "x" * 131_072, "\ud800"])
def test_a_value_that_no_program_can_be_given_is_refused(value: str) -> None:
    with pytest.raises(ArgumentError, match="cannot be given to a program"):
        fill("{start.x}", {"start": {"x": value}})


@given(st.text())
def test_any_text_arrives_as_it_is_or_is_refused(value: str) -> None:
    if unsafe(value):
        return
    (word,) = fill("{start.x}", {"start": {"x": value}})
    assert (word.text, word.values) == (value, (value,))


@given(st.dictionaries(st.text(min_size=1), st.text()), st.text())
def test_no_template_does_anything_but_give_words_or_say_why(
    start: dict[str, str], template: str
) -> None:
    try:
        words = fill(template, {"start": start})
    except ArgumentError:
        return
    assert all(isinstance(word.text, str) for word in words)


def test_the_program_is_taken_as_it_is() -> None:
    words = filled_argv(["/opt/{x}", "{start.uid}"], CONTEXT)
    assert [word.text for word in words] == ["/opt/{x}", "abc"]


def test_all_words_together_have_a_limit() -> None:
    with pytest.raises(ArgumentError, match="all words together"):
        filled_argv(["x", *["{start.x}"] * 9], {"start": {"x": "a" * 131_000}})


def test_an_environment_has_single_values() -> None:
    assert filled_environment({"A": "{start.uid}"}, CONTEXT)["A"].text == "abc"
    with pytest.raises(ArgumentError, match="environment A"):
        filled_environment({"A": "{*start.motors}"}, CONTEXT)


# ---- Trigger(...).run(arg_list)


@pytest.mark.parametrize(
    ("arg_list", "expected"),
    [
        (["cmd"], ("cmd",)),
        (["cmd a b"], ("cmd", "a", "b")),
        (["cmd", ["a", "b"]], ("cmd", "a", "b")),
        (["cmd", "a", "b"], ("cmd", "a", "b")),
        (("cmd", ("a",)), ("cmd", "a")),
        (["cmd", []], ("cmd",)),
        (["/my dir/cmd", []], ("/my dir/cmd",)),
        (["'/my dir/cmd' 'a b' \"c\""], ("/my dir/cmd", "a b", "c")),
        (["cmd", 3, 1.5, Path("/data/f")], ("cmd", "3", "1.5", "/data/f")),
        ([Path("/my dir/cmd")], ("/my dir/cmd",)),
        (["cmd {start.uid}"], ("cmd", "{start.uid}")),
    ],
)
def test_the_four_shapes_of_a_list(arg_list: Any, expected: tuple[str, ...]) -> None:
    assert trigger_argv(arg_list) == expected


@pytest.mark.parametrize(
    "words",
    [
        ["a b", "c"],  # was three words
        ["it's"],  # was an unbalanced quote for the remote shell
        ['x"; touch /PWNED; "'],  # closed the quotes and escaped
        ["$(id)"],  # was executed
        ["a b", ""],  # the empty one was gone
        ["&"],  # ran the rest in the background
        ["|", ">", "/etc/passwd"],
        ["a\nb", "ü", "\\", "*", "~"],
    ],
)
def test_words_that_another_package_broke_arrive_as_they_are(words: list[str]) -> None:
    assert trigger_argv(["cmd", *words]) == ("cmd", *words)
    assert trigger_argv(["cmd", words]) == ("cmd", *words)


def test_one_text_is_split_and_not_interpreted() -> None:
    assert trigger_argv(["cmd $(id) `id` ; rm -rf * & a>b"]) == (
        "cmd", "$(id)", "`id`", ";", "rm", "-rf", "*", "&", "a>b",
    )  # fmt: skip


@given(st.lists(st.text(), min_size=2))
def test_a_list_of_words_arrives_word_by_word_or_is_refused(words: list[str]) -> None:
    if not words[0] or any(unsafe(word) for word in words):
        with pytest.raises(ArgumentError):
            trigger_argv(words)
    else:
        assert trigger_argv(words) == tuple(words)


@pytest.mark.parametrize(
    ("arg_list", "expected"),
    [
        ([], "is empty"),
        ("cmd a", "a list of arguments is expected"),
        (None, "a list of arguments is expected"),
        ({"a": 1}, "a list of arguments is expected"),
        ([""], "there is no program"),
        (["  "], "there is no program"),
        (["", "a"], "there is no program"),
        ([[]], "[] is no text, number or path"),
        (["cmd", "a", ["b"]], "['b'] is no text, number or path"),
        (["cmd", None], "None is no text, number or path"),
        (["cmd", True], "True is no text, number or path"),
        (["cmd", b"a"], "is no text, number or path"),
        (["cmd 'a"], "no closing quotation"),
        (["cmd", "a\0"], "it holds a NUL"),
        (["cmd", "a" * 131_072], "longer than 131071 bytes"),
        (["cmd", *["a" * 131_000] * 9], "all words together"),
    ],
)
def test_what_is_no_list_of_arguments_is_refused(arg_list: Any, expected: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        trigger_argv(arg_list)
    assert expected in str(caught.value)
