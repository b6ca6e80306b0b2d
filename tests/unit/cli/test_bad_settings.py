"""The command with settings that cannot be used: a line that names them, and status 2."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("command", [["status"], ["recorder"], ["up"], ["echo"]])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BLUESKY_PLUGINS_KAFKA__BOOTSTRAP_SERVER", "h:1"),
        ("BLUESKY_PLUGINS_KAFKA__PRODUCER_CONFIG", "{hidden"),
    ],
)
def test_a_wrong_setting_ends_a_command_with_a_line_and_status_2(tmp_path, command, name, value):
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("BLUESKY_PLUGINS_")},
        "BLUESKY_PLUGINS_STATE_DIR": str(tmp_path / "state"),
        name: value,
    }
    done = subprocess.run(
        [sys.executable, "-m", "bluesky_plugins.cli", *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "kafka" in done.stderr.lower()
    assert "Traceback" not in done.stderr
    assert "hidden" not in done.stderr
