"""What can go wrong between this process and Kafka."""

from __future__ import annotations

__all__ = [
    "BrokerUnreachable",
    "CommitFailed",
    "DecodingError",
    "EncodingError",
    "Fenced",
    "MessageTooLarge",
    "MessagingError",
    "NotDelivered",
    "Undeliverable",
]


class MessagingError(Exception):
    """Base of all errors of this package."""


class DecodingError(MessagingError, ValueError):
    """The bytes are not a `(name, document)` pair.

    :param reason: what is wrong with them, in one line.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Undeliverable(MessagingError, ValueError):  # noqa: N818 - says what happened
    """This message cannot be sent, now or later: sending it again is of no use."""


class EncodingError(Undeliverable):
    """A document holds something that does not travel, e.g. an array of Python objects."""


class MessageTooLarge(Undeliverable):
    """A message is larger than the broker (or `kafka.max_message_bytes`) takes."""


class NotDelivered(MessagingError):  # noqa: N818 - says what happened
    """Not acknowledged before the deadline; the message may still arrive later."""


class BrokerUnreachable(MessagingError):  # noqa: N818 - says what happened
    """No broker answered before the deadline."""


class CommitFailed(MessagingError):  # noqa: N818 - says what happened
    """The broker did not store the offsets; they may be committed again."""


class Fenced(MessagingError):  # noqa: N818 - says what happened
    """Another process joined the group under the same instance id; this one must end."""
