"""A real one-node Slurm with munge and sshd, as processes of the test on loopback."""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bluesky_plugins.embedded.tether import tethered
from tests.servers import free_port

NEEDED = {
    "munged": "munge",
    "slurmctld": "slurm-wlm",
    "slurmd": "slurm-wlm",
    "sshd": "openssh-server",
    "ssh-keygen": "openssh-client",
}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
READY_S = 120.0
STOP_S = 10.0

# KillWait is what a wrapper has for its record, MessageTimeout what an answer may take, s; after as
# long a command gives up a controller that is not there.
SLURM_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
MinJobAge={min_job_age}
KillWait=30
MessageTimeout=20
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1,bf_interval=1
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
NodeName={host} NodeAddr=127.0.0.1 Port={node_port} CPUs={cpus} RealMemory=8000 Feature=fast
PartitionName=batch Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=short Nodes=ALL MaxTime=2 State=UP
PartitionName=closed Nodes=ALL State=DOWN
"""

SSHD_CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
MaxStartups 100
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
SetEnv PATH={path} SLURM_CONF={folder}/slurm.conf
"""


def missing_programs() -> list[str]:
    """The system's packages that a `SlurmSite` would need and that are not here."""
    return sorted({NEEDED[name] for name in NEEDED if shutil.which(name, path=PATH) is None})


def wait_until(what: Callable[[], bool], why: str, timeout: float = READY_S) -> None:
    deadline, pause = time.monotonic() + timeout, threading.Event()
    while not what():
        if time.monotonic() >= deadline:
            raise TimeoutError(why)
        pause.wait(0.05)


