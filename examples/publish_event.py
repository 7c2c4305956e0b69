"""Another system: publishes an event with a plain Kafka client, and nothing of CommandCenter.

    python examples/publish_event.py 127.0.0.1:9092 /path/of/a/repository

A CloudEvent in Kafka's binary mode is a record whose headers are the attributes (`ce_…`) and whose
value is the data. Publishing the same source and id again starts nothing twice.
"""

import asyncio
import json
import sys
from pathlib import Path

from aiokafka import AIOKafkaProducer


async def publish(bootstrap: str, repository: Path) -> None:
    data = {"repository": {"name": repository.name, "path": str(repository)}, "branch": "main"}
    headers = {
        "ce_specversion": "1.0",
        "ce_id": f"push-{repository.name}-1",
        "ce_source": "examples/publish_event.py",
        "ce_type": "repo.push",
        "content-type": "application/json",
    }
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        await producer.send_and_wait(
            "commandcenter.triggers",
            json.dumps(data).encode(),
            headers=[(name, value.encode()) for name, value in headers.items()],
        )
    print(f"published repo.push of {repository}")


if __name__ == "__main__":
    asyncio.run(publish(sys.argv[1], Path(sys.argv[2]).resolve()))
