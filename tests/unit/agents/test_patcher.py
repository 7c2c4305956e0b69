"""The patcher against real repositories: what it changes, what it leaves alone, what it refuses."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from unprivileged import unprivileged

from agents import Context, PermanentError
from agents.patcher import apply
from agents.patcher.order import PatchOutput

ROOT = Path(__file__).parents[3]

ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")} | {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Somebody"), ("EMAIL", "somebody@example.org"))
}


def git(folder: Path, *arguments: str, data: bytes = b"") -> str:
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        env=ENVIRONMENT,
        input=data,
    )
    return done.stdout.decode("utf-8", "surrogateescape").strip()


def write(folder: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def committed(folder: Path, files: dict[str, str | bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    if not (folder / ".git").exists():
        git(folder, "init", "--quiet", "--initial-branch=main")
    write(folder, files)
    git(folder, "add", "--all", "--force")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "as it was")
    return folder


async def patched(
    folder: Path,
    kind: str,
    changes: Any,
    *,
    task: str = "run/step/1",
    dry_run: bool = False,
    **target: Any,
) -> PatchOutput:
    return await apply.test(
        {
            "patchType": kind,
            "target": {"repositoryPath": str(folder), **target},
            "changes": changes,
            "dryRun": dry_run,
        },
        Context(task_id=task),
    )


async def refused(folder: Path, kind: str, changes: Any, says: str, **target: Any) -> None:
    before = everything(folder)
    with pytest.raises((PermanentError, ValidationError), match=says):
        await patched(folder, kind, changes, **target)
    assert everything(folder) == before


def everything(folder: Path) -> dict[str, bytes | str]:
    """All files of a folder with what is in them, .git included."""
    return {
        str(path.relative_to(folder)): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def checkout(folder: Path) -> dict[str, bytes | str]:
    """All that is the user's: the work tree, the index, HEAD and their branches."""
    theirs = everything(folder)
    mine = (
        ".git/objects/",
        ".git/refs/heads/commandcenter/",
        ".git/logs/refs/heads/commandcenter/",
    )
    return {name: content for name, content in theirs.items() if not name.startswith(mine)}


def shown(folder: Path, output: PatchOutput, file: str) -> str:
    done = subprocess.run(
        ["git", "show", f"{output.branch}:{file}"], cwd=folder, check=True, capture_output=True
    )
    return done.stdout.decode()


DIFF = """\
diff --git a/app.py b/app.py
--- a/app.py
+++ b/app.py
@@ -1,2 +1,2 @@
 import os
-os.system(command)
+os.execv(command)
"""


async def test_a_patch_is_a_commit_on_a_branch_of_its_own(tmp_path: Path) -> None:
    folder = committed(tmp_path / "r", {"app.py": "import os\nos.system(command)\n", "b": "b"})
    base = git(folder, "rev-parse", "HEAD")
    output = await patched(folder, "security-patch", {"diff": DIFF})
    assert output.applied
    assert (output.branch, output.base) == ("commandcenter/run/step/1", base)
    assert git(folder, "rev-parse", "commandcenter/run/step/1") == output.commit
    assert git(folder, "rev-parse", f"{output.commit}^") == base
    (change,) = output.changes
    assert (change.file, change.action, change.lines_changed) == ("app.py", "modified", 2)
    assert "+os.execv(command)" in change.diff
    assert shown(folder, output, "app.py") == "import os\nos.execv(command)\n"
    assert output.summary == "Apply a security patch (1 file, 2 lines changed)"
    assert "CommandCenter-Task: run/step/1" in git(
        folder, "show", "-s", "--format=%B", "HEAD@{0}^0", str(output.commit)
    )


async def test_the_users_checkout_stays_as_it_is(tmp_path: Path) -> None:
    folder = committed(tmp_path / "r", {"app.py": "import os\nos.system(command)\n", "b": "b"})
    write(folder, {"app.py": "not committed", "c": "not tracked", "b": "staged"})
    git(folder, "add", "b")
    git(folder, "status")
    before, branch = checkout(folder), git(folder, "symbolic-ref", "HEAD")
    output = await patched(folder, "security-patch", {"diff": DIFF})
    assert checkout(folder) == before
    assert git(folder, "symbolic-ref", "HEAD") == branch
    assert git(folder, "branch", "--format=%(refname:short)").split() == [output.branch, "main"]
    git(folder, "fsck", "--strict")


