"""Which repository an agent looks at: what the inputs of several agents share.

A folder is read where it is. A URL is cloned into the workspace: by the worker in a sandbox of its
own, with the network, before the action begins in one without (`agents/sandbox/actions.py`); or by
the action itself, where it is not executed in a sandbox.
"""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from agents.context import Context
from agents.model import Model
from agents.readable import Readable
from agents.repository.checkout import FOLDER, Checkout, checked_url, clone


class NamedRepository(Model):
    """Which repository: a folder, or a URL to clone."""

    repository_path: Annotated[str, Readable()] = Field(
        default="",
        pattern=r"^[^\x00-\x1f]*$",
        description="an absolute path on the worker's machine; in a git repository only "
        "what git does not ignore is read",
    )
    repository_url: str = Field(
        default="", description="or https://… or file://…: cloned without its history"
    )
    revision: str = Field(
        default="", description="branch or tag of the URL; empty: the repository's own choice"
    )

    @field_validator("repository_url")
    @classmethod
    def _may_be_cloned(cls, url: str) -> str:
        return checked_url(url) if url else url

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if bool(self.repository_path) == bool(self.repository_url):
            raise ValueError("give repositoryPath or repositoryUrl, one of them")
        if self.revision and not self.repository_url:
            raise ValueError("revision goes with repositoryUrl: a folder is read as it is")
        return self

    @property
    def checkout(self) -> Checkout | None:
        """What has to be cloned before the action begins."""
        return Checkout(self.repository_url, self.revision) if self.repository_url else None


def folder_of(inputs: NamedRepository, context: Context) -> Path:
    """Where the repository's files are. Raises `AgentError` where it cannot be cloned."""
    if not inputs.repository_url:
        return Path(inputs.repository_path).absolute()
    folder = context.workspace / FOLDER
    if not folder.is_dir():
        context.report_progress(0, "cloning")
        clone(inputs.repository_url, inputs.revision, folder)
    return folder
