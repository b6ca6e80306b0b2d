"""What may go wrong between the service and a Slurm cluster, done to a real one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from bluesky_plugins.processing.model import (
    EndReason,
    JobState,
    Observation,
    Resources,
    ResultRecord,
    Submission,
    job_key,
)
from bluesky_plugins.processing.targets.command_runner import LocalRunner
from bluesky_plugins.processing.targets.folders import folder_of
from bluesky_plugins.processing.targets.openssh import OpensshRunner
from bluesky_plugins.processing.targets.ports import (
    CommandRunner,
    Fault,
    SubmitRefused,
    TransportError,
)
from bluesky_plugins.processing.targets.slurm import WRAPPER, SlurmScheduler
from bluesky_plugins.processing.targets.ssh import AsyncsshRunner
from tests.servers import free_port
from tests.slurm import SlurmSite

pytestmark = [pytest.mark.system, pytest.mark.asyncio, pytest.mark.timeout(600)]
DEADLINE = 120.0
PYTHON = "/usr/bin/python3"
LOST_REPLY = """
/usr/bin/sbatch "$@" > /dev/null
echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2
exit 1
"""


def submission(code: str, *arguments: str, **fields: Any) -> Submission:
    key = job_key(f"run-{uuid4()}", "recipe", "1", {})
    return Submission(
        **{"key": key, "attempt": 1, "argv": (PYTHON, "-S", "-c", code, *arguments), **fields}
    )


def counted(count: Path) -> Submission:
    """A job that leaves a mark each time it works."""
    return submission("import sys; open(sys.argv[1], 'a').write('x')", str(count))


def scheduler(site: SlurmSite, runner: CommandRunner | None = None) -> SlurmScheduler:
    runner = runner or LocalRunner(environment=site.environment)
    return SlurmScheduler(
        runner, str(site.work_dir), python=PYTHON, heartbeat_s=0.1, patience_s=DEADLINE
    )


async def see(target: SlurmScheduler, job: Submission, native_id: str | None = None) -> Observation:
    return (await target.poll([(job.key, job.attempt, native_id)]))[job.key, job.attempt]


async def until(what: Callable[[], Awaitable[Any]], why: str) -> Any:
    deadline = time.monotonic() + DEADLINE
    while not (found := await what()):
        assert time.monotonic() < deadline, why
        await asyncio.sleep(0.1)
    return found


async def record(target: SlurmScheduler, job: Submission) -> ResultRecord:
    async def ended() -> ResultRecord | None:
        return (await see(target, job)).record

    return await until(ended, "it ends")


async def runs(target: SlurmScheduler, job: Submission) -> None:
    async def beats() -> bool:
        return (await see(target, job)).heartbeat is not None

    await until(beats, "it runs")


@contextlib.contextmanager
def fault() -> Any:
    """The transport error of the body, to be looked at after it."""
    with pytest.raises(TransportError) as error:
        yield error


@pytest.fixture
def site(slurm_site: SlurmSite) -> Any:
    yield slurm_site
    for path in slurm_site.bin.iterdir():
        path.unlink()


# -- SSH ------------------------------------------------------------------------------------

KINDS = ["asyncssh", "openssh", "openssh-single"]


def make_runner(kind: str, site: SlurmSite, **changes: Any) -> CommandRunner:
    login: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": site.ssh_port,
        "key": "user_key",
        "known_hosts": site.known_hosts(),
        "user": site.user,
        **changes,
    }
    keys = [site.folder / login["key"]]
    places = {"port": login["port"], "keys": keys, "known_hosts": login["known_hosts"]}
    if kind == "asyncssh":
        return AsyncsshRunner(login["host"], username=login["user"], config=[], **places)
    destination = f"{login['user']}@{login['host']}"
    multiplex = kind == "openssh"
    return OpensshRunner(destination, config=Path(os.devnull), multiplex=multiplex, **places)


@pytest_asyncio.fixture(params=KINDS)
async def connect(
    request: pytest.FixtureRequest, site: SlurmSite
) -> AsyncIterator[Callable[..., CommandRunner]]:
    """`connect(**changes)`: a runner to the site, of each kind."""
    made: list[CommandRunner] = []

    def make(**changes: Any) -> CommandRunner:
        made.append(make_runner(request.param, site, **changes))
        return made[-1]

    yield make
    for runner in made:
        await runner.close()


async def test_words_arrive_over_ssh_as_they_are(connect: Any) -> None:
    words = ["a b", "", "it's", '"', "$(id)", "*", "ü", "-n", "\\", "~", "!1"]

    done = await connect().run(["printf", r"%s\0", *words], within=DEADLINE)

    assert (done.exit_status, done.stderr) == (0, b"")
    assert done.stdout.decode().split("\0")[:-1] == words


async def test_bytes_pass_both_ways(connect: Any) -> None:
    data = bytes(range(256)) * 2000

    done = await connect().run(["cat"], stdin=data, within=DEADLINE)

    assert done.stdout == data


@pytest.mark.parametrize("status", [1, 91, 255])
async def test_the_status_of_a_remote_command(connect: Any, status: int) -> None:
    script = f"echo out; printf err >&2; exit {status}"

    done = await connect().run(["sh", "-c", script], within=DEADLINE)

    assert (done.exit_status, done.stdout, done.stderr) == (status, b"out\n", b"err")


async def test_a_command_that_does_not_read_is_no_error(connect: Any) -> None:
    done = await connect().run(["true"], stdin=b"x" * 1_000_000, within=DEADLINE)

    assert done.exit_status == 0


async def test_more_commands_than_a_connection_takes(connect: Any) -> None:
    runner = connect()

    done = await asyncio.gather(
        *(runner.run(["echo", str(number)], within=DEADLINE) for number in range(20))
    )

    assert [one.stdout for one in done] == [f"{number}\n".encode() for number in range(20)]


async def test_a_command_that_hangs_is_given_up(connect: Any) -> None:
    with fault() as error:
        await connect().run(["sleep", "30"], within=1.5)

    assert (error.value.fault, error.value.doubtful) == (Fault.TIMED_OUT, True)


async def test_wrong_host_key(connect: Any, site: SlurmSite) -> None:
    with fault() as error:
        await connect(known_hosts=site.known_hosts("other_host_key")).run(["true"], within=DEADLINE)

    assert (error.value.fault, error.value.doubtful) == (Fault.HOST_KEY, False)


async def test_unknown_host_key(connect: Any, tmp_path: Path) -> None:
    (tmp_path / "known").touch()

    with fault() as error:
        await connect(known_hosts=tmp_path / "known").run(["true"], within=DEADLINE)

    assert (error.value.fault, error.value.doubtful) == (Fault.HOST_KEY, False)


async def test_wrong_account(connect: Any) -> None:
    with fault() as error:
        await connect(user="nobody-here").run(["true"], within=DEADLINE)

    assert (error.value.fault, error.value.doubtful) == (Fault.AUTHENTICATION, False)


async def test_wrong_key(connect: Any) -> None:
    with fault() as error:
        await connect(key="stranger_key").run(["true"], within=DEADLINE)

    assert (error.value.fault, error.value.doubtful) == (Fault.AUTHENTICATION, False)


async def test_refused(connect: Any) -> None:
    with fault() as error:
        await connect(port=free_port()).run(["true"], within=DEADLINE)

    assert (error.value.fault, error.value.doubtful) == (Fault.REFUSED, False)


async def test_unknown_host(connect: Any) -> None:
    with fault() as error:
        await connect(host="no-such-host.invalid").run(["true"], within=DEADLINE)

    assert (error.value.fault, error.value.doubtful) == (Fault.UNKNOWN_HOST, False)


class Wire:
    """A way to the site's sshd that can be cut."""

    def __init__(self, site: SlurmSite) -> None:
        self.port = free_port()
        self._site = site
        self._ends: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Wire:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
        self._site.know_port(self.port)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", self._site.ssh_port)
        self._ends += [writer, there[1]]
        for source, sink in ((reader, there[1]), (there[0], writer)):
            task = asyncio.create_task(self._copy(source, sink))
            self._tasks.add(task)

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.close()

    def cut(self) -> None:
        for end in self._ends:
            end.transport.abort()
        self._ends.clear()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_cut_around_the_effect_of_a_submission(
    connect: Any, site: SlurmSite, tmp_path: Path, when: str
) -> None:
    gate, cut, count = (tmp_path / name for name in ("gate", "cut", "count"))
    effect = "cat > /dev/null" if when == "before" else '/usr/bin/sbatch "$@"'
    job = counted(count)
    async with Wire(site) as wire:
        target = scheduler(site, connect(port=wire.port))
        await target.find([])
        until_cut = f"while [ ! -e {cut} ]; do sleep .1; done"
        site.stand_in("sbatch", f"{effect}\ntouch {gate}\n{until_cut}")
        under_way = asyncio.create_task(target.submit(job))
        while not gate.exists():
            assert not under_way.done()
            await asyncio.sleep(0.02)

        wire.cut()
        with fault() as error:
            await under_way
        cut.touch()
        assert (error.value.fault, error.value.doubtful) == (Fault.CUT, True)

        (site.bin / "sbatch").unlink()
        found = (await target.find([job.key]))[job.key]
        assert [one.attempt for one in found] == ([] if when == "before" else [1])
        await target.submit(job)
        await record(target, job)
        await no_more(target, job)
    assert count.read_text() == "x"