async def test_a_dry_run_gives_the_same_and_writes_nothing(tmp_path: Path) -> None:
    folder = committed(tmp_path / "r", {"app.py": "import os\nos.system(command)\n"})
    before = everything(folder)
    dry = await patched(folder, "security-patch", {"diff": DIFF}, dry_run=True)
    assert everything(folder) == before
    assert (dry.applied, dry.branch, dry.commit) == (False, None, None)
    real = await patched(folder, "security-patch", {"diff": DIFF})
    assert (dry.changes, dry.rollback, dry.summary, dry.base) == (
        real.changes, real.rollback, real.summary, real.base,
    )  # fmt: skip


async def test_a_task_that_is_executed_again_gives_the_same(tmp_path: Path) -> None:
    folder = committed(tmp_path / "r", {"app.py": "import os\nos.system(command)\n"})
    first = await patched(folder, "security-patch", {"diff": DIFF})
    assert await patched(folder, "security-patch", {"diff": DIFF}) == first
    # The user goes on; the task that is executed again does not.
    committed(folder, {"app.py": "all is new\n"})
    assert await patched(folder, "security-patch", {"diff": DIFF}) == first
    other = await patched(
        folder, "security-patch", {"diff": DIFF}, task="run/step/2", revision="HEAD~1"
    )
    assert other.branch != first.branch
    assert other.changes == first.changes


async def test_a_branch_that_is_not_the_tasks_is_left_alone(tmp_path: Path) -> None:
    folder = committed(tmp_path / "r", {"app.py": "import os\nos.system(command)\n"})
    git(folder, "branch", "commandcenter/run/step/1")
    await refused(folder, "security-patch", {"diff": DIFF}, "this task did not make")
    git(folder, "branch", "-D", "commandcenter/run/step/1")
    await patched(folder, "security-patch", {"diff": DIFF})
    other = {"diff": DIFF.replace("execv", "execl")}
    await refused(folder, "security-patch", other, "this task did not make")


@pytest.mark.parametrize("task", ["a b/../c~1/x.lock", "ü:*?/[/1", "run/step.3/1", "-/@{/1"])
async def test_any_task_id_makes_a_branch(tmp_path: Path, task: str) -> None:
    folder = committed(tmp_path / "r", {"app.py": "import os\nos.system(command)\n"})
    output = await patched(folder, "security-patch", {"diff": DIFF}, task=task)
    assert git(folder, "rev-parse", f"refs/heads/{output.branch}") == output.commit


async def test_the_rollback_is_a_patch_that_git_takes(tmp_path: Path) -> None:
    folder = committed(
        tmp_path / "r", {"app.py": "import os\nos.system(command)\n", "ä ü.txt": "eins\r\nzwei"}
    )
    diff = DIFF + (
        "diff --git a/new.txt b/new.txt\nnew file mode 100755\n--- /dev/null\n+++ b/new.txt\n"
        "@@ -0,0 +1 @@\n+neu\n\\ No newline at end of file\n"
        'diff --git "a/\\303\\244 \\303\\274.txt" "b/\\303\\244 \\303\\274.txt"\n'
        "deleted file mode 100644\n"
        '--- "a/\\303\\244 \\303\\274.txt"\n+++ /dev/null\n'
        "@@ -1,2 +0,0 @@\n-eins\r\n-zwei\n\\ No newline at end of file\n"
    )
    output = await patched(folder, "security-patch", {"diff": diff})
    assert [(it.file, it.action) for it in output.changes] == [
        ("app.py", "modified"), ("new.txt", "created"), ("ä ü.txt", "deleted"),
    ]  # fmt: skip
    git(folder, "checkout", "--quiet", str(output.branch))
    git(folder, "apply", "--index", "-", data=output.rollback.encode())
    assert git(folder, "write-tree") == git(folder, "rev-parse", "main^{tree}")
    git(folder, "apply", "--index", "-", data="".join(it.diff for it in output.changes).encode())
    assert git(folder, "write-tree") == git(folder, "rev-parse", f"{output.branch}^{{tree}}")


