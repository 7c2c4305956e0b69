"""What every agent that takes a repository makes of one that is not there, shut, empty or odd."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from unprivileged import unprivileged

from agents import Action, PermanentError
from agents.architecture_diagrammer import diagram
from agents.code_reviewer import review
from agents.compliance_checker import check
from agents.patcher import apply
from agents.security_scanner import scan

READERS: Final[Mapping[str, tuple[Action[Any, Any], dict[str, Any]]]] = {
    "security-scanner": (scan, {"scanType": "secrets"}),
    "compliance-checker": (check, {"rules": ["secrets", "licenses"]}),
    "code-reviewer": (review, {}),
    "architecture-diagrammer": (diagram, {}),
}
DIFF: Final = "--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-import os\n+import re\n"

readers = pytest.mark.parametrize("reader", READERS)


async def read_by(reader: str, folder: Path) -> Any:
    action, inputs = READERS[reader]
    return await unprivileged(lambda: action.test({"repositoryPath": str(folder), **inputs}))


async def patched(folder: Path, *, dry_run: bool = False) -> Any:
    target = {"repositoryPath": str(folder)}
    order = {"patchType": "security-patch", "target": target, "changes": {"diff": DIFF}}
    return await unprivileged(lambda: apply.test({**order, "dryRun": dry_run}))


def repository(folder: Path, *, is_new: bool = False) -> Path:
    """The folder as a git repository; unless it is new, with all that it holds in a commit."""
    git = ["git", "-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]
    commit = (["add", "--all"], ["commit", "--quiet", "--allow-empty", "--message", "x"])
    for command in (["init", "--quiet"], *(() if is_new else commit)):
        subprocess.run(git + command, cwd=folder, check=True, capture_output=True)
    return folder


def everything(folder: Path) -> dict[Path, bytes]:
    """All files but those objects of git that nothing refers to yet."""
    files = (path for path in folder.rglob("*") if path.is_file() and "objects" not in path.parts)
    return {path: path.read_bytes() for path in files}


def files_read(output: Any) -> int:
    names = ("scanned_files", "checked_files", "reviewed_files")
    return next(getattr(output, name) for name in names if hasattr(output, name))


@pytest.mark.parametrize("agent", [*READERS, "patcher"])
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nowhere", "cannot be read: No such file|is not there"),
        ("file", "is not a folder"),
        ("shut", "cannot be read: Permission denied"),
        ("shut/inner", "cannot be read: Permission denied"),
    ],
)
async def test_a_folder_that_is_none_is_named(
    tmp_path: Path, agent: str, name: str, why: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "shut" / "inner").mkdir(parents=True)
    (tmp_path / "shut").chmod(0)
    folder = tmp_path / name
    with pytest.raises(PermanentError, match=f"{re.escape(str(folder))} ({why})"):
        await (patched(folder) if agent == "patcher" else read_by(agent, folder))


@readers
@pytest.mark.parametrize("is_repository", [True, False])
async def test_what_may_not_be_read_is_counted_or_told(
    tmp_path: Path, reader: str, is_repository: bool
) -> None:
    for name in ("fine.py", "shut.py", "tracked/a.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("import os\n")
    if is_repository:
        repository(tmp_path)
    (tmp_path / "unknown").mkdir()
    (tmp_path / "shut.py").chmod(0)
    for folder in ("tracked", "unknown"):
        (tmp_path / folder).chmod(0)
    output = await read_by(reader, tmp_path)
    assert files_read(output) == 1
    assert output.skipped_files == (2 if is_repository else 1)
    for folder in ("tracked", "unknown"):
        told = f"{folder}: the folder cannot be read: Permission denied"
        assert told in output.warnings


@readers
async def test_what_is_no_text_or_too_large_is_counted(tmp_path: Path, reader: str) -> None:
    (tmp_path / "fine.py").write_text("import os\n")
    (tmp_path / "binary.py").write_bytes(b"import os\0\n")
    (tmp_path / "latin.py").write_bytes("# é\n".encode("latin-1"))
    (tmp_path / "utf16.py").write_bytes("import os\n".encode("utf-16"))
    (tmp_path / "huge.py").write_bytes(b"import os\n" * 200_000)
    output = await read_by(reader, tmp_path)
    assert (files_read(output), output.skipped_files) == (1, 4)


@readers
@pytest.mark.parametrize("kind", ["folder", "repository", "repository with a commit"])
async def test_where_there_is_nothing_nothing_is_found(
    tmp_path: Path, reader: str, kind: str
) -> None:
    if kind != "folder":
        repository(tmp_path, is_new=kind == "repository")
    output = await read_by(reader, tmp_path)
    assert (files_read(output), output.skipped_files, list(output.warnings)) == (0, 0, [])


@pytest.mark.parametrize(
    ("shut", "why"),
    [
        ("objects", "the new commit cannot be stored: .*insufficient permission"),
        ("refs/heads", "the branch commandcenter/.* cannot be made: .*unable to create"),
    ],
)
async def test_a_repository_that_may_not_be_written_is_not_patched(
    tmp_path: Path, shut: str, why: str
) -> None:
    (tmp_path / "a.py").write_text("import os\n")
    inside = repository(tmp_path) / ".git" / shut
    for each in (inside, *(it for it in inside.iterdir() if it.is_dir())):
        each.chmod(0o500)
    before = everything(tmp_path)
    assert (await patched(tmp_path, dry_run=True)).changes
    with pytest.raises(PermanentError, match=why):
        await patched(tmp_path)
    assert everything(tmp_path) == before
