"""From a run's stop document to its job that runs, against `ssh sbatch`; a burst of 1,000 runs.

A Slurm of one node with its sshd, as processes of this benchmark; ours reaches it by asyncssh, the
other by the `ssh` program, with a connection each time and with one that is kept.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pymongo import MongoClient

from benchmarks.round_trip import documents
from bluesky_plugins.messaging import Producer, make_topics
from bluesky_plugins.settings import Settings
from tests.slurm import SlurmSite, missing_programs, wait_until

ROUNDS, WARM, BURST, ALONE = 15, 2, 1000, 20
DEADLINE = 600.0
PYTHON = "/usr/bin/python3"
STAMP = "import sys, time; open(sys.argv[1], 'w').write(repr(time.time()))"
COUNTED = 'echo "$$" >> {count}; exec /usr/bin/{program} "$@"'


@contextmanager
def cluster() -> Iterator[SlurmSite]:
    """A Slurm that runs, and counts what it is asked."""
    if missing := missing_programs():
        raise RuntimeError(f"no Slurm here: {' '.join(missing)} would have to be installed")
    folder = Path(tempfile.mkdtemp(prefix="bp-slurm-"))
    site = SlurmSite(folder)
    try:
        site.start()
        for program in ("squeue", "sbatch"):
            site.stand_in(program, COUNTED.format(count=folder / program, program=program))
        yield site
    finally:
        site.stop()
        shutil.rmtree(folder, ignore_errors=True)


def asked(site: SlurmSite, program: str) -> int:
    """How often a program of Slurm has been run."""
    count = site.folder / program
    return len(count.read_text().splitlines()) if count.exists() else 0


# ---- ours


@contextmanager
def recommender(settings: Settings, site: SlurmSite, folder: Path) -> Iterator[int]:
    """The service, ready to process; its pid."""
    target = {
        "kind": "slurm",
        "via": "asyncssh",
        "host": "127.0.0.1",
        "port": site.ssh_port,
        "user": site.user,
        "keys": [str(site.folder / "user_key")],
        "known_hosts": str(site.known_hosts()),
        "ssh_config": os.devnull,
        "work_dir": str(site.work_dir),
        "python": PYTHON,
    }
    argv = [PYTHON, "-S", "-c", STAMP, f"{folder}/{{start.uid}}"]
    recipe = {"name": "stamp", "when": {"start": {}}, "targets": ["cluster"], "argv": argv}
    recipes = folder / "recipes.yaml"
    recipes.write_text(json.dumps({"recipes": [recipe]}))
    environment = {
        **os.environ,
        "BLUESKY_PLUGINS_BEAMLINE": settings.beamline,
        "BLUESKY_PLUGINS_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.address,
        "BLUESKY_PLUGINS_MONGO__URI": settings.mongo.address,
        "BLUESKY_PLUGINS_REDIS__URL": settings.redis.address,
        "BLUESKY_PLUGINS_HTTP__RECOMMENDER_PORT": "0",
        "BLUESKY_PLUGINS_PROCESSING__TARGETS": json.dumps({"cluster": target}),
        "BLUESKY_PLUGINS_PROCESSING__RECIPES": str(recipes),
    }
    log = (folder / "log").open("w")
    command = [sys.executable, "-m", "bluesky_plugins.cli", "recommender"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
    ) as child:
        try:
            if child.stdout is None or not child.stdout.readline():
                raise RuntimeError(f"no recommender: {(folder / 'log').read_text()[-2000:]}")
            yield child.pid
        finally:
            child.terminate()
            log.close()


class Ours:
    """Runs that are over, and when their jobs ran."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._topic = settings.topic("documents")
        self._producer = Producer(settings, client_id="benchmark", spool=False)
        self._folder = folder

    def send(self, runs: int) -> str:
        """Runs, from their starts to their stops; the uid of the last one."""
        messages = []
        for _ in range(runs):
            run = list(documents("", 0))
            uid = str(run[0][1]["uid"])
            for key in ("batch_id", "batch_count", "batch_mode", "recommender"):
                run[0][1].pop(key)
            messages += [(self._topic, uid, name, doc) for name, doc in run]
        self._producer.deliver(messages, 60.0)
        return uid

    def job(self) -> float:
        """From one run to its job that runs, s."""
        begun = time.time()
        return stamped(self._folder / self.send(1)) - begun


# ---- the other


def submit(site: SlurmSite, script: str, *options: str) -> None:
    """`ssh sbatch`."""
    ssh = ["ssh", "-F", os.devnull, "-o", f'UserKnownHostsFile="{site.known_hosts()}"']
    ssh += ["-i", str(site.folder / "user_key"), "-p", str(site.ssh_port), *options]
    command = [*ssh, f"{site.user}@127.0.0.1", f"sbatch --parsable --output={os.devnull}"]
    subprocess.run(command, input=script, text=True, check=True, stdout=subprocess.DEVNULL)


