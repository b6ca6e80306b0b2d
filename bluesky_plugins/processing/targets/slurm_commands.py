"""What is said to Slurm and what it says: command lines and their outputs, and no more.

Every text that is sent is an argv list, and none of its words comes from a run: the program of a
job and its arguments travel in `spec.json`. Two short constant shell scripts do on the target
what must be one step there; what they work on comes to them as positional parameters.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from bluesky_plugins.processing.model import Found, JobState, Submission
from bluesky_plugins.processing.targets.ports import Completed, Fault, SubmitRefused, TransportError

__all__ = [
    "NOT_THERE",
    "QueueRow",
    "Shipped",
    "answer_of_cancel",
    "answer_of_estimate",
    "answer_of_queue",
    "answer_of_submission",
    "cancel_command",
    "estimate_command",
    "install_command",
    "mark_command",
    "queue_command",
    "report_command",
    "state_of",
    "submit_command",
]

# Slurm's own limit ends a job after the wrapper's, so that the wrapper can say how it ended.
MARGIN_S = 60.0
# Exit status of our scripts: the shipped file is not there, or is another; the folder fails.
NOT_THERE, NO_FOLDER = 91, 92
# One line without ! and ', so that a csh as login shell hands it on as it is.
CHECK = f'[ "$(sha256sum < "$2" 2>/dev/null)" = "$1  -" ] || exit {NOT_THERE}; '
# The batch script, as constant as the rest: it becomes what its parameters say.
BATCH = r"printf " r'"#\041/bin/sh\nexec \"\$@\"\n"'
# A connection that is cut meanwhile looks to cat like the end of the text.
WHOLE = (
    '[ "$(sha256sum < "$3/spec.json.$$")" = "$4  -" ] || { echo "spec.json was cut" >&2; false; }'
)
SUBMIT = (
    f"{CHECK}u=$(umask); umask 077; "
    f'mkdir -p "$3" && cat > "$3/spec.json.$$" && {{ {WHOLE}; }} '
    '&& mv -f "$3/spec.json.$$" "$3/spec.json" '
    f'|| exit {NO_FOLDER}; umask "$u"; shift 4; {BATCH} | "$@"'
)
TEST = f'{BATCH} | TZ=UTC "$@"'
REPORT = f'{CHECK}f=$2; shift 2; exec "$@" "$f"'
# Only a submission makes the working folder, and nothing above it: a file system that is not
# mounted must not look like one on which no attempt has left a record.
MAKE = '[ -d "$3" ] || mkdir "$3" 2> /dev/null || [ -d "$3" ] || mkdir "$3" || exit; '
INSTALL = (
    'cd "$3" && mkdir -p "${2%/*}" && cat > "$2.$$" '
    '&& [ "$(sha256sum < "$2.$$")" = "$1  -" ] && mv -f "$2.$$" "$2"'
)
# Marked before it is looked for: what starts in between sees the mark.
MARK = (
    'umask 077; if [ -d "${1%/*/*/*}" ]; then mkdir -p "$1" && : > "$1/cancel" '
    f'|| exit {NO_FOLDER}; fi; shift; exec "$@"'
)
QUEUE_FORMAT = "%i|%j|%T|%k|%S|%r"


# ---- command lines


@dataclass(frozen=True)
class Shipped:
    """A file of this package that a target needs a copy of."""

    name: str
    text: bytes

    @property
    def digest(self) -> str:
        """sha256 of the text, hexadecimal."""
        return hashlib.sha256(self.text).hexdigest()

    def path(self, work_dir: str) -> str:
        """Where its copy belongs on a target."""
        return f"{work_dir}/programs/{self.name}-{self.digest}.py"


def _script(text: str, *parameters: str) -> list[str]:
    return ["/bin/sh", "-c", text, "sh", *parameters]


def install_command(file: Shipped, work_dir: str, *, make: bool) -> list[str]:
    """Put a file of ours in its place; its text comes on standard input.

    :param make: whether the working folder is made if it is not there.
    """
    script = f"umask 077; {MAKE if make else ''}{INSTALL}"
    return _script(script, file.digest, file.path(work_dir), work_dir)


def resource_options(submission: Submission) -> list[str]:
    """What a submission needs, as options of sbatch."""
    need = submission.resources
    words = {
        "partition": need.partition,
        "reservation": need.reservation,
        "account": need.account,
        "qos": need.qos,
        "nodes": need.nodes,
        "ntasks": need.tasks,
        "cpus-per-task": need.cpus,
        "mem": None if need.memory_mb is None else f"{need.memory_mb}M",
        "gres": None if need.gpus is None else f"gpu:{need.gpus}",
        "constraint": "&".join(need.features) or None,
        "time": None if need.time_limit_s is None else _minutes(need.time_limit_s),
    }
    return [f"--{name}={word}" for name, word in words.items() if word is not None]


def _minutes(time_limit_s: float) -> int:
    return math.ceil((time_limit_s + MARGIN_S) / 60)


def _clusters(cluster: str | None) -> list[str]:
    return [] if cluster is None else [f"--clusters={cluster}"]


def _sbatch(submission: Submission, folder: str, cluster: str | None) -> list[str]:
    return [
        *("sbatch", "--parsable", "--no-requeue", "--open-mode=append"),
        f"--job-name={submission.job_name}",
        f"--comment=bp:{submission.attempt}",
        f"--chdir={folder}",
        f"--output={folder}/log",
        *_clusters(cluster),
        *resource_options(submission),
    ]


def submit_command(
    submission: Submission,
    *,
    spec: bytes,
    folder: str,
    wrapper: Shipped,
    work_dir: str,
    python: str,
    cluster: str | None = None,
) -> list[str]:
    """Write `spec.json`, which comes on standard input, and submit the wrapper that reads it.

    It ends with `NOT_THERE` where the wrapper is not installed, and nothing is done then; nor is
    it when another text than `spec` arrives.
    """
    digest = hashlib.sha256(spec).hexdigest()
    path = wrapper.path(work_dir)
    job = [python, "-I", "-S", path, "run", folder]
    sbatch = [*_sbatch(submission, folder, cluster), "/dev/stdin", *job]
    return _script(SUBMIT, wrapper.digest, path, folder, digest, *sbatch)


def estimate_command(submission: Submission, cluster: str | None = None) -> list[str]:
    """Ask when a submission would start, and submit nothing."""
    options = [*_clusters(cluster), *resource_options(submission)]
    return _script(TEST, "sbatch", "--test-only", *options, "/dev/stdin", "true")


def queue_command(cluster: str | None = None) -> list[str]:
    """All jobs of this account that Slurm still knows: one query, however many they are."""
    options = ["--me", "--states=all", "--noheader", f"--format={QUEUE_FORMAT}"]
    # What it says of time shall not depend on where it stands.
    return ["env", "TZ=UTC", "squeue", *options, *_clusters(cluster)]


def report_command(report: Shipped, work_dir: str, python: str) -> list[str]:
    """Ask the folders; the question comes on standard input."""
    return _script(REPORT, report.digest, report.path(work_dir), python, "-I", "-S")


def mark_command(folder: str, cluster: str | None = None) -> list[str]:
    """Mark an attempt as cancelled, and ask for the queue."""
    return _script(MARK, folder, *queue_command(cluster))


def cancel_command(native_ids: Sequence[str], cluster: str | None = None) -> list[str]:
    """Tell jobs to end, whether they wait or run."""
    return ["scancel", *_clusters(cluster), "--", *native_ids]


# ---- what Slurm answers

STATES = {
    **dict.fromkeys(
        ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED"), "queued"
    ),
    **dict.fromkeys(("SPECIAL_EXIT", "RESV_DEL_HOLD"), "queued"),
    **dict.fromkeys(("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING"), "running"),
    **dict.fromkeys(("RESIZING", "STAGE_OUT"), "running"),
    "COMPLETED": "succeeded",
    **dict.fromkeys(("FAILED", "OUT_OF_MEMORY", "NODE_FAIL", "BOOT_FAIL", "PREEMPTED"), "failed"),
    **dict.fromkeys(("TIMEOUT", "DEADLINE"), "timed_out"),
    **dict.fromkeys(("CANCELLED", "REVOKED"), "cancelled"),
}
SUBMITTED = re.compile(r"^([0-9]+)(?:;([A-Za-z0-9_.-]+))?$", re.MULTILINE)
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}")
START = re.compile(rf"to start at ({TIME.pattern})")
# The request may have been served although its answer did not come.
UNANSWERED = re.compile(
    r"timed out|Zero Bytes were transmitted|[Mm]essage (send|receive) failure|Unexpected message"
    r"|Connection reset|Broken pipe|Transport endpoint"
)
# It was not served: the controller was not reached, or did not know who asked.
DOWN = re.compile(
    r"Unable to contact slurm controller|[Cc]onnection refused|connect failure|No route to host"
    r"|[Mm]unge|authentication credential|authentication error|backup controller|standby"
    r"|Unable to establish configuration source|Could not establish a configuration source"
    r"|resolve_ctls_from_dns|Incompatible versions|Security violation"
)
PRESSURE = re.compile(
    r"Max(Submit)?Jobs|SubmitJobs?(PerUser|PerAccount)?Limit|temporarily unable|temporarily unav"
    r"|violates accounting/QOS policy|not available now|partition not available|Too many jobs"
    r"|I/O error|No space left|Unspecified error|configuring|in maintenance|draining"
)
ENDED = re.compile(r"already complet|Invalid job id")
# Of the causes that the last line calls a policy, those that time does not heal.
NEVER = re.compile(r"(QOS|Assoc)\w*(Wall|Cpu|CPU|Node|Tres|TRES|GRES|Mem|Time)\w*Limit|Invalid ")


def state_of(word: str) -> JobState | None:
    """Our name for a state of Slurm's; None if it is unknown."""
    name = STATES.get(word.split(" ")[0].rstrip("+"))
    return None if name is None else JobState(name)