async def no_more(target: SlurmScheduler, job: Submission) -> None:
    async def all_ended() -> bool:
        return all(one.state.final for one in (await target.find([job.key]))[job.key])

    await until(all_ended, "whatever bears the job's name has ended")


# -- Slurm ----------------------------------------------------------------------------------


async def test_a_lost_reply_is_found_and_a_blind_repeat_does_no_work(
    site: SlurmSite, tmp_path: Path
) -> None:
    target, job = scheduler(site), counted(tmp_path / "count")
    site.stand_in("sbatch", LOST_REPLY)

    with fault() as error:
        await target.submit(job)
    (found,) = (await target.find([job.key]))[job.key]
    with fault():
        await target.submit(job)
    ended = await record(target, job)
    await no_more(target, job)

    assert (error.value.fault, error.value.doubtful) == (Fault.SCHEDULER, True)
    assert found.attempt == 1
    assert (tmp_path / "count").read_text() == "x"
    # Slurm may start the repeat before the first.
    both = (await target.find([job.key]))[job.key]
    assert len(both) == 2
    assert ended.native_id in {one.native_id for one in both}


ANY_FAULT = """
case $(($(od -An -N1 -tu1 /dev/urandom) % 4)) in
    0) cat > /dev/null; echo "sbatch: error: Socket timed out" >&2; exit 1;;
    1) /usr/bin/sbatch "$@" > /dev/null; kill -9 $$;;
    2) /usr/bin/sbatch "$@" > /dev/null; echo "sbatch: error: Zero Bytes were transmitted" >&2
       exit 1;;
    *) exec /usr/bin/sbatch "$@";;
esac
"""


