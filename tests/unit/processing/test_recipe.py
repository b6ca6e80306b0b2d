"""The file that recipes are written in, and what it says of its faults."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bluesky_plugins.processing.recipes.recipe import Condition, RecipeError, read_recipes

FULL = """
recipes:
  - name: focus
    version: "2"
    description: centroid and width of each frame
    when:
      after: point
      start: {plan_name: [scan, adaptive_scan], num_points: {at_least: 3}}
      exit_status: [success, abort]
    targets: [slurm, local]
    argv: [/opt/env/bin/python, /opt/reduce.py, "--in={file.path}", "{parameters.threshold}"]
    environment: {RUN: "{start.uid}"}
    parameters: {threshold: 3.5}
    resources: {partition: gpu, gpus: 1, features: [A100], memory_mb: 4000, time_limit_s: 600}
    outputs: ["*.h5"]
    result: {numbers: [centroid, width]}
    paths: {demand: true}
    wait_s: 120
"""


def one(**changes: Any) -> str:
    """A file with one recipe, as YAML, which takes JSON."""
    return json.dumps({"recipes": [{"name": "r", "argv": ["/bin/x"], **changes}]})


def fault(text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        read_recipes(text)
    return str(caught.value)


def test_a_file_with_all_that_a_recipe_can_say() -> None:
    (recipe,) = read_recipes(FULL)
    assert recipe.targets == ("slurm", "local")
    assert recipe.when.start is not None
    assert recipe.when.start["plan_name"].any_of == ("scan", "adaptive_scan")
    assert recipe.result is not None
    assert recipe.result.file == "numbers.json"


def test_the_recipes_of_the_how_to_are_some() -> None:
    page = Path(__file__).parents[3] / "docs" / "how-to" / "write-a-recipe.md"
    texts = re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
    names = [recipe.name for text in texts for recipe in read_recipes(text)]
    assert names == ["focus", "follow"]


def test_an_empty_file_has_no_recipes() -> None:
    assert read_recipes("") == ()


def test_a_recipe_needs_little() -> None:
    (recipe,) = read_recipes("recipes: [{name: r, argv: [/bin/x]}]")
    assert (recipe.version, recipe.targets, recipe.when.start) == ("1", ("local",), None)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"wen": {}}, "recipes.0 (r).wen: unknown key; did you mean when?"),
        (
            {"when": {"aftr": "run"}},
            "recipes.0 (r).when.aftr: unknown key; did you mean after?",
        ),
        (
            {"when": {"start": {"x": {"at_leest": 3}}}},
            "recipes.0 (r).when.start.x.at_leest: unknown key; did you mean at_least?",
        ),
        (
            {"resources": {"partion": "gpu"}},
            "recipes.0 (r).resources.partion: unknown key; did you mean partition?",
        ),
        ({"version": 1}, "recipes.0 (r).version: 1: input should be a valid string; put it in"),
        ({"argv": ["/bin/x", True]}, "recipes.0 (r).argv.1: True: input should be a valid string"),
        ({"when": {"after": "runn"}}, "'point' or 'batch'; did you mean run?"),
        ({"argv": "/bin/x a"}, "recipes.0 (r).argv: '/bin/x a': a list is expected"),
        ({"argv": []}, "recipes.0 (r).argv: []: list should have at least 1 item"),
        ({"argv": [""]}, "recipes.0 (r): argv: the program is empty"),
        ({"argv": ["{start.program}"]}, "the program '{start.program}' cannot have placeholders"),
        ({"argv": ["x", "a\0b"]}, "argv.1: 'a\\x00b': it holds a NUL"),
        ({"argv": ["x", "{strat.uid}"]}, "nothing is called strat; did you mean start?"),
        ({"argv": ["x", "{start.uid"]}, "expected '}' before end of string; {{ and }} are"),
        ({"argv": ["x", "{}"]}, "{} is no placeholder"),
        ({"argv": ["x", "{start.uid!r}"]}, "{start.uid!r} is no placeholder"),
        ({"argv": ["x", "{start.n:>9999}"]}, ">9999 is no format of a number"),
        ({"argv": ["x", "{start.n:{stop.m}}"]}, "is no format of a number"),
        ({"argv": ["x", "a{*files.path}"]}, "{*...} has to be alone in its word"),
        ({"argv": ["x", "{start.__class__.__init__}"]}, None),
        (
            {"argv": ["x", "{parameters.treshold}"], "parameters": {"threshold": 1}},
            "{parameters.treshold}: the recipe has no such parameter; did you mean threshold?",
        ),
        ({"environment": {"A B": "x"}}, "environment.A B"),
        ({"environment": {"A": "{nothing.x}"}}, "nothing is called nothing"),
        ({"directory": "{*files.path}"}, "is a single value"),
        ({"targets": ["a", "a"]}, "a target is named twice"),
        ({"wait_s": 5}, "wait_s needs a second target"),
        ({"name": "a.b"}, "recipes.0 (a.b).name: 'a.b': string should match pattern"),
        ({"kind": "viewer", "result": {"numbers": ["x"]}}, "a viewer has neither"),
        ({"result": {"numbers": []}}, "result.numbers"),
        ({"result": {"numbers": ["a"], "file": "/etc/passwd"}}, "below the working directory"),
        ({"when": {"start": {"x": {}}}}, "recipes.0 (r).when.start.x: says nothing"),
        ({"resources": {"time_limit_s": -1}}, "time_limit_s: -1: input should be greater than 0"),
    ],
)
def test_a_fault_names_key_value_and_what_was_meant(
    changes: dict[str, Any], expected: str | None
) -> None:
    if expected is None:
        read_recipes(one(**changes))  # a path of keys, and never of attributes
    else:
        assert expected in fault(one(**changes))


def test_each_fault_has_its_line() -> None:
    text = fault(one(version=1, wen=2, resources={"gpus": 0}))
    assert len(text.splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("recipes: [", "line 1, column 11: expected the node content"),
        ("recipes: 3", "recipes: 3: a list is expected"),
        ("- 3", "the file: [3]: a mapping is expected"),
        ("recipe: []", "recipe: unknown key; did you mean recipes?"),
        ("recipes:\n- {name: a, argv: [x]}\n- {name: a, argv: [x]}", "two recipes are called a"),
        ("recipes:\n- name: a\n  argv: [x]\n  name: b", "line 4: the key name is there twice"),
        ("recipes:\n- !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: " + "[" * 5000, "not YAML"),
        ("#" * 1_000_001, "longer than 1000000"),
        ("a: \0", "special characters are not allowed"),
    ],
)
def test_what_is_no_file_of_recipes_is_said(text: str, expected: str) -> None:
    assert expected in fault(text)


def test_a_file_that_blows_up_when_written_out_is_refused_at_once() -> None:
    lines = ["a: &a0 [x, x]"] + [f"b{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
    assert "b59: unknown key" in fault("\n".join(lines))
    nested = ["recipes:", "- name: r", "  argv:", "  - &a0 [x, x]"]
    nested += [f"  - &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
    assert "argv.59" in fault("\n".join(nested))


def test_yaml_anchors_and_merges_work() -> None:
    text = "recipes:\n- &a {name: a, argv: [x]}\n- {<<: *a, name: b}"
    assert [recipe.name for recipe in read_recipes(text)] == ["a", "b"]


@pytest.mark.parametrize(
    ("condition", "value", "unmet"),
    [
        ({"equals": 1}, 1, None),
        ({"equals": 1}, 1.0, None),
        ({"equals": 1}, True, "is True, not equals 1"),
        ({"equals": "scan"}, "count", "is 'count', not equals 'scan'"),
        ({"any_of": ["a", "b"]}, "b", None),
        ({"any_of": ["a", "b"]}, "c", "is 'c', not any of ['a', 'b']"),
        ({"like": "ca*"}, "camera", None),
        ({"like": "ca*"}, 3, "is 3, not like 'ca*'"),
        ({"contains": "det"}, ["det", "x"], None),
        ({"contains": "det"}, {"det": 1}, None),
        ({"contains": "det"}, "detector", "is 'detector', not contains 'det'"),
        ({"at_least": 3, "at_most": 5}, 4, None),
        ({"at_least": 3, "at_most": 5}, 6, "is 6, not at most 5"),
        ({"at_least": 3}, "4", "is '4', not at least 3"),
        ({"at_least": 0}, True, "is True, not at least 0"),
        ({"present": True}, None, None),
        ({"present": False}, 1, "is there"),
    ],
)
def test_a_condition_holds_or_says_why_not(
    condition: dict[str, Any], value: Any, unmet: str | None
) -> None:
    assert Condition.model_validate(condition).unmet(value, present=True) == unmet


def test_a_condition_on_a_key_that_is_not_there() -> None:
    assert Condition(equals=1).unmet(None, present=False) == "is not there"
    assert Condition(present=True).unmet(None, present=False) == "is not there"
    assert Condition(present=False).unmet(None, present=False) is None
