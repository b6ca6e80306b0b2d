"""Jobs of several accounts on one cluster: each by its own connection, not too many of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bluesky_plugins.processing.model import Login, Submission, job_key
from bluesky_plugins.processing.targets.logins import LoginScheduler
from bluesky_plugins.processing.targets.ports import Fault, TransportError
from bluesky_plugins.testing import FakeScheduler


def key_of(number: int) -> str:
    return job_key(f"run-{number}", "recipe", "1", {})


class Cluster:
    """Accounts a0, a1... with a job each; a scheduler in memory for each account."""

    def __init__(self, folder: Path, accounts: int, *, most: int = 8) -> None:
        self.key = folder / "key"
        self.key.touch(mode=0o600)
        self.key.chmod(0o600)
        self.logins = {key_of(number): self.login(number) for number in range(accounts)}
        self.made: list[tuple[str, Closable]] = []
        self.scheduler = LoginScheduler(self.logins.get, self.open, most=most)

    def login(self, number: int) -> Login:
        return Login(host="node", user=f"a{number}", key=str(self.key), work_dir="/w")

    def open(self, login: Login) -> Closable:
        self.made.append((login.user, Closable()))
        return self.made[-1][1]

    async def submit(self, number: int) -> str:
        one = Submission(key=key_of(number), attempt=1, argv=("/bin/true",))
        return await self.scheduler.submit(one)

    @property
    def connected(self) -> int:
        return sum(not one.closed for _, one in self.made)


class Closable(FakeScheduler):
    closed = False

    async def close(self) -> None:
        self.closed = True


def test_each_job_is_submitted_as_its_own_account(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 2)

    async def both() -> None:
        await cluster.submit(0)
        await cluster.submit(1)
        await cluster.scheduler.poll([(key_of(0), 1, None)])

    asyncio.run(both())
    assert [(user, len(one.submissions)) for user, one in cluster.made] == [("a0", 1), ("a1", 1)]


def test_one_account_that_cannot_be_asked_holds_up_no_other(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 3)

    async def asked() -> None:
        for number in range(3):
            await cluster.submit(number)
        cluster.made[1][1].down = True
        keys = [key_of(number) for number in range(3)]
        seen = await cluster.scheduler.poll([(key, 1, None) for key in keys])
        assert {key for key, _ in seen} == {keys[0], keys[2]}
        assert (await cluster.scheduler.find(keys)).keys() == {keys[0], keys[2]}
        with pytest.raises(TransportError, match="nobody answers"):
            await cluster.scheduler.find([keys[1]])

    asyncio.run(asked())


def test_no_more_connections_than_the_limit_are_kept(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 6, most=2)

    async def all_of_them() -> None:
        await asyncio.gather(*(cluster.submit(number) for number in range(6)))
        assert cluster.connected == 2
        await cluster.scheduler.close()

    asyncio.run(all_of_them())
    assert cluster.connected == 0


def test_a_key_that_others_may_read_is_not_used(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 1)
    cluster.key.chmod(0o604)
    with pytest.raises(TransportError, match="others may read or write it") as error:
        asyncio.run(cluster.submit(0))
    assert (error.value.fault, error.value.doubtful) == (Fault.AUTHENTICATION, False)
    assert cluster.made == []


def test_a_job_whose_account_nobody_knows_is_not_submitted(tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="nobody knows as which account"):
        asyncio.run(Cluster(tmp_path, 1).submit(5))