async def test_whatever_happens_to_submissions_no_attempt_works_twice(
    site: SlurmSite, tmp_path: Path
) -> None:
    target = scheduler(site)
    site.stand_in("sbatch", ANY_FAULT)
    counts = [tmp_path / f"count{number}" for number in range(24)]
    jobs, doubts = [counted(count) for count in counts], []

    async def submitted_blindly(job: Submission) -> None:
        while True:
            try:
                await target.submit(job)
            except TransportError as error:
                doubts.append(error.doubtful)
            else:
                return

    await asyncio.gather(*(submitted_blindly(job) for job in jobs))

    async def all_ended() -> bool:
        seen = await target.poll([(job.key, 1, None) for job in jobs])
        found = await target.find([job.key for job in jobs])
        ended = all(one.state.final for rows in found.values() for one in rows)
        return ended and all(one.record for one in seen.values())

    await until(all_ended, "all have ended, and each has its record")
    assert [count.read_text() for count in counts] == ["x"] * 24
    assert doubts
    assert all(doubts)


async def test_another_file_in_the_wrapper_s_place_is_not_run(
    site: SlurmSite, tmp_path: Path
) -> None:
    target = scheduler(site)
    await target.submit(submission("pass"))
    place = Path(WRAPPER.path(str(site.work_dir)))
    await asyncio.to_thread(place.write_text, "import sys; sys.exit('evil')")
    job = counted(tmp_path / "count")

    await target.submit(job)

    assert (await record(target, job)).state is JobState.SUCCEEDED
    assert await asyncio.to_thread(place.read_bytes) == WRAPPER.text


