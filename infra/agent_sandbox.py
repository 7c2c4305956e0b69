"""Opens the sandbox that the settings choose, and says what of this machine agents may be given."""

import os
from contextlib import AsyncExitStack
from pathlib import Path

from agents.readable import ReadablePaths
from agents.registry import AgentRegistry
from agents.sandbox import ProcessSandbox, Sandbox
from agents.sandbox.actions import SandboxedActions, check
from agents.sandbox.docker import IMAGE, DockerSandbox
from agents.sandbox.inline import InlineSandbox
from infra.settings import Settings


def readable_paths(settings: Settings, *private: Path) -> ReadablePaths:
    """What of this machine the inputs of actions may name; nothing of the worker's, nor `private`.

    The operator's own choice of advisories stands in inputs as if a workflow had named it.
    """
    within = [Path(each) for each in settings.sandbox_readable.split(os.pathsep) if each]
    own = [settings.data, *private]
    own += [] if settings.secrets is None else [settings.secrets]
    own += [] if "://" in settings.blob_url else [Path(settings.blob_url)]
    return ReadablePaths(within, own, filter(None, [settings.advisories]))


async def sandboxed_actions(
    settings: Settings, registry: AgentRegistry, stack: AsyncExitStack
) -> SandboxedActions | None:
    """The sandbox, open as long as the stack; None where nothing is executed in one.

    Raises:
        AgentError: an action could not be called there.
        SandboxError: there is no such sandbox on this machine.
    """
    asking = [
        action
        for agent in registry.agents.values()
        for action in agent.actions.values()
        if action.execution == "sandbox"
    ]
    if not asking:
        return None
    preload = dict.fromkeys(module for action in asking for module in action.preload)
    sandbox = await stack.enter_async_context(_chosen(settings, check(asking), list(preload)))
    paths = readable_paths(settings, sandbox.folder)
    return SandboxedActions(sandbox, paths, settings.payload_limit)


def _chosen(settings: Settings, modules: list[str], preload: list[str]) -> Sandbox:
    match settings.sandbox:
        case "process":
            return ProcessSandbox(modules, preload=preload)
        case "docker":
            return DockerSandbox(modules, image=settings.sandbox_image or IMAGE)
        case "inline":
            return InlineSandbox()
