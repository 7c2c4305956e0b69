"""A process's metrics over HTTP, where it has no other server: for Prometheus to scrape."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import start_http_server

from streams.errors import OperatorError


@contextmanager
def metrics_served(host: str, port: int) -> Iterator[None]:
    """Serve `/metrics` at this address, from a thread of its own; port 0: not at all.

    Raises:
        OperatorError: The port cannot be listened on.
    """
    if not port:
        yield
        return
    try:
        server, thread = start_http_server(port, host)
    except OSError as error:
        raise OperatorError(
            f"Port {port} on {host} cannot be listened on for the worker's metrics: "
            f"{error.strerror}. Choose another with COMMANDCENTER_WORKER_METRICS_PORT (each worker "
            "of a machine needs its own), or leave it unset to serve none."
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
