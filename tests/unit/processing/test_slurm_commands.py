"""Command lines for Slurm, and its answers as they were recorded (22.05.8, and forms of others)."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from bluesky_plugins.processing.model import JobState, Resources, Submission
from bluesky_plugins.processing.targets.command_runner import remote_command
from bluesky_plugins.processing.targets.folders import checked_work_dir, folder_of
from bluesky_plugins.processing.targets.ports import Completed, Fault, SubmitRefused, TransportError
from bluesky_plugins.processing.targets.slurm import REPORT, WRAPPER
from bluesky_plugins.processing.targets.slurm_commands import (
    NO_FOLDER,
    NOT_THERE,
    answer_of_estimate,
    answer_of_queue,
    answer_of_submission,
    cancel_command,
    estimate_command,
    install_command,
    mark_command,
    queue_command,
    report_command,
    resource_options,
    state_of,
    submit_command,
)

KEY = "ab" * 32


def submission(**fields: Any) -> Submission:
    return Submission(**{"key": KEY, "attempt": 1, "argv": ("/bin/true",), **fields})


def said(stderr: str = "", stdout: str = "", status: int = 1) -> Completed:
    return Completed(status, stdout.encode(), stderr.encode())


# -- command lines --------------------------------------------------------------------------


def submit_words(**fields: Any) -> list[str]:
    return submit_command(
        submission(**fields),
        spec=b"{}",
        folder="/w/ab/x/1",
        wrapper=WRAPPER,
        work_dir="/w",
        python="python3",
    )


def test_all_resources_become_options() -> None:
    need = Resources(
        partition="allgpu",
        reservation="upex_1",
        account="acc",
        qos="high",
        nodes=2,
        tasks=4,
        cpus=8,
        memory_mb=1000,
        gpus=1,
        features=("P100", "fast"),
        time_limit_s=90,
    )

    assert resource_options(submission(resources=need)) == [
        "--partition=allgpu",
        "--reservation=upex_1",
        "--account=acc",
        "--qos=high",
        "--nodes=2",
        "--ntasks=4",
        "--cpus-per-task=8",
        "--mem=1000M",
        "--gres=gpu:1",
        "--constraint=P100&fast",
        "--time=3",
    ]


def test_what_is_not_asked_for_is_no_option() -> None:
    assert resource_options(submission()) == []


@pytest.mark.parametrize(("seconds", "minutes"), [(0.1, 2), (60, 2), (61, 3), (3600, 61)])
def test_slurm_s_limit_comes_after_the_wrapper_s(seconds: float, minutes: int) -> None:
    need = Resources(time_limit_s=seconds)

    assert resource_options(submission(resources=need)) == [f"--time={minutes}"]


def test_a_submission_is_named_and_never_requeued() -> None:
    words = submit_words(attempt=3)

    assert {"--no-requeue", "--parsable", f"--job-name=bp-{KEY[:16]}", "--comment=bp:3"} <= set(
        words
    )


def test_no_word_of_the_job_is_in_a_command() -> None:
    hostile = "$(touch /tmp/x); 'evil'"

    words = submit_words(
        argv=("/bin/evil", hostile),
        environment={"EVIL": hostile},
        directory="/evil",
        outputs=("evil",),
    )

    assert not [word for word in words if "evil" in word.lower()]


@pytest.mark.parametrize(
    "words",
    [
        submit_words(),
        install_command(WRAPPER, "/w d", make=True),
        report_command(REPORT, "/w d", "python3"),
        mark_command("/w d/ab/x/1"),
        cancel_command(["12", "13"]),
        estimate_command(submission()),
        queue_command(),
    ],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_a_login_shell_hands_every_word_on(words: list[str], shell: str) -> None:
    show = ["printf", r"%s\0", *words]

    done = subprocess.run([shell, "-c", remote_command(show)], capture_output=True, check=True)

    assert done.stdout.decode().split("\0")[:-1] == words


@pytest.mark.parametrize("word", ["a\nb", "a\0b", "\x1b[2J"])
def test_a_control_character_is_not_sent(word: str) -> None:
    with pytest.raises(ValueError, match="control character"):
        remote_command(["echo", word])


@pytest.mark.parametrize("path", ["work", "", "/a/../b", "/a%j", "/a\\b", "/a\nb", "~/x"])
def test_a_working_folder_that_slurm_would_read_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="working folder"):
        checked_work_dir(path)


def test_the_folder_of_an_attempt() -> None:
    assert folder_of("/w d", KEY, 2) == f"/w d/ab/{KEY}/2"


def test_the_queue_is_asked_once_for_all() -> None:
    assert queue_command("maxwell") == [
        "env",
        "TZ=UTC",
        "squeue",
        "--me",
        "--states=all",
        "--noheader",
        "--format=%i|%j|%T|%k|%S|%r",
        "--clusters=maxwell",
    ]


# -- the scripts on the target, with stand-ins for Slurm ------------------------------------


class Host:
    """A folder with stand-ins, and the scripts as a target runs them."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.work = folder / "bin", folder / "work d"
        self.bin.mkdir()

    def stand_in(self, name: str, text: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.bin / name).chmod(0o755)

    def run(self, words: list[str], stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        environment = {"PATH": f"{self.bin}:/usr/bin:/bin"}
        return subprocess.run(words, input=stdin, capture_output=True, env=environment, check=False)

    def submit(
        self, spec: bytes = b"{}", arrives: bytes | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        words = submit_command(
            submission(),
            spec=spec,
            folder=str(self.work / "ab" / KEY / "1"),
            wrapper=WRAPPER,
            work_dir=str(self.work),
            python="python3",
        )
        return self.run(words, spec if arrives is None else arrives)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host(tmp_path)
    made.stand_in("sbatch", 'cat > "$0.script"; for w in "$@"; do echo "$w"; done')
    return made


def test_without_the_wrapper_nothing_is_submitted(host: Host) -> None:
    assert host.submit().returncode == NOT_THERE
    assert not (host.bin / "sbatch.script").exists()


def test_with_another_wrapper_nothing_is_submitted(host: Host) -> None:
    host.run(install_command(WRAPPER, str(host.work), make=True), WRAPPER.text)
    Path(WRAPPER.path(str(host.work))).write_text("import os; os.system('evil')")

    assert host.submit().returncode == NOT_THERE


def test_a_wrapper_that_arrives_incomplete_is_not_put_there(host: Host) -> None:
    done = host.run(install_command(WRAPPER, str(host.work), make=True), WRAPPER.text[:-1])

    assert done.returncode != 0
    assert not Path(WRAPPER.path(str(host.work))).exists()


def test_a_working_folder_that_is_not_mounted_is_not_made_up(host: Host) -> None:
    far = str(host.work / "gone" / "work")

    for make in (True, False):
        assert host.run(install_command(WRAPPER, far, make=make), WRAPPER.text).returncode != 0
    assert host.run(install_command(REPORT, str(host.work), make=False), REPORT.text).returncode
    assert not host.work.exists()


def test_the_specification_is_there_before_the_job_is(host: Host) -> None:
    host.run(install_command(WRAPPER, str(host.work), make=True), WRAPPER.text)
    folder = host.work / "ab" / KEY / "1"
    host.stand_in("sbatch", f"cat {str(folder / 'spec.json')!r}; cat > /dev/null")

    done = host.submit(b'{"some": "text"}')

    assert (done.returncode, done.stdout) == (0, b'{"some": "text"}')
    assert [path.name for path in folder.iterdir()] == ["spec.json"]
    assert folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("arrives", [b"", b'{"some": "te'])
def test_a_specification_that_arrives_cut_is_not_submitted(host: Host, arrives: bytes) -> None:
    host.run(install_command(WRAPPER, str(host.work), make=True), WRAPPER.text)

    done = host.submit(b'{"some": "text"}', arrives)

    assert (done.returncode, done.stderr) == (NO_FOLDER, b"spec.json was cut\n")
    assert not (host.bin / "sbatch.script").exists()
    assert not (host.work / "ab" / KEY / "1" / "spec.json").exists()


def test_the_batch_script_is_constant(host: Host) -> None:
    host.run(install_command(WRAPPER, str(host.work), make=True), WRAPPER.text)

    words = host.submit().stdout.decode().splitlines()

    assert (host.bin / "sbatch.script").read_text() == '#!/bin/sh\nexec "$@"\n'
    folder = str(host.work / "ab" / KEY / "1")
    job = ["python3", "-I", "-S", WRAPPER.path(str(host.work)), "run", folder]
    assert words[-7:] == ["/dev/stdin", *job]


def test_a_folder_that_cannot_be_made_is_told(host: Host) -> None:
    host.run(install_command(WRAPPER, str(host.work), make=True), WRAPPER.text)
    (host.work / "ab").write_text("in the way")

    done = host.submit()

    assert done.returncode == NO_FOLDER
    with pytest.raises(TransportError) as error:
        answer_of_submission(Completed(done.returncode, done.stdout, done.stderr))
    assert (error.value.doubtful, error.value.fault) == (False, Fault.FOLDER)


def test_an_attempt_is_marked_before_it_is_looked_for(host: Host) -> None:
    folder = host.work / "ab" / KEY / "1"
    host.stand_in("squeue", f'ls {str(folder)!r}; echo "$1"')
    host.work.mkdir()

    done = host.run(mark_command(str(folder)))

    assert done.stdout == b"cancel\n--me\n"


def test_no_mark_is_made_where_the_working_folder_is_not_mounted(host: Host) -> None:
    host.stand_in("squeue", "true")

    assert host.run(mark_command(str(host.work / "ab" / KEY / "1"))).returncode == 0
    assert not host.work.exists()


# -- what sbatch answers --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stdout", "native_id"),
    [
        ("23\n", "23"),
        ("23;maxwell\n", "23"),
        ("Welcome to the cluster!\n23\n", "23"),
        ("Last login: 1\n\n4711", "4711"),
    ],
)
def test_the_id_is_read(stdout: str, native_id: str) -> None:
    assert answer_of_submission(said("", stdout, 0)) == native_id


PERMANENT = [
    "invalid partition specified: nope\n"
    "sbatch: error: Batch job submission failed: Invalid partition name specified",
    "Batch job submission failed: Requested reservation is invalid",
    "Batch job submission failed: Invalid feature specification",
    "Batch job submission failed: Requested node configuration is not available",
    "Batch job submission failed: Invalid generic resource (gres) specification",
    "Batch job submission failed: Invalid account or account/partition combination specified",
    "Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)",
    "Memory specification can not be satisfied",
    "QOSMaxWallDurationPerJobLimit\nsbatch: error: Batch job submission failed: "
    "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
    "Batch job submission failed: Something that is said by Slurm 31",
]
PRESSURE = [
    "QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: "
    "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
    "AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: "
    "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
    "Batch job submission failed: Resource temporarily unavailable",
    "Slurm temporarily unable to accept job, sleeping and retrying",
    "Batch job submission failed: Required partition not available (inactive or drain)",
    "Batch job submission failed: Requested partition configuration not available now",
    "Batch job submission failed: I/O error writing script/environment to file",
]
DOUBTFUL = [
    "Batch job submission failed: Socket timed out on send/recv operation",
    "Batch job submission failed: Zero Bytes were transmitted or received",
    "Batch job submission failed: Unexpected message received",
    "Batch job submission failed: Connection reset by peer",
]
NOT_REACHED = [
    "Batch job submission failed: Unable to contact slurm controller (connect failure)",
    "Batch job submission failed: Slurm backup controller in standby mode",
    "If munged is up, restart with --num-threads=10\n"
    'sbatch: error: Munge encode failed: Failed to access "/run/munge/munge.socket.2"',
    "Batch job submission failed: Protocol authentication error",
    "Batch job submission failed: Invalid authentication credential",
    "resolve_ctls_from_dns_srv: res_nsearch error: Unknown host\n"
    "sbatch: fatal: Could not establish a configuration source",
]


@pytest.mark.parametrize("words", PERMANENT)
def test_a_refusal_for_ever_has_slurm_s_own_words(words: str) -> None:
    with pytest.raises(SubmitRefused) as refused:
        answer_of_submission(said(f"sbatch: error: {words}\n"))
    assert (refused.value.permanent, refused.value.pressure) == (True, False)
    assert refused.value.reason == words.replace("\nsbatch: error: ", "; ")


@pytest.mark.parametrize("words", PRESSURE)
def test_a_full_queue_is_pressure(words: str) -> None:
    with pytest.raises(SubmitRefused) as refused:
        answer_of_submission(said(f"sbatch: error: {words}\n"))
    assert (refused.value.permanent, refused.value.pressure) == (False, True)


@pytest.mark.parametrize("words", DOUBTFUL)
def test_a_lost_answer_is_doubtful(words: str) -> None:
    with pytest.raises(TransportError) as error:
        answer_of_submission(said(f"sbatch: error: {words}\n"))
    assert (error.value.doubtful, error.value.fault) == (True, Fault.SCHEDULER)
    assert words in error.value.reason


@pytest.mark.parametrize("words", NOT_REACHED)
def test_a_controller_that_is_not_reached_did_nothing(words: str) -> None:
    with pytest.raises(TransportError) as error:
        answer_of_submission(said(f"sbatch: error: {words}\n"))
    assert (error.value.doubtful, error.value.fault) == (False, Fault.SCHEDULER)


@pytest.mark.parametrize(
    "done",
    [
        said("", "", 0),
        said("", "no number", 0),
        said("", "", -9),
        said("", "", 143),
    ],
    ids=["silent", "chatty", "killed", "terminated"],
)
def test_an_end_that_says_nothing_is_doubtful(done: Completed) -> None:
    with pytest.raises(TransportError) as error:
        answer_of_submission(done)
    assert error.value.doubtful


def test_a_host_without_slurm_is_named() -> None:
    with pytest.raises(TransportError) as error:
        answer_of_submission(said("sh: 1: exec: sbatch: not found\n", status=127))
    assert (error.value.doubtful, error.value.fault) == (False, Fault.NO_PROGRAM)


# -- what squeue answers --------------------------------------------------------------------

QUEUE = """\
CLUSTER: maxwell
12|bp-aaaaaaaaaaaaaaaa|RUNNING|bp:1|2026-11-21T11:09:18|None
9|bp-bbbbbbbbbbbbbbbb|PENDING|bp:2|2026-11-21T11:39:18|Resources
7|somebody else's|RUNNING|(null)|2026-11-21T11:09:18|None
10|bp-cccccccccccccccc|FAILED|bp:1|2026-11-21T11:09:18|NonZeroExitCode
11|bp-dddddddddddddddd|PENDING|(null)|N/A|ReqNodeNotAvail, UnavailableNodes:a|b
"""


def test_the_queue_is_read() -> None:
    rows = answer_of_queue(said("", QUEUE, 0))

    assert [(r.name[3], r.found.native_id, r.found.attempt, r.found.state) for r in rows] == [
        ("b", "9", 2, JobState.QUEUED),
        ("c", "10", 1, JobState.FAILED),
        ("d", "11", None, JobState.QUEUED),
        ("a", "12", 1, JobState.RUNNING),
    ]
    assert [row.found.reason for row in rows] == [
        "PENDING: Resources",
        "FAILED: NonZeroExitCode",
        "PENDING: ReqNodeNotAvail, UnavailableNodes:a|b",
        "RUNNING",
    ]
    assert [row.found.expected for row in rows] == [1795261158.0, None, None, None]


def test_an_empty_queue_is_an_answer() -> None:
    assert answer_of_queue(said("", "", 0)) == []


@pytest.mark.parametrize(
    "words",
    [
        "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
        "slurm_load_jobs error: Socket timed out on send/recv operation",
        "slurm_load_jobs error: Zero Bytes were transmitted or received",
        "",
    ],
)
def test_a_queue_that_cannot_be_read_is_no_empty_queue(words: str) -> None:
    with pytest.raises(TransportError) as error:
        answer_of_queue(said(words))
    assert (error.value.doubtful, error.value.fault) == (False, Fault.SCHEDULER)


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("PENDING", "queued"),
        ("CONFIGURING", "queued"),
        ("REQUEUED", "queued"),
        ("SUSPENDED", "running"),
        ("COMPLETING", "running"),
        ("COMPLETED", "succeeded"),
        ("NODE_FAIL", "failed"),
        ("OUT_OF_MEMORY", "failed"),
        ("TIMEOUT", "timed_out"),
        ("CANCELLED", "cancelled"),
        ("CANCELLED by 1000", "cancelled"),
        ("CANCELLED+", "cancelled"),
    ],
)
def test_states_are_translated(word: str, state: str) -> None:
    assert state_of(word) == state


