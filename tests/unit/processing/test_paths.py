"""Paths of the beamline on a target, and back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from bluesky_plugins.processing.recipes.paths import PathError, PathMapper, PathPolicy, PathRule
from bluesky_plugins.processing.recipes.templates import Filled

CORE = "/asap3/petra3/gpfs/p99/2024/data/1"
RULES = (
    PathRule(view="core", local="/gpfs/current", remote=CORE),
    PathRule(
        view="beamline",
        local="/gpfs/current/processed",
        remote="/beamline/p99/current/processed",
    ),
    PathRule(view="core", local="/gpfs/current/processed", remote=f"{CORE}/processed"),
)
MAPPER = PathMapper(RULES)

PARTS = st.text(alphabet="abü .-$'\n", min_size=1, max_size=4).filter(
    lambda s: s not in (".", "..")
)
PATHS = st.lists(PARTS, max_size=4).map(lambda parts: "".join("/" + part for part in parts))
ROOTS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(lambda p: "/" + "/".join(p))
TABLES = st.lists(
    st.builds(PathRule, view=st.sampled_from(["core", "beamline"]), local=ROOTS, remote=ROOTS),
    min_size=1,
    max_size=4,
)


@given(TABLES, st.data(), PATHS, st.sampled_from([None, "core", "beamline"]))
def test_there_and_back_is_the_same_path(
    rules: list[PathRule], data: st.DataObject, rest: str, view: str | None
) -> None:
    try:
        mapper = PathMapper(rules)
    except ValueError:
        assume(False)
    path = data.draw(st.sampled_from(rules)).local + rest
    mapped = mapper.map(path, view)
    assume(mapped is not None)
    assert mapper.unmap(mapped.path) == path


@given(TABLES, PATHS)
def test_what_is_mapped_is_below_the_remote_root(rules: list[PathRule], path: str) -> None:
    try:
        mapper = PathMapper(rules)
    except ValueError:
        assume(False)
    mapped = mapper.map(path)
    if mapped is not None:
        assert mapped.path == mapped.rule.remote or mapped.path.startswith(mapped.rule.remote + "/")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/gpfs/current/raw/s1/f.h5", f"{CORE}/raw/s1/f.h5"),
        ("/gpfs/current/processed/r.h5", "/beamline/p99/current/processed/r.h5"),
        ("/gpfs/current", CORE),
        ("/gpfs/current/", CORE),
        ("//gpfs//current/./raw//f.h5", f"{CORE}/raw/f.h5"),
        ("/gpfs/current/raw/a b'$(id)\n.h5", f"{CORE}/raw/a b'$(id)\n.h5"),
        ("/gpfs/current/raw/..f", f"{CORE}/raw/..f"),
    ],
)
def test_the_longest_root_counts(path: str, expected: str) -> None:
    mapped = MAPPER.map(path)
    assert mapped is not None
    assert mapped.path == expected


@pytest.mark.parametrize(
    "path",
    [
        "/gpfs/currently/raw/f.h5",
        "/home/raw/gpfs/current/raw/f.h5",  # its first `raw` meant nothing
        "/gpfs",
        "gpfs/current/raw/f.h5",
        "",
        "raw",
        "/opt/../etc/x",
    ],
)
def test_what_is_below_no_root_stays_as_it_is(path: str) -> None:
    assert MAPPER.map(path) is None
    assert MAPPER.word(Filled(path)) == path


@pytest.mark.parametrize(
    "path",
    [
        "/gpfs/current/raw/../../etc/passwd",
        "/gpfs/current/..",
        "/gpfs/../gpfs/current/raw/f.h5",
        "/opt/../gpfs/current/raw/f.h5",
        "/gpfs/current/raw/../raw/f.h5",
    ],
)
def test_dots_that_climb_are_refused_at_a_root(path: str) -> None:
    with pytest.raises(PathError, match=r"holds \.\."):
        MAPPER.map(path)
    with pytest.raises(PathError, match=r"holds \.\."):
        MAPPER.word(Filled(f"--input={path}"))


def test_a_view_can_be_chosen() -> None:
    path = "/gpfs/current/processed/r.h5"
    mapped = MAPPER.map(path, "core")
    assert mapped is not None
    assert (mapped.path, mapped.view) == (f"{CORE}/processed/r.h5", "core")
    assert MAPPER.map("/gpfs/current/raw/f.h5", "beamline") is None


def test_both_views_lead_back() -> None:
    for remote in (f"{CORE}/processed/r.h5", "/beamline/p99/current/processed/r.h5"):
        assert MAPPER.unmap(remote) == "/gpfs/current/processed/r.h5"
    assert MAPPER.unmap("/elsewhere/f") is None
    with pytest.raises(PathError):
        MAPPER.unmap(f"{CORE}/../2/f")


def test_rules_without_a_way_back_are_refused() -> None:
    with pytest.raises(ValueError, match="would both be /x/y"):
        PathMapper([PathRule(local="/a", remote="/x"), PathRule(local="/b", remote="/x/y")])


@pytest.mark.parametrize("root", ["relative", "/", "//", "/a/../b", ""])
def test_a_root_is_an_absolute_folder(root: str) -> None:
    with pytest.raises(ValidationError):
        PathRule(local=root, remote="/x")
    with pytest.raises(ValidationError):
        PathRule(local="/x", remote=root)


def test_a_symlink_out_of_the_tree_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tree" / "in").mkdir(parents=True)
    (tmp_path / "secret").write_text("x")
    (tmp_path / "tree" / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "tree" / "within").symlink_to(tmp_path / "tree" / "in")
    mapper = PathMapper([PathRule(local=str(tmp_path / "tree"), remote="/x")])

    def real(path: str) -> str:
        return str(Path(path).resolve())

    with pytest.raises(PathError, match="by a symlink"):
        mapper.map(str(tmp_path / "tree" / "out"), real=real)
    mapped = mapper.map(str(tmp_path / "tree" / "within" / "f"), real=real)
    assert mapped is not None
    assert mapped.path == "/x/within/f"


def test_a_root_that_is_itself_a_symlink_is_a_root(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "current").symlink_to(tmp_path / "store")
    mapper = PathMapper([PathRule(local=str(tmp_path / "current"), remote="/x")])
    mapped = mapper.map(str(tmp_path / "current" / "f"), real=lambda p: str(Path(p).resolve()))
    assert mapped is not None


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("--input=/gpfs/current/raw/f", f"--input={CORE}/raw/f"),
        ("-i=/gpfs/current/raw/f", f"-i={CORE}/raw/f"),
        ("-I/gpfs/current/raw/f", "-I/gpfs/current/raw/f"),
        ("see /gpfs/current", "see /gpfs/current"),
        ("--input=", "--input="),
    ],
)
def test_a_path_in_an_option_is_mapped_too(word: str, expected: str) -> None:
    assert MAPPER.word(Filled(word)) == expected


def test_a_recipe_may_demand_that_a_path_is_mapped() -> None:
    demand = PathPolicy(demand=True)
    word = Filled("--in=/data/f.h5", ("/data/f.h5",))
    assert MAPPER.word(word) == "--in=/data/f.h5"
    with pytest.raises(PathError, match=r"/data/f.h5 is below no root .*\(/gpfs/current"):
        MAPPER.word(word, demand)
    # The target's own paths are written by the recipe, not filled in.
    assert MAPPER.word(Filled("/opt/reduce.py"), demand) == "/opt/reduce.py"
    assert MAPPER.word(Filled("s1", ("s1",)), demand) == "s1"


def test_a_target_without_rules_changes_nothing() -> None:
    assert PathMapper().word(Filled("/gpfs/current/../x")) == "/gpfs/current/../x"
