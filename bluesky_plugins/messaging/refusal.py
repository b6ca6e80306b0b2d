"""Why Kafka will not have this process, in words that name the setting to look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException

from bluesky_plugins.messaging.codes import LOGIN, TLS, UNUSABLE
from bluesky_plugins.settings import ConfigurationError

__all__ = ["CONSUMER", "PRODUCER", "Refusals", "made", "refusal_of"]

CONSUMER = "kafka.consumer_config"
# An admin client connects as a producer does.
PRODUCER = "kafka.producer_config"

Client = TypeVar("Client")


def made(kind: Callable[[dict[str, Any]], Client], config: Mapping[str, Any], at: str) -> Client:
    """A client of librdkafka.

    :param kind: its class.
    :param at: setting that its properties come from, `CONSUMER` or `PRODUCER`.
    :raises ConfigurationError: librdkafka does not know a property, or cannot use its value.
    """
    try:
        return kind(dict(config))
    except KafkaException as error:
        if error.args[0].code() not in UNUSABLE:
            raise
        # Without its cause: a traceback would show the properties.
        raise ConfigurationError(f"setting {at}: {error.args[0].str()}") from None
    except (TypeError, ValueError):
        # The text may quote the value.
        raise ConfigurationError(f"setting {at}: a value is neither text nor number") from None


def refusal_of(error: KafkaError, at: str) -> str | None:
    """What a person should look at, or None when it is no matter of settings.

    :param at: setting that the client's properties come from.
    """
    if error.code() == LOGIN:
        names = "sasl.username, sasl.password and sasl.mechanism"
    elif error.code() == TLS:
        names = "security.protocol and ssl.ca.location"
    else:
        return None
    return f"{error.str().partition(' (after ')[0]}; see {names} in {at}"


class Refusals:
    """Keeps the last reason why a client was refused; its `note` is an `error_cb`."""

    def __init__(self, at: str) -> None:
        self._at = at
        self.last: str | None = None

    def note(self, error: KafkaError) -> None:
        """Take in an error of librdkafka."""
        self.last = self.of(error) or self.last

    def of(self, error: KafkaError) -> str | None:
        """The reason that this error is; see `refusal_of`."""
        return refusal_of(error, self._at)