@dataclass(frozen=True)
class QueueRow:
    """A job that Slurm knows."""

    name: str
    found: Found


def _said(done: Completed) -> str:
    """Slurm's own words, without the name of its program."""
    lines = done.stderr.decode(errors="replace").splitlines()
    words = [re.sub(r"^\w+: (error: |fatal: )?", "", line.strip()) for line in lines]
    return "; ".join(word for word in words if word)[-2000:]


def _not_served(done: Completed, said: str, *, effect: bool) -> TransportError:
    doubtful = effect and bool(UNANSWERED.search(said))
    if done.exit_status in (126, 127):
        return TransportError(said, doubtful=False, fault=Fault.NO_PROGRAM)
    return TransportError(said or "no reason given", doubtful=doubtful, fault=Fault.SCHEDULER)


def answer_of_submission(done: Completed) -> str:
    """The id of the job that sbatch made.

    :raises SubmitRefused: if Slurm said no.
    :raises TransportError: if Slurm was not reached, or it is not known what it did.
    """
    said = _said(done)
    found = list(SUBMITTED.finditer(done.stdout.decode(errors="replace")))
    if done.exit_status == 0 and found:
        return found[-1][1]
    if done.exit_status == 0 or done.exit_status < 0 or done.exit_status > 128:
        reason = f"sbatch ended with {done.exit_status} and no job id: {said}"
        raise TransportError(reason, doubtful=True, fault=Fault.ANSWER)
    if done.exit_status == NO_FOLDER:
        raise TransportError(said, doubtful=False, fault=Fault.FOLDER)
    if done.exit_status in (126, 127) or UNANSWERED.search(said) or DOWN.search(said):
        raise _not_served(done, said, effect=True)
    raise _refusal(said)


