"""Runs that trigger jobs on this machine and on a real Slurm, while everything fails in turn.

What goes wrong at a command of Slurm is decided by tickets: files, each of which one call of
`sbatch` or `squeue` takes, so that every kind of fault happens exactly as often as it is asked.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from bluesky_plugins.messaging import Producer, TopicReader, decode
from bluesky_plugins.settings import Settings
from bluesky_plugins.testing import composed_run
from tests.slurm import SlurmSite
from tests.system.conftest import DEADLINE, Loop, Process

__all__ = ["KINDS", "PLACES", "SBATCH_FAULTS", "SQUEUE_FAULTS", "Campaign"]

PLACES = ("cluster", "local")
# Kind of job -> its part of all. What it does: see JOB.
KINDS = {"good": 86, "failing": 4, "late": 3, "hungry": 3, "killed": 2, "long": 2}
JOB = """#!/bin/sh
# job.sh KIND LEDGER NUMBER
printf '%s\\n' "$PWD" >> "$2"
printf '{"peak": %s}' "$3" > numbers.json
case "$1" in
    failing) exit 3;;
    late) exec sleep 600;;
    hungry) exec /usr/bin/python3 -S -c "b'x' * (600 << 20)";;
    killed) kill -9 "$PPID"; exec sleep 600;;
    long) exec sleep 3;;
