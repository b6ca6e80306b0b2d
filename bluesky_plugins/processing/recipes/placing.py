"""A job out of a decision: its words filled, and each target's place with its own paths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from bluesky_plugins.processing.jobs.job import JobRecord, Place, Subject, key_of
from bluesky_plugins.processing.model import JobKind, Login, Name, Noun, Resources, ResultSpec
from bluesky_plugins.processing.recipes.arguments import filled_argv, filled_environment
from bluesky_plugins.processing.recipes.documents import PRIMARY, FileRecord, RunDocuments
from bluesky_plugins.processing.recipes.evaluation import Decision, Ending
from bluesky_plugins.processing.recipes.paths import PathError, PathMapper, PathPolicy, PathRule
from bluesky_plugins.processing.recipes.recipe import Recipe
from bluesky_plugins.processing.recipes.templates import ArgumentError, Filled, fill

__all__ = ["Target", "job_of", "merged", "person_job", "placeholder_values"]

Real = Callable[[str], str]


class Target(Noun):
    """What a job needs to know of a target: its paths, and what it adds to the resources.

    `programs`: name -> where the program of that name is there. `here`: it is this host.
    `login`: the account of its jobs, if not its own; `note`: where that and the resources are from.
    """

    name: Name
    paths: tuple[PathRule, ...] = ()
    programs: dict[str, str] = Field(default_factory=dict)
    resources: Resources = Resources()
    here: bool = False
    login: Login | None = None
    note: str = ""
    fault: str = ""

    def mapper(self) -> PathMapper:
        """The mapper of its paths.

        :raises ValueError: if there would be no way back.
        """
        return PathMapper(self.paths)

    def program(self, word: str) -> str:
        """The first word of an argument list, as it is called there."""
        return self.programs.get(word, word)


def merged(first: Resources, then: Resources) -> Resources:
    """Resources of `first`, and where that leaves something open, of `then`."""
    given = {name: value for name, value in first if value is not None}
    features = tuple(dict.fromkeys((*first.features, *then.features)))
    return then.model_copy(update={**given, "features": features})


def placeholder_values(
    recipe: Recipe, decision: Decision, ending: Ending, key: str
) -> dict[str, Any]:
    """What the placeholders of a recipe stand for."""
    run = ending.run
    streams = {run.stream(uid): doc for uid, doc in run.descriptors.items()}
    return {
        "start": run.start,
        "stop": run.stop,
        "descriptor": streams.get(PRIMARY),
        "descriptors": streams,
        "event": run.events.get(PRIMARY),
        "events": run.events,
        "file": _only(run),
        "files": [_shown_file(file) for file in run.files],
        "batch": ending.batch,
        "parameters": decision.parameters,
        "recipe": {"name": recipe.name, "version": recipe.version},
        "job": {"key": key},
    }


def _shown_file(file: FileRecord) -> dict[str, Any]:
    return file.model_dump(exclude_none=True)


def _only(run: RunDocuments) -> Any:
    """The only file, whose members are also found under its data key; or why there is none."""
    if not run.files:
        return ArgumentError("the run has no file")
    by_key: dict[str, Any] = {}
    for file in run.files:
        if file.data_key is not None:
            # Of several of one data key the last one counts: it holds the last point.
            by_key[file.data_key] = _shown_file(file)
    if len(run.files) == 1:
        return {**by_key, **_shown_file(run.files[0])}
    return by_key or ArgumentError(f"the run has {len(run.files)} files; {{*files.path}} is all")


def job_of(
    recipe: Recipe,
    decision: Decision,
    ending: Ending,
    targets: Mapping[str, Target],
    *,
    time: float,
    fresh: str = "",
    because: str = "",
    real: Real | None = None,
) -> JobRecord:
    """The job of a recipe that fires, not yet accepted.

    What is wrong with its words is a fault of all its places, what is wrong with its paths of
    one: so the job is stored, and fails with that reason before any submission.

    :param targets: name -> target; a name of the recipe that is not there is a fault.
    :param time: seconds since the epoch.
    :param fresh: an id of its own, for a job that shall be a new one although it was done.
    :param because: why, if there is more to say than the decision does.
    :param real: resolves the symlinks of a path that exists here.
    """
    subject, parameters = decision.subject, dict(decision.parameters)
    key = key_of(subject, recipe.name, recipe.version, parameters, fresh)
    words = _words_or_fault(recipe, placeholder_values(recipe, decision, ending, key))
    names = recipe.targets if decision.target is None else (decision.target,)
    return JobRecord(
        key=key,
        recipe=recipe.name,
        version=recipe.version,
        subject=subject,
        chain=_chain_of(ending.run),
        parameters=parameters,
        fresh=fresh,
        because=because or decision.reason,
        kind=recipe.kind,
        places=tuple(_place(recipe, name, targets, words, real) for name in names),
        outputs=recipe.outputs,
        result=recipe.result,
        wait_s=recipe.wait_s,
        accepted=time,
    )


def _chain_of(run: RunDocuments) -> tuple[str, ...]:
    """The recipes that a run is a result of, as its start document says."""
    made_by = run.start.get("processing_of")
    if not isinstance(made_by, Mapping):
        return ()
    chain = made_by.get("chain") or [made_by.get("recipe")]
    return tuple(map(str, chain)) if isinstance(chain, list | tuple) else ()


@dataclass(frozen=True, slots=True)
class _Words:
    argv: tuple[Filled, ...]
    environment: Mapping[str, Filled]
    directory: Filled | None


def _words_or_fault(recipe: Recipe, values: Mapping[str, Any]) -> _Words | str:
    directory = None
    try:
        if recipe.directory is not None:
            (directory,) = fill(recipe.directory, values)
        argv = filled_argv(recipe.argv, values)
        return _Words(argv, filled_environment(recipe.environment, values), directory)
    except ArgumentError as error:
        return str(error)


def _place(
    recipe: Recipe,
    name: str,
    targets: Mapping[str, Target],
    words: _Words | str,
    real: Real | None,
) -> Place:
    target = targets.get(name)
    if isinstance(words, str):
        return Place(target=name, argv=recipe.argv, fault=words)
    if target is None:
        return Place(target=name, argv=recipe.argv, fault=f"no target is called {name}")
    resources = merged(recipe.resources, target.resources)
    if target.fault:
        return Place(target=name, argv=recipe.argv, resources=resources, fault=target.fault)
    try:
        return _mapped(target, words, recipe.paths, resources, real)
    except (PathError, ValueError) as error:
        return Place(target=name, argv=recipe.argv, resources=resources, fault=str(error))


def _mapped(
    target: Target,
    words: _Words,
    policy: PathPolicy,
    resources: Resources,
    real: Real | None,
) -> Place:
    mapper = target.mapper()
    program, *arguments = words.argv
    environment = {
        variable: mapper.word(word, policy, real) for variable, word in words.environment.items()
    }
    directory = words.directory
    return Place(
        target=target.name,
        argv=(
            target.program(program.text),
            *(mapper.word(word, policy, real) for word in arguments),
        ),
        environment=environment,
        directory=None if directory is None else mapper.word(directory, policy, real),
        resources=resources,
        here=target.here,
        paths=target.paths,
        login=target.login,
        note=target.note,
    )


def person_job(
    argv: Sequence[str],
    targets: Sequence[Target],
    *,
    name: str,
    fresh: str,
    time: float,
    because: str,
    resources: Resources | None = None,
    kind: JobKind = "batch",
    result: ResultSpec | None = None,
    subject: Subject | None = None,
    real: Real | None = None,
) -> JobRecord:
    """The job of a person at a prompt: a new one each time, by its fresh id.

    :param argv: from `trigger_argv`; braces in it are braces.
    :param targets: in the order they are tried.
    :param name: what the job is called.
    :raises ValueError: without a fresh id or a target.
    """
    if not fresh or not targets:
        raise ValueError("a person's job needs a fresh id and a target")
    subject, needs = subject or Subject(), resources or Resources()
    return JobRecord(
        key=key_of(subject, name, "", {}, fresh),
        recipe=name,
        subject=subject,
        fresh=fresh,
        because=because,
        kind=kind,
        places=tuple(_person_place(argv, target, needs, real) for target in targets),
        result=result,
        accepted=time,
    )


def _person_place(
    argv: Sequence[str], target: Target, resources: Resources, real: Real | None
) -> Place:
    words = _Words(tuple(Filled(word) for word in argv), {}, None)
    needs = merged(resources, target.resources)
    fault = target.fault
    if not fault:
        try:
            return _mapped(target, words, PathPolicy(), needs, real)
        except (PathError, ValueError) as error:
            fault = str(error)
    return Place(target=target.name, argv=tuple(argv), resources=needs, fault=fault)
