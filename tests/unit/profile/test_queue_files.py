import stat

import pytest
import redis
import yaml

from bluesky_plugins.profile import httpserver_command, queueserver_command
from bluesky_plugins.profile.queue_files import (
    manager_arguments,
    shown_redis_address,
    write_queue_files,
)
from bluesky_plugins.profile.queue_manager import connect_with
from bluesky_plugins.settings import Settings

SECRET = "tops3cret"
SETTINGS = Settings(redis={"url": f"redis://:{SECRET}@127.0.0.1:6399/2"}, http={"api_key": SECRET})


def test_secrets_are_on_no_command_line():
    words = [*manager_arguments(write_queue_files(SETTINGS))]
    for command in (queueserver_command, httpserver_command):
        words += command(SETTINGS)[0]
    assert SECRET not in " ".join(words)


def test_configuration_is_for_its_owner_only():
    folder = write_queue_files(SETTINGS)
    assert stat.S_IMODE((folder / "config.yaml").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_what_queueserver_logs_of_redis_has_no_password():
    written = (write_queue_files(SETTINGS) / "config.yaml").read_text()
    assert yaml.safe_load(written)["network"]["redis_addr"] == "127.0.0.1:6399/2"
    assert SECRET not in written


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:a%2Fb%40c@127.0.0.1:6399/2", "127.0.0.1:6399/2"),
        ("rediss://tst:pw@redis1:6380/0?password=pw", "redis1:6380/0"),
        ("unix://:pw@/run/redis.sock", "/run/redis.sock"),
    ],
)
def test_manager_connects_with_the_url_of_the_settings(url, shown, monkeypatch):
    from bluesky_queueserver.manager import plan_queue_ops

    assert shown_redis_address(Settings(redis={"url": url})) == shown
    monkeypatch.setattr(plan_queue_ops, "redis", plan_queue_ops.redis)
    connect_with(url)
    pools = [
        made.connection_pool
        for made in (plan_queue_ops.redis.asyncio.from_url(shown), redis.asyncio.from_url(url))
    ]
    assert pools[0].connection_class is pools[1].connection_class
    for name in ("host", "port", "db", "username", "password", "path"):
        assert pools[0].connection_kwargs.get(name) == pools[1].connection_kwargs.get(name)


def test_control_sockets_are_on_loopback():
    network = yaml.safe_load((write_queue_files(SETTINGS) / "config.yaml").read_text())["network"]
    addresses = (network["zmq_control_addr"], network["zmq_info_addr"])
    assert addresses == ("tcp://127.0.0.1:60615", "tcp://127.0.0.1:60625")


def test_lists_that_a_worker_renewed_are_kept():
    lists = write_queue_files(SETTINGS) / "existing_plans_and_devices.yaml"
    lists.write_text("existing_plans: {}\n")
    write_queue_files(SETTINGS)
    assert lists.read_text() == "existing_plans: {}\n"


def test_manager_takes_the_files():
    from bluesky_queueserver.manager.config import parse_configs
    from bluesky_queueserver.manager.profile_ops import load_user_group_permissions

    folder = write_queue_files(SETTINGS)
    parse_configs(str(folder / "config.yaml"))
    assert (
        "primary"
        in load_user_group_permissions(str(folder / "user_group_permissions.yaml"))["user_groups"]
    )
