"""The agent `patcher`: changes a repository on a branch of its own.

Rules:
- The patch is a commit on a new branch, named by the task. The user's branch, index and work tree
  stay as they are, byte for byte; see `agents/repository/history.py`.
- A patch that does not fit is a failure, and nothing is written.
- The same task gives the same branch, commit and answer, also when it is executed again after the
  user has committed something else.
"""

from agents.agent import Agent
from agents.context import Context
from agents.patcher.order import PatchInput, PatchOutput

patcher = Agent(
    "patcher",
    description="Changes a git repository on a branch of its own, once a person has agreed.",
    type="RULE",
    version="1.0.0",
    concurrency=2,
)


@patcher.action(timeout=300, risk="APPROVAL_REQUIRED")
def apply(inputs: PatchInput, context: Context) -> PatchOutput:
    """Make a patch on a branch of its own: a dependency, a diff, a refactoring or a setting."""
    from agents.patcher.patch import made

    return made(inputs, context.task_id)
