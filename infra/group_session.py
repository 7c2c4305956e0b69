"""How soon a silent worker counts as dead: as soon as we like it, or the cluster allows."""

from typing import Final

import structlog
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from streams.faust_shell import SESSION_S

_log = structlog.get_logger(__name__)

_LIMIT: Final = "group.min.session.timeout.ms"
ALLOWED_EVERYWHERE_S: Final = 6.0
"""Kafka's own default for the limit."""


async def session_seconds(bootstrap: str) -> float:
    """The session time-out for the workers' group: `SESSION_S`, or the brokers' lower limit.

    Where the brokers do not tell their limit (that is a permission of its own), Kafka's default.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, client_id="commandcenter")
    try:
        await admin.start()
        limits = [await _limit(admin, b["node_id"]) for b in (await _brokers(admin))]
    except (KafkaError, ValueError) as error:  # ValueError: an answer without it
        _log.warning("the brokers do not tell their shortest session", why=repr(error))
        return ALLOWED_EVERYWHERE_S
    finally:
        await admin.close()
    return max(SESSION_S, *limits)


async def _brokers(admin: AIOKafkaAdminClient) -> list[dict[str, int]]:
    brokers: list[dict[str, int]] = (await admin.describe_cluster())["brokers"]
    return brokers


async def _limit(admin: AIOKafkaAdminClient, broker: int) -> float:
    asked = ConfigResource(ConfigResourceType.BROKER, str(broker), {_LIMIT: ""})
    (answer,) = await admin.describe_configs([asked])
    ((_code, _text, _type, _name, entries),) = answer.resources
    (milliseconds,) = [entry[1] for entry in entries if entry[0] == _LIMIT]
    return int(milliseconds) / 1000