async def test_text_that_is_not_utf8_is_told_as_a_binary_patch(tmp_path: Path) -> None:
    name = 'la"t\\in[*].txt'.replace("\\", "")
    folder = committed(tmp_path / "r", {name: "caf\xe9 old\n".encode("latin-1"), "b.txt": "old\n"})
    change = {"kind": "replace", "find": "old", "replace": "new", "expectedCount": 2}
    output = await patched(folder, "simple-refactor", [change])
    kinds = {it.file: "GIT binary patch" in it.diff for it in output.changes}
    assert kinds == {name: True, "b.txt": False}
    git(folder, "checkout", "--quiet", str(output.branch))
    assert (folder / name).read_bytes() == "caf\xe9 new\n".encode("latin-1")
    git(folder, "apply", "--index", "-", data=output.rollback.encode())
    assert git(folder, "write-tree") == git(folder, "rev-parse", "main^{tree}")


async def test_where_there_is_nothing_to_change_no_branch_is_made(tmp_path: Path) -> None:
    folder = committed(tmp_path / "r", {"x.json": '{"a": 1}'})
    before = everything(folder)
    output = await patched(folder, "config-update", [{"path": ["a"], "value": 1}], file="x.json")
    assert (output.applied, output.changes, output.rollback, output.branch) == (False, (), "", None)
    assert output.summary.startswith("Nothing to change")
    assert everything(folder) == before


# --- refusals -------------------------------------------------------------------------------------


async def test_a_patch_that_no_longer_applies_writes_nothing(tmp_path: Path) -> None:
    folder = committed(tmp_path / "r", {"app.py": "import os\nos.popen(command)\n"})
    await refused(folder, "security-patch", {"diff": DIFF}, r"does not apply: .*app\.py")
    await refused(folder, "security-patch", {"diff": "no patch at all"}, "does not apply")
    longer = committed(tmp_path / "s", {"app.py": "import os\nos.popen(command)\nprint()\n"})
    bare = "--- a/app.py\n+++ b/app.py\n@@ -2 +2 @@\n-os.popen(command)\n+pass\n"
    await refused(longer, "security-patch", {"diff": bare}, "no lines of context")


LINK = """\
diff --git a/{name} b/{name}
new file mode 120000
--- /dev/null
+++ b/{name}
@@ -0,0 +1 @@
+{goal}
\\ No newline at end of file
"""


@pytest.mark.parametrize(
    ("diff", "says"),
    [
        (DIFF.replace("app.py", "../app.py"), r"does not apply"),
        (DIFF.replace("app.py", "/app.py"), r"does not apply"),
        (DIFF.replace("app.py", ".git/config"), r"does not apply"),
        (LINK.format(name=".git/x", goal="y"), r"does not apply"),
        (LINK.format(name=".GIT/x", goal="y"), r"does not apply"),
        (LINK.format(name="x", goal="/etc/passwd"), "out of the repository"),
        (LINK.format(name="a/x", goal="../../etc"), "out of the repository"),
        (LINK.format(name="a/x", goal="../.git/config"), "out of the repository"),
        (LINK.format(name="link/x", goal="y"), "does not apply"),
        (
            LINK.format(name="sub", goal=f"Subproject commit {'1' * 40}")
            .replace("120000", "160000")
            .replace("\\ No newline at end of file\n", ""),
            "submodule",
        ),
    ],
)
async def test_a_patch_that_leaves_the_tree_is_refused(
    tmp_path: Path, diff: str, says: str
) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    committed(folder, {"app.py": "import os\nos.system(command)\n"})
    await refused(folder, "security-patch", {"diff": diff}, says)
    assert [str(name) for name in everything(tmp_path) if not str(name).startswith("r/")] == []