class Daemon:
    """A server in the foreground, which ends with the thread that started it."""

    def __init__(self, folder: Path, *argv: str, environment: dict[str, str]) -> None:
        self.name = Path(argv[0]).name
        self.log = folder / f"{self.name}.log"
        self._argv, self._environment = argv, environment
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                tethered(self._argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
            )

    def stop(self, within: float = STOP_S) -> None:
        """SIGTERM; `kill -9` when it has not ended by then."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(within)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(READY_S)

    @property
    def ended(self) -> bool:
        return self.process is None or self.process.poll() is not None


class SlurmSite:
    """A cluster of one node, reached as the user who runs the tests by its commands or ssh.

    `bin` comes first on the PATH of whoever uses it: what is put there stands in for Slurm's
    own program.
    """

    def __init__(self, folder: Path, *, min_job_age: int = 300, cpus: int = 8) -> None:
        self.folder = folder
        self.user = getpass.getuser()
        self.node_name = socket.gethostname().split(".")[0]
        self.ssh_port = free_port()
        self.bin = folder / "bin"
        self.work_dir = folder / "work dir"
        self.slurm_conf = folder / "slurm.conf"
        self.path = f"{self.bin}:{PATH}"
        self.environment = {"PATH": self.path, "SLURM_CONF": str(self.slurm_conf), "LANG": "C"}
        self._min_job_age = min_job_age
        self._cpus = cpus
        self._prepare()
        daemon = self._daemon
        self.munge = daemon(
            *("munged", "--foreground", "--force", "--num-threads=2"),
            f"--key-file={folder}/munge.key",
            f"--socket={folder}/munge.socket",
            f"--pid-file={folder}/munged.pid",
            f"--log-file={folder}/munged.own.log",
            f"--seed-file={folder}/munged.seed",
        )
        self.controller = daemon("slurmctld", "-D", "-i", "-f", str(self.slurm_conf))
        self.node = daemon("slurmd", "-D", "-f", str(self.slurm_conf))
        self.sshd = daemon("sshd", "-D", "-e", "-f", str(folder / "sshd_config"))

    # -- files

    def _daemon(self, program: str, *arguments: str) -> Daemon:
        found = shutil.which(program, path=PATH)
        assert found, program
        return Daemon(self.folder, found, *arguments, environment=self.environment)

    def _prepare(self) -> None:
        for name in ("state", "spool", "bin"):
            (self.folder / name).mkdir(parents=True)
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        self.slurm_conf.write_text(
            SLURM_CONF.format(
                folder=self.folder,
                host=self.node_name,
                user=self.user,
                controller_port=free_port(),
                node_port=free_port(),
                min_job_age=self._min_job_age,
                cpus=self._cpus,
            )
        )
        for name in ("host_key", "other_host_key", "user_key", "stranger_key"):
            argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)]
            subprocess.run(argv, check=True)
        shutil.copy(self.folder / "user_key.pub", self.folder / "authorized_keys")
        for name in ("host_key", "other_host_key"):
            self.known_hosts(name).write_text(self._host_line(name))
        (self.folder / "sshd_config").write_text(
            SSHD_CONFIG.format(folder=self.folder, port=self.ssh_port, path=self.path)
        )

    def _host_line(self, name: str, port: int | None = None) -> str:
        key = (self.folder / f"{name}.pub").read_text()
        return f"[127.0.0.1]:{port or self.ssh_port} {key}"

    def known_hosts(self, name: str = "host_key") -> Path:
        """A file of known hosts in which this sshd has the named key."""
        return self.folder / f"known_hosts.{name}"

    def know_port(self, port: int) -> None:
        """Another port by which this sshd is reached."""
        with self.known_hosts().open("a") as file:
            file.write(self._host_line("host_key", port))

    def stand_in(self, program: str, text: str) -> Path:
        """Put a shell script in front of one of Slurm's programs; the path of it."""
        path = self.bin / program
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    # -- processes

    def start(self) -> None:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        self.munge.start()
        wait_until((self.folder / "munge.socket").exists, "munged has its socket")
        for daemon in (self.controller, self.node, self.sshd):
            daemon.start()
        try:
            wait_until(self.node_idle, "the node is idle")
            wait_until(self.ssh_listens, "sshd listens")
        except TimeoutError as error:
            raise RuntimeError(f"{error}; the logs end with:\n{self.logs()}") from None

    def stop(self) -> None:
        if not self.controller.ended:
            self.command("scancel", "--me", "--signal=KILL", "--full")
            self.command("scancel", "--me")
        for daemon in (self.sshd, self.node, self.controller, self.munge):
            daemon.stop()
        self._end_what_is_left()

    def _end_what_is_left(self) -> None:
        """Steps and jobs outlive a node that was killed; all of them know this site."""
        ours = f"SLURM_CONF={self.slurm_conf}".encode()
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if ours in path.read_bytes().split(b"\0"):
                    os.kill(int(path.parent.name), signal.SIGKILL)

    def command(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """One of Slurm's own programs, past all stand-ins."""
        program = shutil.which(argv[0], path=PATH)
        return subprocess.run(
            [program or argv[0], *argv[1:]],
            cwd=self.folder,  # where Slurm puts what a job says, unless it is told otherwise
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=READY_S,
            check=False,
        )

    def node_idle(self) -> bool:
        return self.command("sinfo", "-h", "-o", "%T", "-p", "batch").stdout.strip() == "idle"

    def ssh_listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.ssh_port)) == 0

    def logs(self) -> str:
        """The ends of all logs."""
        daemons = (self.munge, self.controller, self.node, self.sshd)
        ends = [d.log.read_text(errors="replace")[-1500:] for d in daemons if d.log.exists()]
        return "\n---\n".join(ends)


def running_site(**options: int) -> Iterator[SlurmSite]:
    """A site that runs, or a skip; in CI a failure instead."""
    missing = missing_programs()
    if missing:
        reason = f"no Slurm here: {' '.join(missing)} would have to be installed"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    # A short name, since sockets are in it.
    folder = Path(tempfile.mkdtemp(prefix="bp-slurm-"))
    site = SlurmSite(folder, **options)
    try:
        site.start()
        yield site
    finally:
        site.stop()
        shutil.rmtree(folder, ignore_errors=True)
