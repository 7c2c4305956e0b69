"""Agents named on the command line as `module:variable`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from streams.errors import CallerError, OperatorError

if TYPE_CHECKING:
    from agents.agent import Agent


def load_agents(references: Sequence[str]) -> "tuple[Agent, ...]":
    """The agents, from installed modules or ones in the working directory.

    Raises:
        CallerError: A reference leads nowhere.
        AgentError: A module cannot be imported.
    """
    from agents.registry import load

    # Last: a folder of the user's must not take the place of an installed package.
    here = str(Path.cwd())
    if references and here not in sys.path:
        sys.path.append(here)
    try:
        return tuple(load(reference) for reference in references)
    except OperatorError as error:
        raise CallerError(str(error)) from error