def test_a_state_of_a_later_slurm_moves_nothing() -> None:
    (row,) = answer_of_queue(said("", "1|bp-a|LAUNCHING_ROCKET|bp:1|N/A|None\n", 0))

    assert (row.found.state, row.found.reason) == (JobState.QUEUED, "LAUNCHING_ROCKET")


# -- what sbatch --test-only answers --------------------------------------------------------


def test_the_expected_start_is_read_as_utc() -> None:
    words = (
        "sbatch: Job 5 to start at 2026-11-21T08:00:00 using 1 processors on nodes n in partition p"
    )

    assert answer_of_estimate(said(words, status=0)) == 1795248000.0


def test_an_unknown_start_is_unknown() -> None:
    assert answer_of_estimate(said("", status=0)) is None


def test_an_estimate_is_refused_as_a_submission_would_be() -> None:
    with pytest.raises(SubmitRefused, match="Invalid partition name"):
        answer_of_estimate(said("allocation failure: Invalid partition name specified"))


def test_an_estimate_has_no_effect_to_doubt() -> None:
    with pytest.raises(TransportError) as error:
        answer_of_estimate(said("allocation failure: Socket timed out on send/recv operation"))
    assert not error.value.doubtful


@pytest.mark.parametrize(("word", "suspended"), [("RUNNING", False), ("SUSPENDED", True)])
def test_a_job_that_is_suspended_is_known_as_one(word: str, suspended: bool) -> None:
    (row,) = answer_of_queue(said(stdout=f"5|bp-abc|{word}|bp:1|N/A|None\n", status=0))

    assert (row.found.state, row.found.suspended) == (JobState.RUNNING, suspended)