async def test_a_requeue_does_no_second_work(site: SlurmSite, tmp_path: Path) -> None:
    count = tmp_path / "count"
    target = scheduler(site)
    job = submission(
        "import sys, time; open(sys.argv[1], 'a').write('x'); time.sleep(600)", str(count)
    )
    native_id = await target.submit(job)
    await until(lambda: asyncio.to_thread(count.exists), "it works")

    site.command("scontrol", "update", f"JobId={native_id}", "Requeue=1")
    done = site.command("scontrol", "requeue", native_id)
    assert done.returncode == 0, done.stderr
    folder = Path(folder_of(str(site.work_dir), job.key, 1))

    def over() -> bool:
        # Slurm holds a requeued job back for two minutes, from some moment after it is queued;
        # and it does not start a job again that ended before it could be requeued.
        site.command("scontrol", "update", f"JobId={native_id}", "StartTime=now")
        gone = not site.command("squeue", "-h", "-j", native_id).stdout.strip()
        return gone or (folder / "duplicates").exists()

    await until(lambda: asyncio.to_thread(over), "it was started again, or has ended")
    await no_more(target, job)

    assert count.read_text() == "x"


async def test_cancelled_by_somebody_else(site: SlurmSite) -> None:
    target, job = scheduler(site), submission("import time; time.sleep(600)")
    native_id = await target.submit(job)
    await runs(target, job)

    site.command("scancel", native_id)

    ended = await record(target, job)
    assert ended.reason is EndReason.SIGNALLED
    assert ended.detail in ("ended from outside by SIGTERM", "ended by SIGTERM")


async def test_a_job_that_waits_is_cancelled(site: SlurmSite) -> None:
    target = scheduler(site)
    job = submission("pass")
    site.stand_in("sbatch", '/usr/bin/sbatch --begin=now+1hour "$@"')
    native_id = await target.submit(job)

    await target.cancel(job.key, 1)

    async def cancelled() -> bool:
        found = (await see(target, job, native_id)).found
        return found is not None and found.state is JobState.CANCELLED

    await until(cancelled, "it is cancelled")


async def test_a_full_node_says_when_a_job_is_to_start(site: SlurmSite) -> None:
    target = scheduler(site)
    hour = Resources(cpus=8, time_limit_s=3600.0)
    first = submission("import time; time.sleep(600)", resources=hour)
    second = submission("pass", resources=hour)
    await target.submit(first)
    await runs(target, first)
    before = await target.expected_start(second)
    await target.submit(second)

    async def foreseen() -> float | None:
        found = (await see(target, second)).found
        return found.expected if found else None

    expected = await until(foreseen, "Slurm tells when it is to start")
    for job in (second, first):
        await target.cancel(job.key, 1)
    await record(target, first)

    now = time.time()
    assert before is not None
    assert 1800.0 < before - now < 4000.0
    assert 1800.0 < expected - now < 4000.0


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"partition": "nowhere"}, "Invalid partition name"),
        ({"features": ("flying",)}, "Invalid feature specification"),
        ({"reservation": "missing"}, "reservation"),
        ({"gpus": 1}, "(gres)"),
        ({"memory_mb": 10**6}, "Requested node configuration is not available"),
    ],
    ids=lambda value: str(value)[:20],
)
async def test_refused_for_ever(site: SlurmSite, resources: dict[str, Any], words: str) -> None:
    job = submission("pass", resources=Resources(**resources))

    with pytest.raises(SubmitRefused) as refused:
        await scheduler(site).submit(job)
    assert (refused.value.permanent, refused.value.pressure) == (True, False)
    assert words in refused.value.reason
    with pytest.raises(SubmitRefused):
        await scheduler(site).expected_start(job)


