"""Listening: the gateway's app on a socket, from start to stop."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from errno import EADDRINUSE

from aiohttp import web

from gateway.app import create_app
from gateway.services import Services
from streams.errors import OperatorError

_SHUTDOWN_S = 5.0


@asynccontextmanager
async def serving(services: Services, host: str, port: int) -> AsyncIterator[str]:
    """Serve while the context is open; gives the address that it serves at.

    Args:
        services: What the gateway works with.
        host: The address to listen on.
        port: The port; 0 takes any free one.

    Raises:
        OperatorError: The port is taken, or the address is not one of this machine.
    """
    runner = web.AppRunner(
        create_app(services), access_log=None, shutdown_timeout=_SHUTDOWN_S, handle_signals=False
    )
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port, reuse_address=True).start()
        except OSError as error:
            raise OperatorError(_why_not(error, host, port)) from error
        listening = runner.addresses[0][1]
        shown = f"[{host}]" if ":" in host else host
        yield f"http://{shown}:{listening}"
    finally:
        await runner.cleanup()


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == EADDRINUSE:
        return (
            f"Port {port} of {host} is taken: stop the program that has it, or choose another with"
            " --port or COMMANDCENTER_PORT."
        )
    return f"The gateway cannot listen on {host}, port {port}: {error.strerror or error}."
