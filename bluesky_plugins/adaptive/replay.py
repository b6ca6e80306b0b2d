"""Computes a batch again from what MongoDB keeps of its log, and says where it differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, assert_never

from bluesky_plugins.adaptive.asking import Asked
from bluesky_plugins.adaptive.configuration import Rules, rules_of
from bluesky_plugins.adaptive.intake import Entry
from bluesky_plugins.adaptive.log import BatchLog, Cause, Unloggable, canonical
from bluesky_plugins.adaptive.machine import step
from bluesky_plugins.adaptive.model import RecommenderRequest, Suggestion
from bluesky_plugins.adaptive.registry import Registry
from bluesky_plugins.adaptive.state import (
    Close,
    Compute,
    Computed,
    Event,
    Instruction,
    Order,
    Publish,
    Published,
    Wait,
    begin,
)
from bluesky_plugins.adaptive.store import BatchStore
from bluesky_plugins.adaptive.stored import stored_entries
from bluesky_plugins.settings import Settings, load_settings

__all__ = ["Difference", "ReplayReport", "replay_batch"]

NOT_COMPARED = ("time",)
NOWHERE = Cause("replay", 0, 0)


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it was. `where`: an entry of the log, or a suggestion."""

    where: str
    what: str
    then: Any = None
    now: Any = None

    def __str__(self) -> str:
        values = "" if self.then is None and self.now is None else f": {self.then} -> {self.now}"
        return f"{self.where}: {self.what}{values}"


@dataclass(frozen=True)
class ReplayReport:
    """What came of computing a batch again."""

    batch_id: str
    entries: int
    suggestions: int
    differences: list[Difference] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """Whether everything but the times came out bit for bit as it was."""
        return not self.differences

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "same": self.same}

    def as_text(self) -> str:
        """For people."""
        done = f"{self.entries} entries read, {self.suggestions} suggestions computed again"
        if self.same:
            return f"{self.batch_id}: {done}; all as they were"
        lines = [f"{self.batch_id}: {done}; {len(self.differences)} differences"]
        return "\n".join([*lines, *(f"  {difference}" for difference in self.differences)])


def replay_batch(
    store: BatchStore,
    batch_id: str,
    settings: Settings | None = None,
    *,
    registry: Registry | None = None,
) -> ReplayReport | None:
    """Compute the suggestions of a batch again.

    Documents are read by their uids from the documents' database, all else from the batch's
    stored log. Where what came out then and what comes out now differ, the batch goes on with
    what stood then, so that each difference is told once.

    :param settings: for what a batch's record does not say; the usual ones unless given.
    :param registry: the recommenders there are.
    :return: None if there is no such batch.
    :raises pymongo.errors.PyMongoError: if MongoDB does not answer.
    """
    record = store.batch(batch_id)
    if record is None:
        return None
    registry = registry or Registry()
    rules = _rules_then(rules_of((settings or load_settings()).adaptive, registry.describe), record)
    then = [Suggestion.model_validate(doc) for doc in store.batch_suggestions(batch_id)]
    replay = _Replay(batch_id, rules, registry, {(s.batch_count, s.revision): s for s in then})
    replay.read(store)
    replay.count_what_was_not_asked()
    return ReplayReport(batch_id, len(replay.log), len(replay.asked_for), replay.differences)


def _rules_then(rules: Rules, record: Mapping[str, Any]) -> Rules:
    """The rules with what the batch was given at its opening as the defaults."""
    # Which recipes there were then, and whether any, its record says.
    rules = replace(rules, unknown=lambda key, mode: _without_key(record.get("error")))
    given = record.get("recommender")
    if given is None:
        return rules
    defaults = RecommenderRequest(
        name=given["name"],
        parameters=given["parameters"],
        max_count=record["max_count"],
        independent_keys=record["independent_keys"],
        dependent_keys=record["dependent_keys"],
    )
    return replace(rules, defaults=defaults)


def _without_key(error: str | None) -> str | None:
    return None if error is None else error.removeprefix("dependent key ")


class _Replay:
    def __init__(
        self,
        batch_id: str,
        rules: Rules,
        registry: Registry,
        then: Mapping[tuple[int, int], Suggestion],
    ) -> None:
        self.differences: list[Difference] = []
        self.asked_for: set[tuple[int, int]] = set()
        self.log = BatchLog()
        self._rules = rules
        self._registry = registry
        self._then = then
        self._state = begin(batch_id)
        self._recommender: Asked | None = None
        self._altered = False

    def read(self, store: BatchStore) -> None:
        for record, entry in stored_entries(store, self._state.batch_id):
            if entry is None:
                where = f"entry {record['n']}, {record['name']} {record['uid']}"
                self.differences.append(Difference(where, "is not stored any more"))
            else:
                self._append(record, entry)

    def _append(self, record: Mapping[str, Any], entry: Entry) -> None:
        where = f"entry {record['n']}, {entry.routed.name} {entry.routed.uid}"
        _, name, uid, doc = entry.routed
        try:
            new = self.log.append(name, uid, doc, entry.cause, entry.time)
        except Unloggable as error:
            self.differences.append(Difference(where, str(error)))
            return
        if new is None:
            self.differences.append(Difference(where, "stands twice in the log"))
            return
        # All hashes after an altered entry differ: only the first one says where.
        if new.digest != record["digest"] and not self._altered:
            self._altered = True
            self.differences.append(Difference(where, "is not what was read then"))
        self._step(new)

    def _step(self, event: Event) -> None:
        self._state, commands = step(self._rules, self._state, event)
        for command in commands:
            self._carry_out(command)

    def _carry_out(self, command: Instruction) -> None:
        match command:
            case Compute(_, count, revision, _, calls, length):
                reply = self._asked(command).reply(calls, length)
                self._step(Computed(count, revision, reply))
            case Publish(suggestion):
                self._compare(suggestion)
            case Close() | Order() | Wait():
                pass  # they come of time, and the log has them
            case _:
                assert_never(command)

    def _asked(self, compute: Compute) -> Asked:
        if self._recommender is None:
            info = compute.configuration.recommender
            self._recommender = Asked(
                info.name,
                lambda: self._registry.make(info.name, info.parameters, info.seed),
                compute.configuration.independent_keys,
            )
        return self._recommender

    def _compare(self, now: Suggestion) -> None:
        key = (now.batch_count, now.revision)
        then = self._then.get(key)
        if key in self.asked_for:
            return  # it was repeated, not computed again
        self.asked_for.add(key)
        where = f"suggestion {now.batch_count}, revision {now.revision}"
        if then is None:
            self.differences.append(Difference(where, "was not given then", None, _point(now)))
        else:
            self.differences += _differences(where, then, now)
        self._step(Published(then or now, NOWHERE))

    def count_what_was_not_asked(self) -> None:
        for key, suggestion in self._then.items():
            if key not in self.asked_for:
                where = f"suggestion {key[0]}, revision {key[1]}"
                difference = Difference(where, "is not asked for now", _point(suggestion), None)
                self.differences.append(difference)


def _point(suggestion: Suggestion) -> str:
    return f"{suggestion.action} {dict(suggestion.point)}"


def _differences(where: str, then: Suggestion, now: Suggestion) -> list[Difference]:
    before, after = then.model_dump(mode="json"), now.model_dump(mode="json")
    return [
        Difference(where, name, before[name], after[name])
        for name in before
        if name not in NOT_COMPARED
        and canonical({"value": before[name]}) != canonical({"value": after[name]})
    ]
