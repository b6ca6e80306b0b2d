"""Error codes of librdkafka. Those of the client itself have a leading underscore there."""

from __future__ import annotations

from confluent_kafka import KafkaError

__all__ = [
    "BROKER_GONE",
    "FATAL",
    "LOGIN",
    "NOBODY_ANSWERS",
    "PURGED",
    "QUIET",
    "REFUSED",
    "TLS",
    "UNUSABLE",
]

FATAL = KafkaError._FATAL  # noqa: SLF001 - documented
# _TRANSPORT alone is one broker of several.
NOBODY_ANSWERS = KafkaError._ALL_BROKERS_DOWN  # noqa: SLF001 - documented
# Told by NOBODY_ANSWERS already.
QUIET = frozenset(
    (KafkaError._TRANSPORT, KafkaError._RESOLVE)  # noqa: SLF001 - documented
)
BROKER_GONE = frozenset((KafkaError._TRANSPORT, NOBODY_ANSWERS))  # noqa: SLF001 - documented
LOGIN = KafkaError._AUTHENTICATION  # noqa: SLF001 - documented
TLS = KafkaError._SSL  # noqa: SLF001 - documented
# A client cannot be made with these properties: names, values, files that they name.
UNUSABLE = frozenset(
    (KafkaError._INVALID_ARG, KafkaError._CONFLICT, TLS, LOGIN)  # noqa: SLF001 - documented
)
# Given back because this process gave up.
PURGED = frozenset(
    (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)  # noqa: SLF001 - documented
)
# What the broker will not take at a second attempt either.
REFUSED = frozenset(
    (
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_RECORD,
        KafkaError.TOPIC_EXCEPTION,
    )
)
