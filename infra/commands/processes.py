"""`commandcenter up`, `worker`, `gateway` and `recorder`: the processes that serve."""

import asyncio
import time
from typing import TYPE_CHECKING, Annotated

import typer

from infra.commands import output
from infra.commands.options import AsJson, DataDir, settings
from streams.errors import OperatorError

if TYPE_CHECKING:
    from infra.settings import Settings
    from infra.system import Running


def up(
    data_dir: DataDir = None,
    port: Annotated[
        int | None, typer.Option(help="Of the gateway and its page.", show_default="8080")
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show the processes' logs here.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run everything on this machine, until Ctrl-C: Kafka, a worker and the gateway."""
    chosen = settings(data=data_dir, port=port)
    asyncio.run(_up(chosen, verbose=verbose, as_json=as_json))


def worker(
    agents: Annotated[
        list[str] | None,
        typer.Option("--agents", metavar="MODULE:VARIABLE", help="Agents of your own to serve."),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Run one more worker: router, orchestrator, and agents, the built-in ones and --agents.

    It uses the Kafka of COMMANDCENTER_KAFKA, or the one that `commandcenter up` runs for the same
    data directory.
    """
    chosen = settings(data=data_dir)
    bootstrap = bootstrap_of(chosen)

    import uvloop

    from agents.registry import AgentRegistry, builtin
    from infra import telemetry
    from infra.agent_references import load_agents
    from infra.supervisor import stop_on_signals
    from infra.worker import run_worker

    registry = AgentRegistry((*builtin(), *load_agents(agents or ())))
    telemetry.configure("worker")

    async def serve() -> None:
        with stop_on_signals() as stop:
            await run_worker(chosen, bootstrap, registry, stop)

    uvloop.run(serve())


def gateway(
    data_dir: DataDir = None,
    port: Annotated[int | None, typer.Option(help="To listen on.", show_default="8080")] = None,
) -> None:
    """Run a gateway: HTTP, websockets, the page, and the recorder of the history."""
    chosen = settings(data=data_dir, port=port)
    bootstrap = bootstrap_of(chosen)

    import uvloop

    from infra import telemetry
    from infra.gateway_process import run_gateway
    from infra.supervisor import stop_on_signals

    telemetry.configure("gateway")

    async def serve() -> None:
        with stop_on_signals() as stop:
            await run_gateway(chosen, bootstrap, stop)

    uvloop.run(serve())


def recorder(data_dir: DataDir = None) -> None:
    """Run a recorder into a ClickHouse server; with the embedded store the gateway does it."""
    chosen = settings(data=data_dir)
    bootstrap = bootstrap_of(chosen)

    import uvloop

    from infra import telemetry
    from infra.gateway_process import run_recorder
    from infra.supervisor import stop_on_signals

    telemetry.configure("recorder")

    async def serve() -> None:
        with stop_on_signals() as stop:
            await run_recorder(chosen, bootstrap, stop)

    uvloop.run(serve())


async def _up(chosen: "Settings", *, verbose: bool, as_json: bool) -> None:
    from infra.supervisor import stop_on_signals
    from infra.system import run_system

    began = time.monotonic()

    def say(sentence: str) -> None:
        if as_json:
            output.print_json_line({"message": sentence})
        else:
            print(sentence, flush=True)

    def tell(running: "Running") -> None:
        if as_json:
            output.print_json_line(
                {
                    "ready": True,
                    "url": running.url,
                    "kafka": running.bootstrap,
                    "data": str(running.data),
                    "logs": str(running.logs),
                }
            )
            return
        print(f"CommandCenter is ready after {time.monotonic() - began:.1f} s. Ctrl-C stops it.")
        print(f"  page and API  {running.url}")
        print(f"  Kafka         {running.bootstrap}")
        print(f"  data          {running.data}")
        print(f"  logs          {running.logs}", flush=True)

    with stop_on_signals() as stop:
        await run_system(chosen, stop, say=say, on_ready=tell, verbose=verbose)
    say("Stopped.")


def bootstrap_of(chosen: "Settings") -> str:
    """The Kafka to use."""
    if chosen.kafka:
        return chosen.kafka
    from infra.local_kafka import read_bootstrap

    found = read_bootstrap(chosen.data)
    if found is None:
        raise OperatorError(
            f"No Kafka: none is running for the data directory {chosen.data}. Start `commandcenter "
            "up` there, or set COMMANDCENTER_KAFKA to host:port of another one."
        )
    return found
