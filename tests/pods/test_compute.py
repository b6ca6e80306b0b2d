"""Jobs in the pods, from a run's end to its numbers: in the recommender and through Slurm."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.pods.beamline import DEADLINE, RECOMMENDER, Beamline, Done, after, until

pytestmark = [pytest.mark.pods, pytest.mark.timeout(900, func_only=True)]

FINAL = {"succeeded", "failed", "timed_out", "cancelled", "lost"}
# A camera's frames, and the target that the run asks for.
MEASURED = "uid, = RE(count([camera]), processing=[{{'name': 'focus', 'target': '{0}'}}])"
# As a person at a prompt, who goes away.
ASKED = """
from bluesky_plugins.processing import Trigger, TriggerMethod
job = Trigger(TriggerMethod.REMOTE_SBATCH_SCRIPT).run({argv!r})
print(job.key)
"""


def jobs_of(beamline: Beamline, **query: str) -> list[dict[str, Any]]:
    with beamline.http(RECOMMENDER) as client:
        answer = client.get("/api/jobs", params=query)
    answer.raise_for_status()
    found: list[dict[str, Any]] = answer.json()["jobs"]
    return found


def shown(beamline: Beamline, key: str) -> dict[str, Any]:
    with beamline.http(RECOMMENDER) as client:
        answer = client.get(f"/api/jobs/{key}")
    found: dict[str, Any] = answer.json() if answer.status_code == 200 else {}
    return found


def asked(beamline: Beamline, *argv: str) -> str:
    """The key of a person's new job."""
    said = beamline.podman(
        *("exec", "-i", "acquisition-recorder", "python", "-W", "ignore", "-"),
        stdin=ASKED.format(argv=list(argv)),
    )
    return said.split()[-1]


def state(beamline: Beamline, key: str) -> str:
    found: str = shown(beamline, key).get("state", "")
    return found


def ended(beamline: Beamline, key: str) -> dict[str, Any]:
    until(lambda: state(beamline, key) in FINAL, f"end of the job {key}")
    return shown(beamline, key)


