"""What is wrong with the properties of a client is said by the setting they come from."""

import logging

import confluent_kafka
import pytest
from confluent_kafka import KafkaError

from bluesky_plugins.messaging import Producer, TopicReader, make_topics
from bluesky_plugins.messaging.outage import Outage
from bluesky_plugins.messaging.refusal import CONSUMER, PRODUCER, made, refusal_of
from bluesky_plugins.settings import ConfigurationError, Settings

NOWHERE = {"bootstrap_servers": "127.0.0.1:9"}
LOGIN = KafkaError(KafkaError._AUTHENTICATION, "sasl: not you (after 3ms in state AUTH_REQ)")


@pytest.mark.parametrize(
    "properties",
    [
        {"sasl.passwort": "s3cret"},
        {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRUM"},
        {"security.protocol": "SSL", "ssl.ca.location": "/nowhere/ca.pem"},
        {"ssl.ca.location": ["s3cret"], "sasl.passwort": "s3cret"},
    ],
)
def test_property_that_cannot_be_used_is_an_error_of_its_setting(
    properties: dict[str, object],
) -> None:
    settings = Settings(kafka={**NOWHERE, "producer_config": properties})
    for act in (make_topics, Producer):
        with pytest.raises(ConfigurationError, match=r"kafka\.producer_config") as caught:
            act(settings)
        assert "s3cret" not in str(caught.value)
    settings = Settings(kafka={**NOWHERE, "consumer_config": properties})
    with pytest.raises(ConfigurationError, match=r"kafka\.consumer_config"):
        TopicReader(settings, "t")


def test_value_of_a_wrong_kind_is_not_quoted() -> None:
    with pytest.raises(ConfigurationError, match=r"consumer_config") as caught:
        made(confluent_kafka.Producer, {"on_delivery": "s3cret"}, CONSUMER)
    assert "s3cret" not in str(caught.value)


def test_a_refused_login_names_its_settings() -> None:
    said = refusal_of(LOGIN, PRODUCER)
    assert said is not None
    assert said.startswith("sasl: not you; see sasl.username, sasl.password")
    assert said.endswith("in kafka.producer_config")


def test_a_broker_that_is_away_is_no_matter_of_settings() -> None:
    assert refusal_of(KafkaError(KafkaError._TRANSPORT, "connect: refused"), PRODUCER) is None


def test_a_refusal_is_logged_once_and_forgotten_when_a_broker_answers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outage = Outage(logging.getLogger("t"), "k:9092", CONSUMER)
    for _ in range(3):
        outage.note(LOGIN)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert CONSUMER in caplog.text
    outage.over()
    assert outage.refusals.last is None
