"""Which repository an agent looks at: what the inputs of several agents share."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from agents.context import Context
from agents.model import Model
from agents.scanning.checkout import checked_url


class Repository(Model):
    """Which repository: a folder, or a URL to clone."""

    repository_path: str = Field(
        default="",
        description="a folder on the worker's machine; in a git repository only "
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

    def question(self, context: Context) -> dict[str, str]:
        """Where the scan process finds it; what has to be cloned goes to the workspace."""
        path = self.repository_path or str(context.workspace / "repository")
        return {"path": path, "url": self.repository_url, "revision": self.revision}
