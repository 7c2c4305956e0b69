"""What the patcher is asked for, and what it answers."""

from pathlib import PurePosixPath
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field, JsonValue, RootModel

from agents.model import Model
from agents.readable import Readable
from agents.repository.history import Action

_MAX_DIFF: Final = 10_000_000


def _inside(path: str) -> str:
    """The path, if it names a file of the repository and nothing else."""
    parts = path.split("/")
    if path.startswith("/") or "" in parts or not {".", ".."}.isdisjoint(parts):
        raise ValueError("give a path relative to the repository, with '/', without '.' and '..'")
    if any(part.lower() == ".git" for part in parts):
        raise ValueError("what is in .git is git's own")
    if any(ord(letter) < 0x20 for letter in path):
        raise ValueError("a path has no control characters")
    return PurePosixPath(path).as_posix()


def _absolute(path: str) -> str:
    """The path, if it does not depend on where the worker was started."""
    if not path.startswith("/"):
        raise ValueError("give an absolute path")
    return path


RepositoryFile = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_inside)]


class Target(Model):
    """The repository to patch."""

    repository_path: Annotated[str, Readable(), AfterValidator(_absolute)] = Field(
        min_length=1,
        pattern=r"^[^\x00-\x1f]+$",
        description="an absolute path: the top folder of a git repository on the worker's machine",
    )
    revision: str = Field(
        default="HEAD",
        min_length=1,
        max_length=500,
        pattern=r"^[^\x00-\x1f]+$",
        description="the commit to start from; what is not committed is not seen",
    )


class ManifestTarget(Target):
    """The manifest to update."""

    manifest: RepositoryFile = Field(
        description="requirements*.txt, pyproject.toml, package.json, go.mod or pom.xml"
    )


class FileTarget(Target):
    """The configuration file to change."""

    file: RepositoryFile = Field(description=".json, .yaml, .yml or .toml")


class FilesTarget(Target):
    """The files to refactor."""

    paths: tuple[str, ...] = Field(
        default=(),
        max_length=1000,
        description="shell patterns such as `src/**/*.py`; none means every text file",
    )


class DependencyChange(Model):
    """One dependency's new version, wherever the manifest names it."""

    package: str = Field(
        min_length=1,
        max_length=300,
        description="its name; of Go the module path; of Maven `groupId:artifactId`",
    )
    version: str = Field(
        min_length=1,
        max_length=100,
        pattern=r"^[^\x00-\x1f]+$",
        description="a version, which keeps the operator (`>=1.0` becomes `>=2.0`), "
        "or a whole requirement such as `>=2,<3`",
    )


class ConfigChange(Model):
    """One value: set, or removed."""

    path: tuple[str | int, ...] = Field(
        min_length=1, max_length=100, description="keys, and positions in lists counted from 0"
    )
    value: JsonValue = Field(default=None, description="the new value; not read where removed")
    remove: bool = False


class Rename(Model):
    """A Python function, class, method or variable gets another name, wherever it is used."""

    kind: Literal["rename"]
    file: RepositoryFile = Field(description="where it is defined")
    symbol: str = Field(
        pattern=r"^[^\W\d]\w*(\.[^\W\d]\w*)*$",
        max_length=300,
        description="`function`, `Class` or `Class.method`",
    )
    to: str = Field(pattern=r"^[^\W\d]\w*$", max_length=200, description="its new name alone")


class Replacement(Model):
    """An exact text is replaced in all files of the target."""

    kind: Literal["replace"]
    find: str = Field(min_length=1, max_length=100_000)
    replace: str = Field(max_length=100_000)
    expected_count: int = Field(
        ge=1, le=1_000_000, description="how often it is there; with another count nothing is done"
    )


class Diff(Model):
    """A patch as git or diff makes it."""

    diff: str = Field(
        min_length=1,
        max_length=_MAX_DIFF,
        description="a unified diff with `a/` and `b/` before its paths",
    )


class _Order(Model):
    dry_run: bool = Field(
        default=False, description="answer with the same diff, and write no branch"
    )


class DependencyUpdate(_Order):
    """Update versions in a manifest."""

    patch_type: Literal["dependency-update"]
    target: ManifestTarget
    changes: tuple[DependencyChange, ...] = Field(min_length=1, max_length=1000)


class SecurityPatch(_Order):
    """Apply a unified diff."""

    patch_type: Literal["security-patch"]
    target: Target
    changes: Diff


class SimpleRefactor(_Order):
    """Rename Python symbols and replace exact texts, in this order."""

    patch_type: Literal["simple-refactor"]
    target: FilesTarget
    changes: tuple[Annotated[Rename | Replacement, Field(discriminator="kind")], ...] = Field(
        min_length=1, max_length=100
    )


class ConfigUpdate(_Order):
    """Change values of a configuration file."""

    patch_type: Literal["config-update"]
    target: FileTarget
    changes: tuple[ConfigChange, ...] = Field(min_length=1, max_length=1000)


Order = DependencyUpdate | SecurityPatch | SimpleRefactor | ConfigUpdate


class PatchInput(RootModel[Annotated[Order, Field(discriminator="patch_type")]]):
    """What to patch; `patchType` says what `target` and `changes` hold."""

    model_config = ConfigDict(frozen=True, json_schema_extra={"type": "object"})

    @property
    def inputs(self) -> dict[str, Any]:
        """What decides the result, as JSON values."""
        return self.root.model_dump(mode="json", by_alias=True, exclude={"dry_run"})


class FileDiff(Model):
    """What becomes of one file."""

    file: str
    action: Action
    lines_changed: int = Field(description="added and removed; 0 for a binary file")
    diff: str = Field(description="its part of the unified diff")


class PatchOutput(Model):
    """The patch, made or only worked out."""

    applied: bool = Field(description="whether the branch is there: not after a dry run")
    changes: tuple[FileDiff, ...] = Field(
        description="by file; their diffs one after the other are the whole patch"
    )
    summary: str
    rollback: str = Field(description="the reverse patch, for `git apply`")
    branch: str | None = Field(description="where the patch is committed")
    commit: str | None
    base: str = Field(description="the commit that it was made from")
