"""The gateway as a server on one address, from start to stop."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from gateway.app import create_app
from gateway.services import Services
from streams.errors import OperatorError

_SHUTDOWN_S: Final = 5.0


@asynccontextmanager
async def serving(services: Services, host: str, port: int) -> AsyncIterator[None]:
    """Serve inside the block; at its end websockets are closed and requests finished.

    Raises:
        OperatorError: The address cannot be listened on.
    """
    runner = web.AppRunner(create_app(services), access_log=None, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise OperatorError(
                f"Cannot listen on {host}:{port}: {error.strerror}. Another program may have the"
                " port: choose another one with --port or COMMANDCENTER_PORT."
            ) from error
        yield
    finally:
        await runner.cleanup()