def _refusal(said: str) -> SubmitRefused:
    pressure = bool(PRESSURE.search(said)) and not NEVER.search(said)
    return SubmitRefused(said or "no reason given", permanent=not pressure, pressure=pressure)


def answer_of_estimate(done: Completed) -> float | None:
    """When a job would start, s since the epoch; None if Slurm does not say.

    :raises SubmitRefused: if it would not be taken.
    :raises TransportError: if Slurm was not reached.
    """
    said = _said(done)
    start = START.search(said)
    if start is not None:
        return _time_of(start[1])
    if done.exit_status == 0:
        return None
    if done.exit_status >= 126 or UNANSWERED.search(said) or DOWN.search(said):
        raise _not_served(done, said, effect=False)
    raise _refusal(said)


def answer_of_cancel(done: Completed) -> None:
    """Nothing: scancel is content with jobs that have ended, and says nothing of the others.

    :raises TransportError: if Slurm was not reached.
    """
    if done.exit_status != 0 and not ENDED.search(_said(done)):
        raise _not_served(done, _said(done), effect=True)


def answer_of_queue(done: Completed) -> list[QueueRow]:
    """The jobs that squeue tells of, as far as they are ours, in order of submission.

    :raises TransportError: if Slurm was not reached.
    """
    if done.exit_status == NO_FOLDER:
        raise TransportError(_said(done), doubtful=False, fault=Fault.FOLDER)
    if done.exit_status != 0:
        raise _not_served(done, _said(done), effect=False)
    rows = []
    for line in done.stdout.decode(errors="replace").splitlines():
        words = line.split("|", 5)
        if len(words) != 6 or not words[1].startswith("bp-"):
            continue  # a heading of a cluster, a greeting of the host, somebody's other job
        rows.append(_row(*words))
    return sorted(rows, key=lambda row: int(re.sub(r"\D.*", "", row.found.native_id) or 0))


def _time_of(word: str) -> float | None:
    """A time of Slurm's, in UTC, in s since the epoch; None for `N/A` and the like."""
    if not TIME.fullmatch(word):
        return None
    return datetime.fromisoformat(word).replace(tzinfo=UTC).timestamp()


def _row(native_id: str, name: str, word: str, comment: str, start: str, why: str) -> QueueRow:
    # A state of a later Slurm says no more than that the job is known; no job goes back by it.
    state = state_of(word) or JobState.QUEUED
    attempt = re.fullmatch(r"bp:([0-9]{1,9})", comment)
    reason = word if why in ("", "None") else f"{word}: {why}"
    number = int(attempt[1]) if attempt and int(attempt[1]) else None
    found = Found(
        native_id=native_id,
        attempt=number,
        state=state,
        reason=reason[:4096],
        suspended=word.startswith(("SUSPENDED", "STOPPED")),
        expected=_time_of(start) if state is JobState.QUEUED else None,
    )
    return QueueRow(name, found)
