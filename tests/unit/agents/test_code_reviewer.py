"""The code reviewer against real folders."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from agents import AgentError, Context, PermanentError
from agents.code_reviewer import ReviewOutput, review

ROOT = Path(__file__).parents[3]

PYTHON = """\
import os
import pickle


def load(path, names=[]):
    result = []
    for name in names:
        result.append(name.upper())
    return pickle.loads(path), result


async def wait():
    open("x").read()
"""
BRANCHES = "".join(f"    if (a === {n}) {{\n      return {n};\n    }}\n" for n in range(12))
JAVASCRIPT = f"function pick(a) {{\n{BRANCHES}  return 0;\n}}\n"
GO = (
    "package a\n\nfunc Wide(a, b, c, d, e, f, g, h, i int) int {\n\tif a > 1 && b > 1 {\n"
    "\t\treturn 1\n\t}\n\treturn 2\n}\n"
)
JAVA = "class A {\n  int f(int a) {\n" + "    a += 1;\n" * 110 + "    return a;\n  }\n}\n"
PLAIN = "def f(a):\n    return a\n"


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def commit(folder: Path) -> str:
    if not (folder / ".git").exists():
        git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "x")
    return git(folder, "rev-parse", "HEAD")


async def reviewed(folder: Path, **more: Any) -> ReviewOutput:
    return await review.test({"repositoryPath": str(folder), **more})


def places(output: ReviewOutput) -> set[tuple[str, int, str, str]]:
    return {(it.file, it.line, it.rule, it.type) for it in output.issues}


async def test_every_language_is_reviewed(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": PYTHON, "b.js": JAVASCRIPT, "c/d.go": GO, "E.java": JAVA, "x.md": "x"})
    output = await reviewed(tmp_path)
    assert places(output) == {
        ("a.py", 1, "F401", "quality"),
        ("a.py", 5, "B006", "quality"),
        ("a.py", 8, "PERF401", "performance"),
        ("a.py", 9, "S301", "security"),
        ("a.py", 13, "ASYNC230", "performance"),
        ("a.py", 13, "SIM115", "quality"),
        ("b.js", 1, "complexity", "quality"),
        ("c/d.go", 3, "parameters", "quality"),
        ("E.java", 2, "length", "quality"),
    }
    assert [it.rule for it in output.issues if it.severity == "high"] == ["S301", "ASYNC230"]
    assert all(it.description and it.suggestion for it in output.issues)
    metrics = output.metrics
    assert metrics.functions == 5
    assert metrics.max_complexity == 13
    assert metrics.avg_complexity == round((2 + 1 + 13 + 3 + 1) / 5, 2)
    assert metrics.total_lines == sum(
        len(text.splitlines()) for text in (PYTHON, JAVASCRIPT, GO, JAVA)
    )
    assert metrics.languages == {"Java": 115, "JavaScript": 39, "Python": 13, "Go": 8}
    assert metrics.issues == {"quality": 6, "security": 1, "performance": 2}
    assert (output.reviewed_files, output.skipped_files, output.base) == (4, 0, None)


@pytest.mark.parametrize("kind", ["quality", "security", "performance"])
async def test_the_review_type_chooses_the_issues(tmp_path: Path, kind: str) -> None:
    write(tmp_path, {"a.py": PYTHON, "b.js": JAVASCRIPT})
    every = await reviewed(tmp_path)
    some = await reviewed(tmp_path, reviewType=kind)
    assert some.issues == tuple(it for it in every.issues if it.type == kind)
    assert some.issues
    assert some.metrics.max_complexity == every.metrics.max_complexity


async def test_with_a_base_only_new_lines_are_judged(tmp_path: Path) -> None:
    write(tmp_path, {"old.py": PYTHON, "same.py": PYTHON, "b.js": JAVASCRIPT})
    base = commit(tmp_path)
    assert (await reviewed(tmp_path, baseRevision="HEAD")).issues == ()
    write(tmp_path, {"old.py": "import sys\n" + PYTHON.replace("upper", "lower")})
    commit(tmp_path)
    # What is not committed, and what git does not know yet, is part of the change as well.
    write(tmp_path, {"new.py": "import re\n", "b.js": JAVASCRIPT.replace("=== 5", "== 5")})
    output = await reviewed(tmp_path, baseRevision=base[:10])
    assert places(output) == {
        ("old.py", 1, "F401", "quality"),
        ("old.py", 9, "PERF401", "performance"),
        ("new.py", 1, "F401", "quality"),
        ("b.js", 1, "complexity", "quality"),
    }
    assert (output.base, output.reviewed_files) == (base, 3)


async def test_other_line_ends_and_removed_lines_are_no_change(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": PYTHON})
    base = commit(tmp_path)
    write(tmp_path, {"a.py": PYTHON.replace("\n", "\r\n").replace("async def wait():\r\n", "")})
    assert (await reviewed(tmp_path, baseRevision=base)).issues == ()


async def test_a_base_needs_a_repository_that_has_it(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": PYTHON})
    with pytest.raises(PermanentError, match="is not a git repository"):
        await reviewed(tmp_path, baseRevision="HEAD")
    git(tmp_path, "init", "--quiet")
    with pytest.raises(PermanentError, match="has no commit yet"):
        await reviewed(tmp_path, baseRevision="HEAD")
    commit(tmp_path)
    with pytest.raises(PermanentError, match="has no commit 'v9'"):
        await reviewed(tmp_path, baseRevision="v9")
    with pytest.raises(ValidationError):
        await reviewed(tmp_path, baseRevision="")


async def test_what_cannot_be_read_is_counted_or_told(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "broken.py": "def (\n",
            "deep.py": "x = 1" + "+1" * 300_000 + "\n",
            "binary.py": b"\0\1",
            "latin.py": b"# \xe4\n",
            "large.js": "x;\n" * 400_000,
            "deep.js": "x = " + "[" * 20_000 + "]" * 20_000,
            "broken.ts": "([:])(",
            "fine.py": PLAIN,
            "mark.py": "\ufeff" + PLAIN,
            "empty.py": "",
            "nul.go": b"package a\n\0",
        },
    )
    (tmp_path / "link.py").symlink_to("/etc/passwd")
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.py")
    output = await reviewed(tmp_path)
    assert output.skipped_files == 4
    assert output.reviewed_files == 7
    told = {it.partition(":")[0] for it in output.warnings}
    assert told == {"broken.py", "broken.ts", "deep.js", "deep.py"}
    # It brings ruff down, but not the review of the others.
    assert any("deep.py: ruff cannot judge it" in it for it in output.warnings)
    assert {(it.file, it.rule) for it in output.issues} == {("broken.py", "syntax")}


async def test_an_empty_folder_and_an_empty_repository_have_no_issues(tmp_path: Path) -> None:
    output = await reviewed(tmp_path)
    git(tmp_path, "init", "--quiet")
    assert (await reviewed(tmp_path)).metrics == output.metrics
    assert (output.issues, output.metrics.avg_complexity, output.reviewed_files) == ((), 0.0, 0)


async def test_no_text_of_the_code_is_told_as_it_may_be_a_secret(tmp_path: Path) -> None:
    token = "ghp_" + "A1b2C3d4" * 4
    code = (
        f"def f(x, d):\n    if '{token}' == x:\n        return {{'{token}': 1, '{token}': 2}}\n"
        f"    u = d['k'] if 'k' in d else '{token}'\n"
        f"    if 'k' in x:\n        v = d['k']\n    else:\n        v = '{token}'\n    return u, v\n"
    )
    output = await reviewed(write(tmp_path, {"a.py": code}))
    assert {"F601", "SIM300", "SIM401", "SIM108"} <= {it.rule for it in output.issues}
    assert token not in output.model_dump_json()
    assert any("`d.get('k', '…')`" in it.description for it in output.issues)


async def test_a_folder_may_be_named_by_a_link(tmp_path: Path) -> None:
    write(tmp_path / "real", {"a.py": PYTHON})
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for folder in (tmp_path / "link", tmp_path / "real" / ".." / "real"):
        assert places(await reviewed(folder)) == places(await reviewed(tmp_path / "real"))


async def test_the_repositorys_own_settings_do_not_silence_a_review(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "pyproject.toml": "[tool.ruff]\nexclude = ['*']\n",
            "a.py": "import os\nimport re  # noqa: F401\n",
            "-odd name.py": "import os\n",
            "tests/test_a.py": "def test_a():\n    assert 1\n",
        },
    )
    assert places(await reviewed(tmp_path)) == {
        ("a.py", 1, "F401", "quality"),
        ("-odd name.py", 1, "F401", "quality"),
    }


async def test_paths_and_the_number_of_issues_can_be_bounded(tmp_path: Path) -> None:
    write(tmp_path, {"a/a.py": PYTHON, "b/b.py": PYTHON})
    only = await reviewed(tmp_path, paths=["a"])
    assert {it.file for it in only.issues} == {"a/a.py"}
    first = await reviewed(tmp_path, paths=["a"], maxIssues=2)
    assert first.issues == only.issues[:2]
    assert first.omitted_issues == len(only.issues) - 2
    assert first.metrics == only.metrics
    with pytest.raises(PermanentError, match=r"leads out of the repository"):
        await reviewed(tmp_path, paths=["../b"])


async def test_the_limit_of_complexity_can_be_set(tmp_path: Path) -> None:
    write(tmp_path, {"b.js": JAVASCRIPT})
    assert (await reviewed(tmp_path, complexityLimit=13)).issues == ()
    (issue,) = (await reviewed(tmp_path, complexityLimit=6)).issues
    assert issue.severity == "high"


async def test_a_review_can_be_called_off(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": PYTHON})
    context = Context()
    context.signals.cancel("no longer wanted")
    with pytest.raises(AgentError, match="called off"):
        await review.test({"repositoryPath": str(tmp_path)}, context)


async def test_this_repository_is_reviewed() -> None:
    output = await reviewed(ROOT)
    planted = {it.rule for it in output.issues if it.file.startswith("examples/vulnerable-app/")}
    assert {"S602", "S608", "S301"} <= planted
    theirs = [it for it in output.issues if not it.file.startswith("examples/vulnerable-app/")]
    assert [it for it in theirs if it.type == "security" and it.severity == "high"] == []
    assert output.metrics.total_lines > 20_000
    assert output.metrics.max_complexity < 40
    assert output.warnings == ()