def raw_job(site: SlurmSite, folder: Path, number: int, *options: str) -> float:
    """From `ssh sbatch` to the job that runs, s."""
    file = folder / f"raw-{number}-{len(options)}"
    begun = time.time()
    submit(site, f'#!/bin/sh\nexec {PYTHON} -S -c "{STAMP}" {file}\n', *options)
    return stamped(file) - begun


def submitted_alone(site: SlurmSite) -> float:
    """Some submissions, one after the other, with nothing else to do; s."""
    begun = time.monotonic()
    for _ in range(ALONE):
        submit(site, "#!/bin/sh\ntrue\n")
    return time.monotonic() - begun


def stamped(file: Path) -> float:
    """The time that a job has written, once it has."""
    wait_until(lambda: file.exists() and bool(file.read_text()), f"{file} is written", DEADLINE)
    return float(file.read_text())


# ---- rows


def to_the_running_job(
    settings: Settings, site: SlurmSite, folder: Path
) -> Iterator[tuple[str, str, float]]:
    ours = Ours(settings, folder)
    kept = ("-o", "ControlMaster=auto", "-o", "ControlPersist=60")
    kept += ("-o", f"ControlPath={folder}/ssh")
    kinds: dict[str, Callable[[int], float]] = {
        "ours": lambda number: ours.job(),
        "ssh sbatch": lambda number: raw_job(site, folder, number),
        "ssh sbatch, connection kept": lambda number: raw_job(site, folder, number, *kept),
    }
    took: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(WARM + ROUNDS):
        for name, measured in kinds.items():
            took[name].append(measured(number))
    median = {name: statistics.median(times[WARM:]) for name, times in took.items()}
    for name, seconds in median.items():
        yield f"stop document to running job, p50, {name}", "s", seconds
    for name in list(kinds)[1:]:
        yield f"stop document to running job, p50, ours / {name}", "", median["ours"] / median[name]


def burst(
    settings: Settings, site: SlurmSite, folder: Path, pid: int
) -> Iterator[tuple[str, str, float]]:
    """The node is full, so that what the jobs do takes no time of what is measured."""
    client: MongoClient[dict[str, Any]] = MongoClient(settings.mongo.address)
    jobs = client[settings.database("plugins")]["jobs"]
    query = {"job.attempts.0.native_id": {"$ne": None}}
    before = jobs.count_documents(query)
    filled = site.command("sbatch", "--parsable", "-n8", f"--wrap=sleep {DEADLINE:.0f}")
    if filled.returncode != 0:
        raise RuntimeError(filled.stderr)
    queries, memory = asked(site, "squeue"), resident(pid, "VmRSS")
    submissions = asked(site, "sbatch")
    begun, pause = time.monotonic(), threading.Event()
    Ours(settings, folder).send(BURST)
    while jobs.count_documents(query) < before + BURST:
        if time.monotonic() - begun > DEADLINE:
            raise RuntimeError(f"not {BURST} jobs in {DEADLINE} s")
        pause.wait(0.5)
    took = time.monotonic() - begun
    submissions, queries = asked(site, "sbatch") - submissions, asked(site, "squeue") - queries
    yield f"burst of {BURST} runs, all submitted", "s", took
    yield "burst, submissions", "1/s", BURST / took
    rate = ALONE / submitted_alone(site)
    yield "ssh sbatch, one after the other, submissions", "1/s", rate
    yield "burst, submissions, ours / ssh sbatch one after the other", "", BURST / took / rate
    yield "burst, sbatch for each job", "", submissions / BURST
    yield "burst, squeue in all", "", float(queries)
    yield "burst, squeue", "1/s", queries / took
    yield "service before the burst, resident", "MB", memory
    yield f"service with {BURST} jobs queued, resident", "MB", resident(pid, "VmRSS")
    queries, begun = asked(site, "squeue"), time.monotonic()
    pause.wait(20.0)
    quiet = (asked(site, "squeue") - queries) / (time.monotonic() - begun)
    yield f"with {BURST} jobs queued, squeue", "1/s", quiet
    client.close()


def resident(pid: int, what: str) -> float:
    """Memory of a process, MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{what}:"))
    return float(line.split()[1]) / 1024.0


def measure(settings: Settings) -> Iterator[tuple[str, str, float]]:
    """Rows of (what, unit, value)."""
    make_topics(settings)
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        site = running.enter_context(cluster())
        pid = running.enter_context(recommender(settings, site, folder))
        processing_reads(settings, folder)
        yield from to_the_running_job(settings, site, folder)
        yield from burst(settings, site, folder, pid)


def processing_reads(settings: Settings, folder: Path) -> None:
    """Until a run is processed: what was over before reading began is not."""
    ours = Ours(settings, folder)
    sent: list[Path] = []

    def one_has_run() -> bool:
        sent.append(folder / ours.send(1))
        threading.Event().wait(1.0)
        return any(file.exists() for file in sent)

    wait_until(one_has_run, "a run is processed", 60.0)
