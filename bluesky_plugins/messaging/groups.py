"""Who reads as a consumer group."""

from __future__ import annotations

from confluent_kafka import KafkaException

from bluesky_plugins.messaging.admin import Admin
from bluesky_plugins.messaging.errors import BrokerUnreachable
from bluesky_plugins.settings import Settings

__all__ = ["group_members"]


def group_members(settings: Settings, group_id: str, timeout: float = 10.0) -> list[str]:
    """The instances, or client ids, of a group's members; none for a group that is not there.

    :param group_id: name of the group without the beamline.
    :raises BrokerUnreachable: if no broker says so within `timeout` seconds.
    """
    name = f"{settings.beamline}.{group_id}"
    admin = Admin(settings)
    asked = admin.client.describe_consumer_groups([name], request_timeout=timeout)
    try:
        members = asked[name].result(timeout + 1.0).members
    except (KafkaException, TimeoutError) as error:
        reason = admin.reason(error)
        raise BrokerUnreachable(f"nobody tells who is in the group {name}: {reason}") from error
    return sorted(member.group_instance_id or member.client_id for member in members)
