"""Who reads as a consumer group."""

from __future__ import annotations

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from bluesky_plugins.messaging.config import admin_config
from bluesky_plugins.messaging.errors import BrokerUnreachable
from bluesky_plugins.settings import Settings

__all__ = ["group_members"]


def group_members(settings: Settings, group_id: str, timeout: float = 10.0) -> list[str]:
    """The instances, or client ids, of a group's members; none for a group that is not there.

    :param group_id: name of the group without the beamline.
    :raises BrokerUnreachable: if no broker says so within `timeout` seconds.
    """
    name = f"{settings.beamline}.{group_id}"
    # Its answers come only as long as it is held.
    client = AdminClient(admin_config(settings))
    asked = client.describe_consumer_groups([name], request_timeout=timeout)
    try:
        members = asked[name].result(timeout + 1.0).members
    except (KafkaException, TimeoutError) as error:
        raise BrokerUnreachable(f"nobody tells who is in the group {name}: {error}") from error
    return sorted(member.group_instance_id or member.client_id for member in members)