async def test_a_link_inside_the_tree_is_fine(tmp_path: Path) -> None:
    folder = committed(tmp_path / "r", {"a/b": "b"})
    diff = LINK.format(name="c/link", goal="../a/b")
    output = await patched(folder, "security-patch", {"diff": diff})
    assert [(it.file, it.action) for it in output.changes] == [("c/link", "created")]


@pytest.mark.parametrize(
    "file",
    ["../x.json", "/etc/x.json", "a/../../x.json", "./x.json", "a//x.json", ".git/x.json",
     "a/.GIT/x.json", "x\n.json", ""],
)  # fmt: skip
async def test_a_path_that_leaves_the_tree_is_refused(tmp_path: Path, file: str) -> None:
    folder = committed(tmp_path / "r", {"x.json": "{}"})
    (tmp_path / "x.json").write_text("{}")
    change = [{"path": ["a"], "value": 1}]
    await refused(folder, "config-update", change, "file|control", file=file)


async def test_a_symbolic_link_is_not_edited(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    (tmp_path / "x.json").write_text("{}")
    (folder / "x.json").symlink_to(tmp_path / "x.json")
    (folder / "out").symlink_to(tmp_path)
    committed(folder, {"a": "a"})
    change = [{"path": ["a"], "value": 1}]
    await refused(folder, "config-update", change, "symbolic link", file="x.json")
    await refused(folder, "config-update", change, "no file out/x.json", file="out/x.json")
    assert (tmp_path / "x.json").read_text() == "{}"


async def test_a_path_that_depends_on_the_worker_is_refused() -> None:
    with pytest.raises(ValidationError, match="give an absolute path"):
        await patched(Path("some/folder"), "security-patch", {"diff": DIFF})


async def test_a_folder_that_is_no_repository_is_named(tmp_path: Path) -> None:
    change = {"diff": DIFF}
    with pytest.raises(PermanentError, match=r"nowhere is not there"):
        await patched(tmp_path / "nowhere", "security-patch", change)
    (tmp_path / "file").write_text("x")
    with pytest.raises(PermanentError, match=r"file is not a folder"):
        await patched(tmp_path / "file", "security-patch", change)
    (tmp_path / "plain").mkdir()
    with pytest.raises(PermanentError, match=r"plain is not a git repository"):
        await patched(tmp_path / "plain", "security-patch", change)
    folder = committed(tmp_path / "r", {"a/b": "b"})
    with pytest.raises(PermanentError, match=r"give its top folder, .*/r$"):
        await patched(folder / "a", "security-patch", change)


async def test_a_repository_without_that_commit_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    git(folder, "init", "--quiet")
    await refused(folder, "security-patch", {"diff": DIFF}, "has no commit yet")
    committed(folder, {"a": "a"})
    await refused(folder, "security-patch", {"diff": DIFF}, "has no commit 'v9'", revision="v9")
    await refused(
        folder, "security-patch", {"diff": DIFF}, "has no commit '--all'", revision="--all"
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff\xfe{", "x.json is not UTF-8 text"),
        (b"\0\0", "not JSON"),
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON|nested too deep"),
        (b"{}" + b" " * 5_000_000, "x.json: a file of 5,000,002 bytes is too large"),
    ],
)
async def test_a_file_that_is_no_text_of_its_kind_is_told(
    tmp_path: Path, content: bytes, says: str
) -> None:
    folder = committed(tmp_path / "r", {"x.json": content})
    await refused(folder, "config-update", [{"path": ["a"], "value": 1}], says, file="x.json")


async def test_a_bare_repository_and_a_linked_worktree_are_patched(tmp_path: Path) -> None:
    folder = committed(tmp_path / "r", {"app.py": "import os\nos.system(command)\n"})
    git(folder, "worktree", "add", "--quiet", "-b", "other", str(tmp_path / "linked"))
    linked = await patched(tmp_path / "linked", "security-patch", {"diff": DIFF})
    git(tmp_path, "clone", "--quiet", "--bare", str(folder), "bare")
    bare = await patched(tmp_path / "bare", "security-patch", {"diff": DIFF}, task="a")
    assert git(folder, "rev-parse", str(linked.branch)) == linked.commit
    assert git(tmp_path / "bare", "rev-parse", "commandcenter/a") == bare.commit


async def test_git_runs_nothing_that_the_repository_names(tmp_path: Path) -> None:
    folder = committed(
        tmp_path / "r",
        {"app.py": "import os\nos.system(command)\n", ".gitattributes": "* diff=x filter=x\n"},
    )
    sprung = tmp_path / "sprung"
    trap = tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch {sprung}\ncat\n")
    trap.chmod(0o755)
    hooks = folder / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    for hook in ("reference-transaction", "post-commit", "pre-commit", "post-index-change"):
        (hooks / hook).symlink_to(trap)
    for key in ("core.fsmonitor", "diff.external", "diff.x.textconv", "diff.x.command",
                "filter.x.clean", "filter.x.smudge", "gpg.program"):  # fmt: skip
        git(folder, "config", key, str(trap))
    git(folder, "config", "commit.gpgSign", "true")
    git(folder, "branch", "bait")
    assert sprung.exists(), "the trap is no trap"
    sprung.unlink()
    assert (await patched(folder, "security-patch", {"diff": DIFF})).applied
    assert not sprung.exists()


CANNOT_BE_MADE = r"branch commandcenter/run/step/1 cannot be made"


async def test_a_branch_that_cannot_be_made_is_told_and_nothing_is_written(tmp_path: Path) -> None:
    folder = committed(tmp_path / "r", {"app.py": "import os\nos.system(command)\n"})
    git(folder, "branch", "commandcenter")
    await refused(folder, "security-patch", {"diff": DIFF}, CANNOT_BE_MADE)


async def test_where_no_branch_can_be_written_nothing_is(tmp_path: Path) -> None:
    folder = committed(tmp_path / "r", {"app.py": "import os\nos.system(command)\n"})
    heads = folder / ".git" / "refs" / "heads"
    heads.chmod(0o555)
    await unprivileged(lambda: refused(folder, "security-patch", {"diff": DIFF}, CANNOT_BE_MADE))
    heads.chmod(0o755)
    assert (await patched(folder, "security-patch", {"diff": DIFF})).applied


# --- the repository of the product itself ---------------------------------------------------------


async def test_this_repository_can_be_patched(tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--no-hardlinks", str(ROOT), "copy")
    folder = tmp_path / "copy"
    before = checkout(folder)
    version = await patched(
        folder, "dependency-update", [{"package": "PyYAML", "version": "7.0"}],
        manifest="pyproject.toml", task="a",
    )  # fmt: skip
    (change,) = version.changes
    assert [line for line in change.diff.splitlines() if line[:1] in "+-"][2:] == [
        '-    "pyyaml>=6.0.2",', '+    "pyyaml>=7.0",',
    ]  # fmt: skip
    setting = await patched(
        folder, "config-update", [{"path": ["tool", "ruff", "line-length"], "value": 90}],
        file="pyproject.toml", task="b",
    )  # fmt: skip
    assert setting.changes[0].lines_changed == 2
    rename = await patched(
        folder, "simple-refactor",
        [{"kind": "rename", "file": "agents/finding.py", "symbol": "Finding", "to": "Problem"}],
        paths=["agents/**/*.py", "tests/**/*.py"], task="c",
    )  # fmt: skip
    assert {"agents/finding.py", "agents/report.py"} <= {it.file for it in rename.changes}
    assert "from agents.finding import SEVERITIES, Problem" in shown(
        folder, rename, "agents/report.py"
    )
    assert checkout(folder) == before
    for output in (version, setting, rename):
        git(folder, "checkout", "--quiet", str(output.branch))
        git(folder, "apply", "--index", "-", data=output.rollback.encode())
        assert git(folder, "write-tree") == git(folder, "rev-parse", f"{output.base}^{{tree}}")
        git(folder, "reset", "--quiet", "--hard")


def test_the_action_waits_for_approval_and_says_what_it_takes() -> None:
    assert apply.risk == "APPROVAL_REQUIRED"
    kinds = json.dumps(apply.input_schema["discriminator"]["mapping"])
    for kind in ("dependency-update", "security-patch", "simple-refactor", "config-update"):
        assert kind in kinds