def ssh(beamline: Beamline, *words: str, user: str = "beamline", key: str = "id_ed25519") -> Done:
    """OpenSSH from this machine, with the launcher's keys and no others."""
    folder = beamline.folder / "compute"
    options = {
        "IdentityFile": str(folder / key),
        "UserKnownHostsFile": str(folder / "known_hosts"),
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "IdentitiesOnly": "yes",
        "BatchMode": "yes",
        "ConnectTimeout": "60",
    }
    flags = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    return subprocess.run(
        ["ssh", "-F", "none", *flags, "-p", "60622", f"{user}@127.0.0.1", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


# -- jobs -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(beamline: Beamline) -> dict[str, str]:
    """Target -> a run that asked for it."""
    lines = [
        line
        for target in ("local", "slurm")
        for line in (MEASURED.format(target), f"print(f'{target}={{uid}}')")
    ]
    said = beamline.bsui(*lines)
    return {target: after(target, said) for target in ("local", "slurm")}


@pytest.mark.parametrize("target", ["local", "slurm"])
def test_a_run_s_frames_are_reduced_on_the_target_that_it_asks_for(
    beamline: Beamline, measured: dict[str, str], target: str
) -> None:
    (job,) = until(lambda: jobs_of(beamline, run=measured[target]), "job of the run")
    found = ended(beamline, job["key"])
    assert (found["state"], found["target"]) == ("succeeded", target), found
    assert found["numbers"].keys() == {"x", "y", "width"}


def test_a_person_s_job_runs_under_slurm_as_the_ordinary_user(beamline: Beamline) -> None:
    key = asked(beamline, "/bin/sh", "-c", "echo $SLURM_JOB_NODELIST $(id -un)")
    found = ended(beamline, key)
    assert found["state"] == "succeeded", found
    with beamline.http(RECOMMENDER) as client:
        said = client.get(f"/api/jobs/{key}/logs").json()["stdout"]
    assert said.split() == ["compute", "beamline"]


def test_a_job_that_its_container_s_crash_ends_is_not_run_again_and_says_why(
    beamline: Beamline,
) -> None:
    ran = f"/home/beamline/ran-{uuid4().hex}"
    key = asked(beamline, "/bin/sh", "-c", f"echo $SLURM_JOB_ID >>{ran}; sleep 600")

    def began() -> list[str]:
        """Slurm's id, for each time that the program began."""
        return beamline.podman.try_("exec", "compute-sshd", "cat", ran).stdout.split()

    (number,) = until(began, "begin of the job")
    until(lambda: state(beamline, key) == "running", "job known to run")
    write_queue(beamline, number)
    beamline.kill("compute-slurm")
    beamline.wait_healthy("compute-slurm")
    found = ended(beamline, key)
    assert found["state"] in ("failed", "lost")
    assert "NODE_FAIL" in found["reason"], found
    # Its CPU is free again, and what comes after is carried out.
    assert ended(beamline, asked(beamline, "/bin/true"))["state"] == "succeeded"
    assert len(began()) == 1


def test_jobs_go_on_over_a_crash_of_the_door(beamline: Beamline) -> None:
    # It ends when it is told to, so that it runs while the door is away.
    last = f"/home/beamline/last-{uuid4().hex}"
    key = asked(beamline, "/bin/sh", "-c", f"until [ -e {last} ]; do sleep 0.2; done")
    until(lambda: state(beamline, key) == "running", "job known to run")
    beamline.kill("compute-sshd")
    beamline.wait_healthy("compute-sshd")
    beamline.podman("exec", "compute-sshd", "touch", last)
    assert ended(beamline, key)["state"] == "succeeded"


def write_queue(beamline: Beamline, number: str) -> None:
    """Have Slurm write down what it knows of a job: it forgets what is younger than 5 s."""
    beamline.podman("exec", "compute-slurm", "touch", "/tmp/now")
    beamline.podman(
        "exec", "compute-slurm", "scontrol", "update", f"JobId={number}", "AdminComment=seen"
    )
    look = ("find", "/var/lib/slurm/state/job_state", "-newer", "/tmp/now")
    until(lambda: beamline.podman("exec", "compute-slurm", *look).strip(), "queue on disk")


# -- the door -------------------------------------------------------------------------------


def test_the_host_is_known_before_the_first_login(beamline: Beamline) -> None:
    done = ssh(beamline, "id", "-un")
    assert (done.stdout.strip(), done.returncode) == ("beamline", 0), done.stderr


@pytest.mark.parametrize(
    ("user", "key"), [("root", "id_ed25519"), ("beamline", "ssh_host_ed25519_key")]
)
def test_nobody_else_and_no_other_key_is_let_in(beamline: Beamline, user: str, key: str) -> None:
    done = ssh(beamline, "true", user=user, key=key)
    assert done.returncode == 255
    # No password is asked for, either.
    assert "Permission denied (publickey)" in done.stderr


def test_sshd_forwards_nothing(beamline: Beamline) -> None:
    done = ssh(beamline, "-W", "127.0.0.1:6817")
    assert done.returncode == 255
    assert "administratively prohibited" in done.stderr


# -- another folder of data -----------------------------------------------------------------


def test_jobs_see_the_folder_that_is_given_and_cannot_write_it(
    beamline: Beamline, tmp_path: Path
) -> None:
    # A record is there a moment before Slurm has its job out of the queue.
    queue = ("exec", "compute-slurm", "squeue", "--noheader")
    until(lambda: not beamline.podman(*queue).strip(), "end of all jobs")
    (tmp_path / "frames").touch()
    tmp_path.chmod(0o755)
    try:
        done = beamline.launcher(*beamline.starts[-1][:-1], str(tmp_path))
        assert done.returncode == 0, done.stderr
        seen = ssh(beamline, "ls /beamline/data; touch /beamline/data/more")
    finally:
        again = beamline.launcher(*beamline.starts[-1])
    assert again.returncode == 0, again.stderr
    assert (seen.stdout.split(), "Read-only file system" in seen.stderr) == (["frames"], True)
