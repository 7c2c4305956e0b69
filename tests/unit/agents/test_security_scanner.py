"""The security scanner against real folders; its secrets are put together here, not written."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from agents import Context
from agents.security_scanner import ScanOutput, scan

ROOT = Path(__file__).parents[3]
VULNERABLE_APP = ROOT / "examples" / "vulnerable-app"

TOKEN = "ghp_" + "NotARealToken" * 3
TOKEN = TOKEN[:40]
MADE_UP = "made-up-" + "password"


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout


async def scanned(folder: Path, scan_type: str = "all", **more: object) -> ScanOutput:
    return await scan.test({"repositoryPath": str(folder), "scanType": scan_type, **more})


def places(output: ScanOutput) -> list[tuple[str, int, str]]:
    return sorted((it.file, it.line, it.rule) for it in output.findings)


async def test_it_finds_in_the_example_app_exactly_what_its_readme_says() -> None:
    readme = (VULNERABLE_APP / "README.md").read_text()
    row = r"^\| `(\S+)` \| (\d+) \| `(\S+)` \| `(\S+)` \| (\w+) \|"
    planted = re.findall(row, readme, re.MULTILINE)
    assert len(planted) == 14
    output = await scanned(VULNERABLE_APP)
    found = {(it.file, str(it.line), it.type, it.rule, it.severity) for it in output.findings}
    assert found == set(planted)
    assert output.summary.model_dump() == {
        "total": 14,
        **{
            name: sum(row[4] == name for row in planted)
            for name in ("critical", "high", "medium", "low")
        },
    }
    listed = git(VULNERABLE_APP, "ls-files", "--cached", "--others", "--exclude-standard")
    assert output.scanned_files == len(listed.splitlines())
    assert (output.skipped_files, output.omitted_findings, output.warnings) == (0, 0, [])


@pytest.mark.parametrize(
    ("scan_type", "tools"),
    [
        ("secrets", {"detect-secrets"}),
        ("python", {"bandit", "semgrep"}),
        ("sql-injection", {"semgrep"}),
        ("all", {"detect-secrets", "bandit", "semgrep"}),
    ],
)
async def test_the_scan_type_chooses_the_scanners(scan_type: str, tools: set[str]) -> None:
    output = await scanned(VULNERABLE_APP, scan_type)
    # bandit knows one of the passwords too; where both look, it is one finding.
    assert {it.rule.partition(".")[0] for it in output.findings} == tools
    assert any(it.rule == "bandit.B105" for it in output.findings) == (scan_type == "python")


async def test_findings_come_worst_first_and_the_rest_is_counted() -> None:
    every = await scanned(VULNERABLE_APP)
    ranks = [("critical", "high", "medium", "low").index(it.severity) for it in every.findings]
    assert ranks == sorted(ranks)
    some = await scanned(VULNERABLE_APP, max_findings=4)
    assert some.findings == every.findings[:4]
    assert (some.omitted_findings, some.summary) == (10, every.summary)


@pytest.mark.parametrize("scan_type", ["secrets", "python", "sql-injection", "all"])
async def test_no_secret_leaves_the_scan(tmp_path: Path, scan_type: str) -> None:
    other = "zweites" + "geheimnis"
    write(
        tmp_path,
        {
            "one.py": f"password = {MADE_UP!r}\n"
            f"def log_in(user, password={other!r}):\n"
            f"    return requests.get('https://x', auth=(user, {MADE_UP!r}), verify=False)\n"
            f"login = dict(password={MADE_UP!r}, secret={other!r})\n",
            "two.yaml": f"password: '{MADE_UP}'\nurl: https://me:{MADE_UP}@host/\n",
            "three.ini": f"[db]\npassword = {MADE_UP} \n",
            "four.js": f'let a = {{password: "{MADE_UP}", token: "{TOKEN}", secret: "{other}"}}\n',
            "five.json": json.dumps({"password": f"quo\\ted{MADE_UP}"}),
        },
    )
    context = Context()
    output = await scan.test({"repositoryPath": str(tmp_path), "scanType": scan_type}, context)
    assert output.summary.total >= 3 or scan_type == "sql-injection"
    told = output.model_dump_json() + context.blobs.read(output.sarif).decode()
    for secret in (MADE_UP, other, TOKEN):
        assert secret not in told


async def test_code_is_shown_up_to_the_secret(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "a.py": f"if user and password == {MADE_UP!r}: pass\n",
            "b.sh": f"export TOKEN={TOKEN} # {MADE_UP}\n",
            # Its value is not what is written, so the place to cut is not known.
            "c.yaml": "password" + r': "made\x2dup-password"' + "\n",
        },
    )
    shown = {it.file: it.code for it in (await scanned(tmp_path)).findings}
    assert shown == {
        "a.py": "if user and password == '****",
        "b.sh": "export TOKEN=****",
        "c.yaml": "****",
    }
    (only,) = (await scanned(tmp_path, "python")).findings
    assert (only.rule, only.code) == ("bandit.B105", "if user and password == ****")
    assert only.description == "Possible hardcoded password"


async def test_what_git_ignores_and_what_is_not_source_is_not_scanned(tmp_path: Path) -> None:
    secret = f"token = '{TOKEN}'\n"
    write(
        tmp_path,
        {
            ".gitignore": "ignored/\n*.log\n",
            "tracked.py": secret,
            "untracked.txt": secret,
            "deleted.py": secret,
            "ignored/a.py": secret,
            "b.log": secret,
            "node_modules/c.js": secret,
            "deep/.venv/d.py": secret,
            "binary.bin": b"\0" + secret.encode(),
            "latin.txt": "token = '\xe9'".encode("latin-1"),
            "large.txt": secret + " " * 1_000_000,
        },
    )
    (tmp_path / "link.py").symlink_to(tmp_path / "ignored" / "a.py")
    (tmp_path / "outside").symlink_to("/etc")
    git(tmp_path, "init")
    git(tmp_path, "add", "tracked.py", "deleted.py", "-f", "node_modules/c.js")
    (tmp_path / "deleted.py").unlink()
    output = await scanned(tmp_path)
    found = [
        ("tracked.py", 1, "detect-secrets.github-token"),
        ("untracked.txt", 1, "detect-secrets.github-token"),
    ]
    assert places(output) == found
    assert (output.scanned_files, output.skipped_files) == (3, 3)
    # A folder that the repository around it ignores is scanned when it is asked for.
    inside = await scanned(tmp_path / "ignored")
    assert places(inside) == [("a.py", 1, "detect-secrets.github-token")]


async def test_a_folder_without_git_is_walked(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"a/b.py": f"token = '{TOKEN}'\n", ".venv/c.py": f"token = '{TOKEN}'\n", "empty.py": ""},
    )
    output = await scanned(tmp_path)
    assert places(output) == [("a/b.py", 1, "detect-secrets.github-token")]
    assert output.scanned_files == 2


async def test_git_runs_nothing_that_the_repository_names(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "x = 1\n"})
    git(tmp_path, "init")
    trap = tmp_path / "trap.sh"
    sprung = tmp_path / "sprung"
    trap.write_text(f"#!/bin/sh\ntouch {sprung}\n")
    trap.chmod(0o755)
    git(tmp_path, "config", "core.fsmonitor", str(trap))
    git(tmp_path, "status")
    assert sprung.exists(), "the trap is no trap"
    sprung.unlink()
    await scanned(tmp_path)
    assert not sprung.exists()


async def test_checksums_asserts_of_tests_and_clean_folders_are_no_findings(tmp_path: Path) -> None:
    assert (await scanned(tmp_path)).summary.total == 0
    digest = "9f86d081884c7d659a2feaa0c55ad015" * 2
    write(
        tmp_path,
        {"a.lock.toml": f'sha256 = "{digest}"\n', "tests/test_a.py": "assert 1\n"},
    )
    assert (await scanned(tmp_path)).findings == []
    write(tmp_path, {"a.toml": f'colour = "{digest}"\n', "b.py": "assert 1\n"})
    assert places(await scanned(tmp_path)) == [
        ("a.toml", 1, "detect-secrets.hex-high-entropy-string"),
        ("b.py", 1, "bandit.B101"),
    ]


async def test_a_file_that_is_no_python_is_told(tmp_path: Path) -> None:
    write(tmp_path, {"broken.py": "def (\n", "fine.py": "eval('1')\n"})
    output = await scanned(tmp_path)
    assert output.warnings == ["broken.py: syntax error while parsing AST from file"]
    assert places(output) == [("fine.py", 1, "bandit.B307")]


async def test_line_endings_do_not_shift_lines(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "x = 1\r\n\r\neval('1')\r\n", "b.sh": f"\r\n\r\nT={TOKEN}\r\n"})
    output = await scanned(tmp_path)
    assert [(it.file, it.line, it.code) for it in output.findings] == [
        ("b.sh", 3, "T=****"),
        ("a.py", 3, "eval('1')"),
    ]
