"""Inputs that a person gives to a node, with an approval or for a rerun: whether it can take them.

What can be told to be wrong is refused before it is written: the node would only fail by it, and
what people have agreed to with it.
"""

from typing import Any

from aiohttp import web

from gateway.services import AGENTS, SERVICES
from streams.definition_limits import items_problem
from streams.errors import CallerError, path_text
from streams.workflow import NodeSpec


def check_given_inputs(
    app: web.Application, spec: NodeSpec, given: Any, *, item: bool = False
) -> None:
    """Nothing where the node, or an `item` of it, may take what is given; else `CallerError`."""
    if spec.agent is None and spec.workflow is None:
        raise CallerError(
            f"inputs: {spec.id!r} has none: it neither asks an agent nor runs another workflow"
        )
    if spec.for_each is not None and not item:
        if not isinstance(given, list):
            raise CallerError(f"inputs: those of {spec.id!r} must be a list: the node's items")
        if text := items_problem(given, app[SERVICES].fan_out_limit):
            raise CallerError(f"inputs: {text}")
        return
    if not isinstance(given, dict):
        raise CallerError(f"inputs: those of {spec.id!r} must be a JSON object")
    if spec.agent is None or spec.action is None:
        return
    if faults := app[AGENTS].refused(spec.agent, spec.action, given):
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise CallerError(f"{path_text(faults[0].path)}: {faults[0].message}{more}")
