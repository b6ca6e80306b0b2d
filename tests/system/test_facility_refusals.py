"""A facility's servers refuse us: which setting is wrong is said in time, a secret never."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bluesky_plugins.adaptive import KafkaSuggestions, RedisSuggestions
from bluesky_plugins.messaging import MessagingError, TopicReader, make_topics
from bluesky_plugins.settings import Settings
from tests.facility import (
    KAFKA_PASSWORD,
    REDIS_PASSWORD,
    FacilityKafka,
    make_certificates,
    traces_of,
)
from tests.system.conftest import environment_of

# Three nodes of Kafka may have to start first.
pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

WRONG = "wr0ng-passw0rd"
NOWHERE = {"uri": "mongodb://127.0.0.1:9"}
COMMANDS = ("doctor --json", "echo", "recorder", "recommender")
DEADLINE = 90.0


@dataclass(frozen=True)
class Refused:
    """Settings that Kafka refuses, the property that is wrong, and what was started with them."""

    settings: Settings
    name: str
    folder: Path
    processes: dict[str, subprocess.Popen[bytes]]

    def said(self, command: str) -> str:
        return (self.folder / command).read_text()

    def names_the_setting(self, text: str, setting: str) -> bool:
        return self.name in text and setting in text

    def assert_no_secret(self, text: str) -> None:
        for secret in (WRONG, *traces_of(KAFKA_PASSWORD, REDIS_PASSWORD)):
            assert secret not in text


@pytest.fixture(scope="module", params=["password", "certificate"])
def refused(
    request: pytest.FixtureRequest,
    facility_kafka: FacilityKafka,
    facility_redis: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Refused]:
    """All commands at once: each takes its time to be refused."""
    folder = tmp_path_factory.mktemp("refused")
    if request.param == "password":
        section, name = facility_kafka.section(sasl_password=WRONG), "sasl.password"
    else:
        stranger = str(make_certificates(folder / "stranger").authority)
        section, name = facility_kafka.section(ssl_ca_location=stranger), "ssl.ca.location"
    settings = Settings(
        beamline="refused", kafka=section, redis={"url": facility_redis}, mongo=NOWHERE
    )
    environment = environment_of(settings) | {"BLUESKY_PLUGINS_STATE_DIR": str(folder / "state")}
    processes = {}
    for command in COMMANDS:
        argv = [sys.executable, "-m", "bluesky_plugins.cli", *command.split()]
        with (folder / command).open("w") as out:
            processes[command] = subprocess.Popen(
                argv, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
    yield Refused(settings, name, folder, processes)
    for process in processes.values():
        process.kill()
        process.wait(DEADLINE)


@pytest.mark.timed  # doctor asks for 3 s
def test_doctor_names_the_setting(refused: Refused) -> None:
    assert refused.processes["doctor --json"].wait(DEADLINE) == 1
    said = refused.said("doctor --json")
    found = json.loads(said)  # and nothing of librdkafka's around it
    for part in ("kafka", "topics"):
        assert found[part]["ok"] is False
        assert refused.names_the_setting(found[part]["problem"], "kafka.producer_config")
    assert found["redis"]["ok"] is True
    assert "kafka.bootstrap_servers" in found["kafka"]["advice"]
    assert "mongo.uri" in found["mongo"]["advice"]
    refused.assert_no_secret(said + repr(refused.settings))


def test_echo_ends_with_the_setting(refused: Refused) -> None:
    assert refused.processes["echo"].wait(DEADLINE) == 1
    said = refused.said("echo")
    last = said.splitlines()[-1]
    assert last.startswith("bluesky-plugins echo:")
    assert refused.names_the_setting(last, "kafka.consumer_config")
    refused.assert_no_secret(said)


@pytest.mark.parametrize("service", ["recorder", "recommender"])
def test_a_service_that_waits_says_for_which_setting(refused: Refused, service: str) -> None:
    deadline, pause = time.monotonic() + DEADLINE, threading.Event()
    while not refused.names_the_setting(refused.said(service), "kafka.producer_config"):
        assert refused.processes[service].poll() is None, refused.said(service)
        assert time.monotonic() < deadline, refused.said(service)
        pause.wait(0.05)
    refused.processes[service].terminate()
    assert refused.processes[service].wait(DEADLINE) == 0
    refused.assert_no_secret(refused.said(service))


def test_the_channel_of_a_plan_names_the_setting(
    refused: Refused, caplog: pytest.LogCaptureFixture
) -> None:
    reader = KafkaSuggestions(refused.settings).open("b")
    deadline = time.monotonic() + DEADLINE
    # A plan, too, starts it again: on a busy machine one attempt may end before it is refused.
    while not refused.names_the_setting(caplog.text, "kafka.consumer_config"):
        assert time.monotonic() < deadline, caplog.text
        assert reader.start(1.0) is False
    reader.close()


@pytest.mark.parametrize("service", ["recorder", "recommender"])
def test_a_property_that_is_not_known_ends_a_service_with_its_setting(
    facility_kafka: FacilityKafka, make_settings: Callable[..., Settings], service: str
) -> None:
    section = facility_kafka.section(sasl_passwort=WRONG)
    settings = make_settings(kafka=section, mongo=NOWHERE, redis={"url": "redis://nowhere"})
    done = subprocess.run(
        [sys.executable, "-m", "bluesky_plugins.cli", service],
        env=environment_of(settings),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 2
    assert "kafka.producer_config" in done.stderr
    assert "sasl.passwort" in done.stderr
    assert "Traceback" not in done.stderr
    assert WRONG not in done.stderr


def test_a_topic_that_the_user_has_no_right_to_is_named(
    facility_kafka: FacilityKafka, make_settings: Callable[..., Settings]
) -> None:
    unused = {"mongo": NOWHERE, "redis": {"url": "redis://nowhere"}}
    settings = make_settings(beamline="stranger", kafka=facility_kafka.section(), **unused)
    with pytest.raises(MessagingError, match=r"stranger\.bluesky\..*could not be made.*uthoriz"):
        make_topics(settings)
    reader = TopicReader(settings, settings.topic("documents"))
    with pytest.raises(MessagingError, match=r"no right to read topic stranger\.bluesky\.doc"):
        reader.start("end", 10.0)  # it connects first, by TLS
    reader.close()


def test_a_wrong_password_of_redis_is_said_and_is_in_no_log(
    facility_redis: str, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = RedisSuggestions(f"redis://:{WRONG}@{facility_redis.rpartition('@')[2]}")
    reader = wrong.open("b")
    assert reader.start(0.05) is False
    assert "password" in caplog.text
    assert WRONG not in caplog.text
    wrong.close()