esac
"""
RESOURCES: dict[str, dict[str, Any]] = {
    "late": {"time_limit_s": 1},
    "hungry": {"memory_mb": 100},
}
# A ticket is taken by every second call that there is one for.
TICKET = """
fault=none
if [ $(($(od -An -N1 -tu1 /dev/urandom) % 2)) = 0 ]; then
    for ticket in "{tickets}"/*; do
        if mv "$ticket" "{used}/" 2> /dev/null; then fault=${{ticket##*.}}; fi
        break
    done
fi
cut() {{
    p=$$
    while [ "$p" -gt 1 ]; do
        case "$(cat /proc/$p/comm)" in sshd*) kill -9 "$p"; exit 1;; esac
        p=$(awk '{{print $4}}' "/proc/$p/stat")
    done
}}
end_service() {{ kill -9 "$(cat "{pid}")"; }}
"""
SBATCH = """
case "$fault" in
    lost-request) cat > /dev/null; echo "sbatch: error: Socket timed out" >&2; exit 1;;
    lost-reply) /usr/bin/sbatch "$@" > /dev/null; echo "sbatch: error: Socket timed out" >&2
        exit 1;;
    twice) cat > "{spool}/$$"; /usr/bin/sbatch "$@" < "{spool}/$$" > /dev/null
        exec /usr/bin/sbatch "$@" < "{spool}/$$";;
    cut-before) cut;;
    cut-after) /usr/bin/sbatch "$@" > /dev/null; cut;;
    service-before) end_service; cat > /dev/null; exit 1;;
    service-after) /usr/bin/sbatch "$@" > /dev/null; end_service; exit 1;;
    full) cat > /dev/null
        echo "sbatch: error: AssocMaxSubmitJobLimit" >&2
        echo "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy" >&2
        exit 1;;
esac
exec /usr/bin/sbatch "$@"
"""
SQUEUE = """
case "$fault" in
    cut) cut;;
    service) end_service; exit 1;;
    half) /usr/bin/squeue "$@" | head -c 100; exit 1;;
    silent) echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1;;
esac
exec /usr/bin/squeue "$@"
"""
SBATCH_FAULTS = (
    *("lost-request", "lost-reply", "twice", "cut-before", "cut-after"),
    *("service-before", "service-after", "full"),
)
SQUEUE_FAULTS = ("cut", "service", "half", "silent")
PAUSE_S = 0.2


class Campaign(Loop):
    """Services, a cluster over SSH, and `number` triggers of jobs of all kinds.

    :param seed: of what happens when.
    """

    def __init__(
        self, settings: Settings, folder: Path, site: SlurmSite, *, number: int, seed: int
    ) -> None:
        super().__init__(settings, folder)
        self.site, self.number, self.seed = site, number, seed
        self.random = random.Random(seed)
        self.ledger, self.pid_file = folder / "ledger", folder / "service.pid"
        self.local_folder = folder / "local jobs"
        self.kind_of: dict[str, tuple[str, str]] = {}  # run -> kind, place
        self.injected: Counter[str] = Counter()
        self._closing = threading.Event()
        self._keeper: threading.Thread | None = None
        self._write_files(folder)
        self.environment |= self._targets() | {
            "BLUESKY_PLUGINS_PROCESSING__RECIPES": str(folder / "recipes.yaml"),
            "BLUESKY_PLUGINS_PROCESSING__POLL_SECONDS": "0.5",
            "BLUESKY_PLUGINS_PROCESSING__DOUBT_SECONDS": "3",
            "BLUESKY_PLUGINS_PROCESSING__GONE_SECONDS": "3",
        }

    # ---- before

    def _write_files(self, folder: Path) -> None:
        job = folder / "job.sh"
        job.write_text(JOB)
        job.chmod(0o755)
        recipes = [self._recipe(job, kind, place) for kind in KINDS for place in PLACES]
        (folder / "recipes.yaml").write_text(json.dumps({"recipes": recipes}))
        for name in ("sbatch", "squeue"):
            for part in ("tickets", "used"):
                (folder / f"{name}-{part}").mkdir()
        (folder / "sbatch-spool").mkdir()

    def _recipe(self, job: Path, kind: str, place: str) -> dict[str, Any]:
        return {
            "name": f"{kind}-{place}",
            "when": {"start": {"kind_of_job": kind, "place": place}},
            "targets": [place],
            "argv": [str(job), kind, str(self.ledger), "{start.number}"],
            "result": {"numbers": ["peak"]},
            "resources": RESOURCES.get(kind, {}),
        }

    def _targets(self) -> dict[str, str]:
        cluster = {
            "kind": "slurm",
            "via": "asyncssh",
            "host": "127.0.0.1",
            "port": self.site.ssh_port,
            "user": self.site.user,
            "keys": [str(self.site.folder / "user_key")],
            "known_hosts": str(self.site.known_hosts()),
            "ssh_config": os.devnull,
            "work_dir": str(self.site.work_dir),
            "python": "/usr/bin/python3",
            "limit": 60,
        }
        local = {"kind": "local", "jobs": 8, "work_dir": str(self.local_folder)}
        targets = {"cluster": cluster, "local": local}
        return {"BLUESKY_PLUGINS_PROCESSING__TARGETS": json.dumps(targets)}

    def hand_out(self, each: int) -> None:
        """Tickets: every fault of a command so many times, in any order."""
        for name, text, faults in (
            ("sbatch", SBATCH, SBATCH_FAULTS),
            ("squeue", SQUEUE, SQUEUE_FAULTS),
        ):
            tickets = self._folder / f"{name}-tickets"
            wanted = list(faults) * each
            self.random.shuffle(wanted)
            for number, fault in enumerate(wanted):
                (tickets / f"{number:04}.{fault}").touch()
            head = TICKET.format(
                tickets=tickets, used=self._folder / f"{name}-used", pid=self.pid_file
            )
            self.site.stand_in(name, head + text.replace("{spool}", f"{self._folder}/sbatch-spool"))

    def taken(self) -> Counter[str]:
        """Tickets that were taken, by their fault."""
        used = [*self._folder.glob("sbatch-used/*"), *self._folder.glob("squeue-used/*")]
        return Counter(f"{path.parent.name.split('-')[0]} {path.suffix[1:]}" for path in used)

    # ---- the service, which is killed and begins again

    def keep_running(self) -> None:
        """Start the recommender, and again whenever it was killed."""
        self.service_process = self.run("-m", "bluesky_plugins.cli", "recommender")
        self._note_pid(self.service_process)
        url = self.service_process.line("recommender ready").split()[-1]

        def ready() -> Any:
            return httpx.get(f"{url}/healthz", timeout=DEADLINE).json()["processing"]["ready"]

        # What is over before processing has ever read is none of its business.
        self.until(ready, "processing")
        self._keeper = threading.Thread(target=self._keep)
        self._keeper.start()

    def _keep(self) -> None:
        while not self._closing.wait(0.05):
            if self.service_process.ended:
                self.injected["service killed"] += 1
                self.service_process.start()
                self._note_pid(self.service_process)

    def _note_pid(self, process: Process) -> None:
        new = self.pid_file.with_suffix(".new")
        new.write_text(str(process.pid))
        new.rename(self.pid_file)

    def kill_service(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(self.pid_file.read_text()), signal.SIGKILL)

    # ---- triggers

    def send_runs(self) -> None:
        """The runs of all triggers: doubled, with parts that come twice, or from their end."""
        kinds = self.random.choices(list(KINDS), weights=list(KINDS.values()), k=self.number)
        producer = Producer(self.settings, client_id="runs", spool=False)
        topic, again = self.settings.topic("documents"), []
        for number, kind in enumerate(kinds):
            place = PLACES[number % 2]
            more = {"batch_id": f"b{number}", "batch_count": 0} if number % 5 == 0 else {}
            documents = composed_run(
                1, kind_of_job=kind, place=place, number=number, batch_mode="run", **more
            )
            uid = str(documents[0][1]["uid"])
            self.kind_of[uid] = (kind, place)
            messages = [(topic, uid, name, doc) for name, doc in self._disordered(documents)]
            again += messages if number % 4 == 0 else []
            producer.deliver(messages, DEADLINE)
        producer.deliver(again, DEADLINE)
        producer.close(5.0)

    def _disordered(self, documents: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        what = self.random.randrange(8)
        if what == 0:  # each twice
            return [one for one in documents for _ in range(2)]
        if what == 1:  # its end before its beginning
            return [documents[-1], *documents]
        if what == 2:  # in any order, and then as it was
            return [*self.random.sample(documents, len(documents)), *documents]
        return documents

    # ---- faults from outside

    def faults(self, rounds: int) -> list[Callable[[], None]]:
        """What goes wrong besides, in any order."""
        each = [
            *(self.kill_service, self.kill_service, self.requeue, self.requeue),
            *(self.cut_all, self.stop_controller, self.node_down, self.refuse_ssh),
        ]
        wanted = each * rounds
        self.random.shuffle(wanted)
        return wanted

    def inject(self, fault: Callable[[], None]) -> None:
        """One fault, at any moment."""
        threading.Event().wait(self.random.random() * 0.5)
        self.injected[getattr(fault, "__name__", "?")] += 1
        fault()

    def cut_all(self) -> None:
        """All SSH connections."""
        daemon = self.site.sshd.process
        assert daemon is not None
        for pid in children(daemon.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def refuse_ssh(self) -> None:
        self.site.sshd.stop()
        self.cut_all()
        self._for_a_while()
        self.site.sshd.start()

    def stop_controller(self) -> None:
        self.site.controller.kill()
        self._for_a_while()
        self.site.controller.start()

    def node_down(self) -> None:
        name = self.site.node_name
        self.site.node.kill()
        self.site.command("scontrol", "update", f"NodeName={name}", "State=DOWN", "Reason=test")
        self._for_a_while()
        self.site.node.start()
        self.site.command("scontrol", "update", f"NodeName={name}", "State=RESUME")

    def requeue(self) -> None:
        """All that runs there now is put back into the queue."""
        running = self.site.command("squeue", "-h", "-t", "RUNNING", "-o", "%i").stdout.split()
        for native_id in running:
            self.site.command("scontrol", "update", f"JobId={native_id}", "Requeue=1")
            done = self.site.command("scontrol", "requeue", native_id)
            self.injected["requeued jobs"] += done.returncode == 0
            # Slurm holds a requeued job back for two minutes; that is not what is tested.
            self.site.command("scontrol", "update", f"JobId={native_id}", "StartTime=now")

    def _for_a_while(self) -> None:
        threading.Event().wait(0.5 + 1.5 * self.random.random())

    # ---- the end

    def calm(self) -> None:
        """No more faults."""
        for name in ("sbatch", "squeue"):
            with contextlib.suppress(FileNotFoundError):
                (self.site.bin / name).unlink()

    def resume_node(self) -> None:
        """As an administrator would.

        A controller that was killed gives the ids of jobs that it had not saved anew, and Slurm
        drains a node on which one of them still runs.
        """
        if "drain" in self.site.command("sinfo", "-h", "-o", "%T").stdout:
            name = self.site.node_name
            self.site.command("scontrol", "update", f"NodeName={name}", "State=RESUME")

    def counts(self) -> Counter[str]:
        """State -> number of jobs."""
        found = self.collection("plugins", "jobs").aggregate(
            [{"$group": {"_id": "$state", "number": {"$sum": 1}}}]
        )
        return Counter({one["_id"]: one["number"] for one in found})

    def final(self) -> int:
        """Jobs that have ended."""
        ends = ("succeeded", "failed", "timed_out", "cancelled", "lost")
        return sum(number for state, number in self.counts().items() if state in ends)

    def wait_final(self, number: int, timeout: float) -> bool:
        """Whether so many jobs have ended in time."""
        deadline = time.monotonic() + timeout
        while self.final() < number:
            if time.monotonic() > deadline:
                return False
            threading.Event().wait(PAUSE_S)
        return True

    def jobs(self) -> list[dict[str, Any]]:
        return [one["job"] for one in self.collection("plugins", "jobs").find()]

    def published(self, topic: str, name: str) -> list[dict[str, Any]]:
        """All documents of that name on a topic, from its beginning."""
        reader = TopicReader(self.settings, self.settings.topic(topic))
        try:
            position, found = reader.start("beginning", DEADLINE), []
            ends = reader.ends(DEADLINE)
            while any(position[part] < end for part, end in ends.items()):
                for message in reader.poll(1000, 0.2):
                    position[message.partition] = message.offset + 1
                    found.append(decode(message.value))
        finally:
            reader.close()
        return [doc for one, doc in found if one == name]

    def close(self) -> None:
        self._closing.set()
        if self._keeper is not None:
            self._keeper.join()
        super().close()


def children(pid: int) -> list[int]:
    """The processes that a process started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_bytes().rpartition(b")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
    return found