async def test_a_working_folder_that_is_not_there_is_not_an_end(site: SlurmSite) -> None:
    target, job = scheduler(site), submission("pass")
    await target.submit(job)
    await record(target, job)
    away = site.work_dir.with_name("away")
    site.work_dir.rename(away)
    try:
        with fault() as error:
            await see(target, job)
    finally:
        away.rename(site.work_dir)

    assert (error.value.fault, error.value.doubtful) == (Fault.FOLDER, False)


async def test_a_host_without_slurm(site: SlurmSite) -> None:
    target = scheduler(site, LocalRunner(environment={"PATH": "/nowhere"}))

    for asked in (target.find([]), target.submit(submission("pass"))):
        with fault() as error:
            await asked
        assert not error.value.doubtful


# -- parts of Slurm that stop ---------------------------------------------------------------


async def test_a_controller_that_stops_is_not_an_end(private_slurm_site: SlurmSite) -> None:
    site = private_slurm_site
    target, gate = scheduler(site), site.folder / "gate"
    wait = "import os, sys, time\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.1)"
    job = submission(wait, str(gate))
    native_id = await target.submit(job)
    await runs(target, job)

    # Not killed: it writes down some seconds late that there is a job, and would not know it again.
    site.controller.stop(DEADLINE)
    errors = await asyncio.gather(
        see(target, job, native_id),
        target.find([job.key]),
        target.submit(job),
        target.cancel(job.key, 1),
        return_exceptions=True,
    )
    for error in errors:
        assert isinstance(error, TransportError)
        assert (error.fault, error.doubtful) == (Fault.SCHEDULER, False)
    (Path(folder_of(str(site.work_dir), job.key, 1)) / "cancel").unlink()

    site.controller.start()

    async def known_again() -> bool:
        try:
            return (await see(target, job, native_id)).found is not None
        except TransportError:
            return False

    await until(known_again, "the controller knows the job again")
    gate.touch()
    assert (await record(target, job)).state is JobState.SUCCEEDED


async def test_without_munge_nothing_is_known(private_slurm_site: SlurmSite) -> None:
    site = private_slurm_site
    target = scheduler(site)
    site.munge.stop()

    asked = (target.find([]), target.submit(submission("pass")))
    for error in await asyncio.gather(*asked, return_exceptions=True):
        assert isinstance(error, TransportError)
        assert (error.fault, error.doubtful) == (Fault.SCHEDULER, False)


async def test_what_left_no_record_and_no_trace_is_gone(private_slurm_site: SlurmSite) -> None:
    site = private_slurm_site
    target, job = scheduler(site), submission("import os, time; os.kill(os.getppid(), 9)")
    native_id = await target.submit(job)

    async def failed_or_gone() -> bool:
        seen = await see(target, job, native_id)
        return seen.gone or (seen.found is not None and seen.found.state is JobState.FAILED)

    await until(failed_or_gone, "Slurm tells of its end")
    assert (await see(target, job, native_id)).record is None


async def test_on_a_node_that_is_down_the_heartbeat_tells_the_truth(
    private_slurm_site: SlurmSite,
) -> None:
    site = private_slurm_site
    target, gate = scheduler(site), site.folder / "gate"
    wait = "import os, sys, time\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.1)"
    job = submission(wait, str(gate))
    native_id = await target.submit(job)
    await runs(target, job)

    site.node.kill()
    node = f"NodeName={site.node_name}"
    site.command("scontrol", "update", node, "State=DOWN", "Reason=test")

    async def not_running() -> bool:
        found = (await see(target, job, native_id)).found
        return found is None or found.state is not JobState.RUNNING

    await until(not_running, "Slurm gives the job up")
    seen = await see(target, job, native_id)
    assert (seen.record, seen.heartbeat is not None and seen.heartbeat < 10) == (None, True)
    gate.touch()
    assert (await record(target, job)).state is JobState.SUCCEEDED
