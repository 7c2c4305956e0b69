"""The agent `architecture-diagrammer`: which modules a repository has, and who imports whom."""

from typing import Literal

from pydantic import Field

from agents.agent import Agent
from agents.context import Context
from agents.errors import needing_extra
from agents.model import Model
from agents.repository.named import NamedRepository

Level = Literal["module", "folder"]

diagrammer = Agent(
    "architecture-diagrammer",
    description="Draws the modules of a repository and their imports as a Mermaid diagram.",
    type="RULE",
    version="1.0.0",
    concurrency=2,
)


class DiagramInput(NamedRepository):
    """What to draw."""

    paths: tuple[str, ...] = Field(
        default=(), max_length=1000, description="files, folders and patterns; none means all"
    )
    level: Literal["module", "folder", "auto"] = Field(
        default="auto", description="auto: modules, or folders where there are over maxNodes"
    )
    max_nodes: int = Field(default=60, ge=1, le=300)
    max_edges: int = Field(
        default=300, ge=1, le=450, description="Mermaid itself draws no more than 500"
    )
    link_base: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s\"'<>]+$",
        max_length=1000,
        description="what stands before a path in a link; by default the page of the "
        "repository's `origin` at GitHub, GitLab or Bitbucket, else nothing",
    )


class Node(Model):
    """A module, or a folder of them, as it is drawn."""

    id: str
    name: str
    group: str = Field(description="its folder")
    language: str
    link: str = Field(description="to its source")


class Import(Model):
    """One arrow."""

    source: str = Field(description="the node that imports")
    target: str = Field(description="the node that is imported")
    count: int


class Counts(Model):
    """How many of each."""

    modules: int
    imports: int


class DiagramOutput(Model):
    """The diagram, and the same as data."""

    mermaid: str
    level: Level
    nodes: tuple[Node, ...]
    imports: tuple[Import, ...]
    total: Counts = Field(description="at this level, drawn or not")
    omitted: Counts = Field(description="not drawn: the least connected ones")
    external: dict[str, int] = Field(
        description="what is imported from elsewhere, by how many modules; the 50 most frequent"
    )
    scanned_files: int
    skipped_files: int = Field(description="source files that are binary, too large or unreadable")
    warnings: tuple[str, ...]


@diagrammer.action(
    timeout=300,
    execution="sandbox",
    memory="1GiB",
    preload=(
        "agents.architecture_diagrammer.drawing",
        "tree_sitter",
        "tree_sitter_go",
        "tree_sitter_java",
        "tree_sitter_javascript",
        "tree_sitter_python",
        "tree_sitter_typescript",
    ),
)
def diagram(inputs: DiagramInput, context: Context) -> DiagramOutput:
    """Draw the modules of a folder and their imports."""
    with needing_extra():
        from agents.architecture_diagrammer.drawing import drawn

        return drawn(inputs, context)
