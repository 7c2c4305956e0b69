"""What becomes of findings: fingerprints, baselines, floors, SARIF; what is planted is found."""

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import threading
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic_sarif.model import StaticAnalysisResultsFormatSarifVersion210JsonSchema

from agents import AgentError, Context, PermanentError
from agents.outbound import SETTING, Outbound
from agents.repository.checkout import addresses, clone
from agents.security_scanner import ScanOutput, scan

ROOT = Path(__file__).parents[3]
PLANTED = ROOT / "tests" / "fixtures" / "planted"
VULNERABLE_APP = ROOT / "examples" / "vulnerable-app"
ASKS = "def ask(db, name):\n    return db.execute(f\"SELECT * FROM a WHERE b = '{name}'\")\n"


async def scanned(folder: Path, scan_type: str = "all", **more: object) -> ScanOutput:
    return await scan.test({"repositoryPath": str(folder), "scanType": scan_type, **more})


def write(file: Path, text: str) -> None:
    file.write_text(text)


def marks(output: ScanOutput) -> set[str]:
    return {it.fingerprint for it in output.findings}


@pytest.mark.parametrize("language", ["python", "javascript", "java", "go"])
async def test_what_is_planted_is_found(language: str) -> None:
    rows = yaml.safe_load((PLANTED / language / "expected.yaml").read_text())
    output = await scanned(PLANTED / language)
    found = {(it.file, it.line, it.type) for it in output.findings}
    missed = [row for row in rows if (row["file"], row["line"], row["type"]) not in found]
    assert missed == [row for row in rows if row.get("missed")]
    # What looks like a problem and is none: bandit and detect-secrets are taken in by some.
    expected = {(row["file"], row["line"], row["type"]) for row in rows}
    wrong = [it for it in output.findings if (it.file, it.line, it.type) not in expected]
    assert {it.rule.partition(".")[0] for it in wrong} <= {"bandit", "detect-secrets"}
    assert all(it.cwe.startswith("CWE-") and it.rule and it.code for it in output.findings)


async def test_one_kind_of_scan_finds_one_kind_of_problem() -> None:
    output = await scanned(PLANTED / "javascript", "xss")
    assert {it.type for it in output.findings} == {"xss"}
    assert output.summary.total == 4
    assert {it.file for it in output.findings} == {"server/app.js", "web/page.tsx"}


async def test_a_fingerprint_holds_when_lines_move(tmp_path: Path) -> None:
    secret = "password = 'made-" + "up-secret'\n"
    write(tmp_path / "a.py", ASKS + secret + "eval('1')\neval('1')\n")
    before = await scanned(tmp_path)
    assert len(marks(before)) == len(before.findings) == 4  # also of the two that are alike
    moved = "x = 1\n\n\n" + ASKS + "\n" + secret + "\neval('1')\n\n    \neval('1')\n"
    write(tmp_path / "a.py", moved)
    after = await scanned(tmp_path)
    assert marks(after) == marks(before)
    assert [it.line for it in after.findings] != [it.line for it in before.findings]


async def test_a_fingerprint_tells_another_secret_file_and_statement(tmp_path: Path) -> None:
    async def mark(name: str, text: str) -> str:
        folder = tmp_path / sha256((name + text).encode()).hexdigest()
        folder.mkdir()
        write(folder / name, text)
        (only,) = (await scanned(folder)).findings
        return only.fingerprint

    secret = "password = 'made-" + "up-secret'\n"
    different = {
        await mark("a.txt", secret),
        await mark("b.txt", secret),
        await mark("a.txt", secret.replace("up", "by-somebody")),
        await mark("a.py", ASKS),
        await mark("a.py", ASKS.replace("b =", "c =")),
    }
    assert len(different) == 5


async def test_a_fingerprint_does_not_give_a_secret_away(tmp_path: Path) -> None:
    found = set()
    for number in range(60):
        secret = f"made-up-{number * 7919}-secret"
        (tmp_path / "a.txt").write_text(f"password = '{secret}'\n")
        # In one process as the agent's does it, without starting sixty.
        from agents.scanning.found import secret_identity

        found.add(secret_identity("password = '****", secret))
    # At most 4,096 values: each stands for any number of secrets.
    assert all(int(it.rpartition("\0")[2]) < 4096 for it in found)
    assert len(found) > 50


@pytest.mark.parametrize("kind", ["list", "output", "sarif", "fingerprints"])
async def test_a_baseline_hides_what_is_known(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.py").write_text(ASKS)
    context = Context()
    inputs = {"repositoryPath": str(tmp_path), "scanType": "all"}
    known = await scan.test(inputs, context)
    written: dict[str, Any] = {
        "output": known.model_dump(by_alias=True),
        "sarif": json.loads(context.blobs.read(known.sarif)),
        "fingerprints": {"fingerprints": sorted(marks(known))},
    }
    baseline: object = sorted(marks(known))
    if kind in written:
        (tmp_path / "known.json").write_text(json.dumps(written[kind]))
        baseline = "known.json"
    (tmp_path / "b.py").write_text("eval('1')\n")
    output = await scanned(tmp_path, "python", baseline=baseline)
    assert [(it.file, it.rule) for it in output.findings] == [("b.py", "bandit.B307")]
    assert (output.suppressed_findings, output.summary.total) == (1, 1)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("none.json", None, "cannot be read"),
        ("bad.json", "{", "is no JSON"),
        ("folder", "", "Is a directory"),
    ],
)
async def test_a_baseline_that_is_none_is_told(
    tmp_path: Path, name: str, content: str | None, says: str
) -> None:
    if content:
        (tmp_path / name).write_text(content)
    elif content is not None:
        (tmp_path / name).mkdir()
    with pytest.raises(PermanentError, match=rf"baseline: .*{name}.*{says}"):
        await scanned(tmp_path, "secrets", baseline=name)


async def test_the_floor_is_counted_not_listed() -> None:
    every = await scanned(VULNERABLE_APP)
    some = await scanned(VULNERABLE_APP, severityFloor="high")
    assert {it.severity for it in some.findings} == {"critical", "high"}
    assert some.findings == [it for it in every.findings if it.severity in ("critical", "high")]
    assert some.summary.total + some.below_floor == every.summary.total


async def test_paths_choose_files(tmp_path: Path) -> None:
    for name in ("src/a.py", "src/deep/b.py", "lib/c.py", "d.py", "srcx/e.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("eval('1')\n")

    async def files(*paths: str) -> list[str]:
        output = await scanned(tmp_path, "python", paths=list(paths))
        return sorted(it.file for it in output.findings)

    assert await files("src") == ["src/a.py", "src/deep/b.py"]
    assert await files("d.py", "lib/*.py") == ["d.py", "lib/c.py"]
    output = await scanned(tmp_path, "python", paths=["d.py", "gone.py"])
    assert output.warnings == ["paths: nothing to scan is at 'gone.py'"]
    for paths, says in [
        (["gone.py"], "name no file"),
        (["../x"], "leads out"),
        (["/etc"], "leads"),
    ]:
        with pytest.raises(PermanentError, match=says):
            await scanned(tmp_path, "python", paths=paths)


async def test_sarif_is_valid_and_holds_every_finding(tmp_path: Path) -> None:
    (tmp_path / "a b#.py").write_text(ASKS + "eval('1')\n")
    context = Context()
    for folder in (tmp_path, PLANTED):
        inputs = {"repositoryPath": str(folder), "maxFindings": 1}
        output = await scan.test(inputs, context)
        content = context.blobs.read(output.sarif)
        log = StaticAnalysisResultsFormatSarifVersion210JsonSchema.model_validate_json(content)
        (run,) = log.runs
        assert run.results is not None
        assert len(run.results) == output.summary.total > 1 == len(output.findings)
        assert output.sarif.media_type == "application/sarif+json"
        first = json.loads(content)["runs"][0]["results"][0]
        assert first["ruleId"] == output.findings[0].rule
        assert first["partialFingerprints"] == {"commandcenter/v1": output.findings[0].fingerprint}
    place = json.loads(context.blobs.read(output.sarif))  # of the last: paths are URIs
    assert "artifactLocation" in json.dumps(place)


# --- repositories by URL --------------------------------------------------------------------------


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    folder = tmp_path / "remote"
    folder.mkdir()
    git(folder, "init", "--initial-branch=main")
    (folder / "a.py").write_text("eval('1')\n")
    (folder / "passwd").symlink_to("/etc/passwd")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "first")
    git(folder, "switch", "-c", "other")
    (folder / "b.py").write_text("eval('1')\n")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "second")
    git(folder, "switch", "main")
    return folder


async def test_a_url_is_cloned(remote: Path) -> None:
    context = Context()
    output = await scan.test({"repositoryUrl": remote.as_uri(), "scanType": "python"}, context)
    assert [it.file for it in output.findings] == ["a.py"]
    clone = context.workspace / "repository"
    assert (clone / "passwd").read_text() == "/etc/passwd", "a link that was followed"
    other = {"repositoryUrl": remote.as_uri(), "revision": "other", "scanType": "python"}
    assert [it.file for it in (await scan.test(other)).findings] == ["a.py", "b.py"]


async def test_a_url_that_cannot_be_cloned_is_told(remote: Path, tmp_path: Path) -> None:
    nowhere = (tmp_path / "nowhere").as_uri()
    with pytest.raises(PermanentError, match=r"nowhere cannot be cloned: .*not appear to be a git"):
        await scan.test({"repositoryUrl": nowhere})
    with pytest.raises(PermanentError, match="Remote branch gone not found"):
        await scan.test({"repositoryUrl": remote.as_uri(), "revision": "gone"})
    with pytest.raises(PermanentError, match="no name of a branch"):
        await scan.test({"repositoryUrl": remote.as_uri(), "revision": "--upload-pack=touch x"})


def test_a_host_that_does_not_answer_is_given_up_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SETTING, "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/x.git"
        with pytest.raises(AgentError, match=r"cloning took over 0\.3 s") as raised:
            clone(url, "", tmp_path / "clone", time_limit=0.3)
    assert not isinstance(raised.value, PermanentError)
    with pytest.raises(AgentError, match=f"{url} cannot be cloned") as raised:  # nobody listens now
        clone(url, "", tmp_path / "again")
    assert not isinstance(raised.value, PermanentError)


LOOKED_UP = {
    "inner.example": ["10.1.2.3"],
    "both.example": ["192.168.0.1", "93.184.216.34"],
    "cloud.example": ["169.254.169.254"],
}


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def looked_up(host: str, port: int, **more: Any) -> list[Any]:
        return [it for each in LOOKED_UP.get(host, [host]) for it in real(each, port, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    monkeypatch.delenv("https_proxy", raising=False)


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize(
    "host",
    ["inner.example", "cloud.example", "127.0.0.1", "localhost", "2130706433", "[::1]",
     "[::ffff:10.0.0.1]", "0"],
)  # fmt: skip
def test_no_private_host_is_cloned_from(host: str, tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="not a public address"):
        clone(f"https://{host}/x.git", "", tmp_path / "clone")


@pytest.mark.usefixtures("names")
def test_private_addresses_of_a_public_name_are_left_out(tmp_path: Path) -> None:
    assert addresses("https://both.example/x.git", Outbound()) == ["93.184.216.34"]
    both = Outbound("192.168.0.0/16")
    assert addresses("https://both.example/x.git", both) == ["192.168.0.1", "93.184.216.34"]
    assert addresses("file:///srv/x.git", Outbound()) == []


def test_git_connects_to_the_address_that_was_judged(tmp_path: Path) -> None:
    """Nobody knows the name: git looks up nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"https://pinned.invalid:{server.getsockname()[1]}/x.git"
        heard: list[bytes] = []

        def hear() -> None:
            connection, _ = server.accept()
            with connection:
                heard.append(connection.recv(4096))

        thread = threading.Thread(target=hear, daemon=True)
        thread.start()
        with pytest.raises(AgentError, match=r"pinned\.invalid:.* cannot be cloned"):
            clone(url, "", tmp_path / "clone", at=["127.0.0.1"])
        thread.join(10)
    assert b"pinned.invalid" in heard[0]  # the name that the certificate has to be for


def test_a_name_that_nobody_knows_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    monkeypatch.delenv("https_proxy", raising=False)
    with pytest.raises(AgentError, match="could not resolve host") as raised:
        clone("https://gone.example/x.git", "", tmp_path / "clone")
    assert not isinstance(raised.value, PermanentError)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    assert addresses("https://gone.example/x.git") == []  # the proxy may know it


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"repositoryUrl": "https://a.example\\b/c"}, "a name in ASCII"),
        ({"repositoryUrl": "https://a.example./b"}, "a name in ASCII"),
        ({"repositoryUrl": "https://a%2eexample/b"}, "a name in ASCII"),
        ({"repositoryUrl": "https://bücher.example/b"}, "a name in ASCII"),
        ({}, "give repositoryPath or repositoryUrl"),
        ({"repositoryPath": "/x", "repositoryUrl": "https://a.example/b"}, "one of them"),
        ({"repositoryUrl": "ssh://a.example/b"}, "https:// or file://"),
        ({"repositoryUrl": "http://a.example/b"}, "https:// or file://"),
        ({"repositoryUrl": "ext::sh -c touch% /tmp/x"}, "https:// or file://"),
        ({"repositoryUrl": "https://me:secret@a.example/b"}, "user name or password"),
        ({"repositoryUrl": "https:///b"}, "names no host"),
        ({"repositoryPath": "/x", "revision": "main"}, "revision goes with repositoryUrl"),
        ({"repositoryPath": "/x", "severityFloor": "worst"}, "severityFloor"),
        ({"repositoryPath": "/x", "scanType": "luck"}, "scanType"),
        ({"repositoryPath": "/x", "unknown": 1}, "unknown"),
    ],
)
async def test_inputs_that_are_none_are_refused(inputs: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        await scan.test(inputs)


# --- what is odd in repositories ------------------------------------------------------------------


async def test_odd_files_are_skipped_and_counted(tmp_path: Path) -> None:
    (tmp_path / "fine.py").write_text("eval('1')\n")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "out.py").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "binary.py").write_bytes(b"\0\1\2eval('1')\n")
    (tmp_path / "latin.js").write_bytes("eval(é)\n".encode("latin-1"))
    (tmp_path / "huge.js").write_text("eval(x)\n" * 200_000)
    (tmp_path / "yarn.lock").write_bytes(b"\xff\xfe\0")
    (tmp_path / "go.mod").write_text("module (((\n")
    (tmp_path / "pom.xml").write_text(
        "<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>"
    )
    (tmp_path / "poetry.lock").write_text("[[package")
    (tmp_path / "package-lock.json").write_text("[" * 100_000)
    (tmp_path / "-rf.py").write_text("eval('1')\n")
    (tmp_path / "new\nline.py").write_text("eval('1')\n")
    os.mkdir(tmp_path / "folder.py")  # noqa: PTH102 -- as its neighbours
    output = await scanned(tmp_path)
    evals = [it.file for it in output.findings if it.rule == "bandit.B307"]
    assert sorted(evals) == ["-rf.py", "fine.py", "new\nline.py"]
    assert output.skipped_files == 4
    told = " ".join(output.warnings)
    for file in ("yarn.lock", "pom.xml", "poetry.lock", "package-lock.json"):
        assert f"{file}: not read as a manifest" in told
    assert "root:" not in output.model_dump_json()


BOMB = "a: &a [x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghijk", "bcdefghijkl", strict=True)
)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("bomb.yml", BOMB, "its aliases make it too large"),
        ("pnpm-lock.yaml", BOMB, "its aliases make it too large"),
        ("circle.yaml", "a: &a [*a]\n", "its aliases make it too large"),
        ("date.yaml", "released: 2024-02-30\n", "ValueError"),
        ("deep.yaml", "a: " + "[" * 900 + "]" * 900 + "\n", "RecursionError"),
    ],
)
async def test_odd_yaml_is_looked_at_line_by_line(
    tmp_path: Path, name: str, text: str, reason: str
) -> None:
    text += 'password: "made-' + 'up-secret"\n'
    write(tmp_path / name, text)
    output = await scanned(tmp_path, "secrets")
    assert [(it.file, it.line) for it in output.findings] == [(name, text.count("\n"))]
    assert output.warnings == [f"{name}: secrets are looked for by line alone: {reason}"]
    output = await scanned(tmp_path, "dependencies")
    is_manifest = name == "pnpm-lock.yaml"
    assert output.warnings == [f"{name}: not read as a manifest: {reason}"] * is_manifest


async def test_yaml_with_honest_aliases_is_read_as_yaml(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "a: &a {password: made-" + "up-secret}\nb: *a\n")
    output = await scanned(tmp_path, "secrets")
    assert ([it.line for it in output.findings], output.warnings) == ([1], [])


async def test_a_folder_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.py").write_text("eval('1')\n")
    inside = tmp_path / "inside"
    (inside / "lib").mkdir(parents=True)
    (inside / "lib" / "a.py").write_text("x = 1\n")
    git(inside, "init")
    git(inside, "add", ".")
    (inside / "lib" / "a.py").unlink()
    (inside / "lib").rmdir()
    (inside / "lib").symlink_to(outside)
    output = await scanned(inside)
    assert (output.findings, output.scanned_files) == ([], 0)


async def test_an_empty_repository_has_nothing(tmp_path: Path) -> None:
    git(tmp_path, "init")
    output = await scanned(tmp_path)
    assert (output.summary.total, output.scanned_files, output.warnings) == (0, 0, [])


@pytest.mark.parametrize("path", ["\0", "/" + "x" * 5000, "", "relative/nowhere"])
async def test_a_path_that_is_none_is_told(path: str) -> None:
    with pytest.raises((PermanentError, ValueError)):
        await scan.test({"repositoryPath": path})


async def test_without_semgrep_python_is_looked_at_and_the_rest_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find, which = importlib.util.find_spec, shutil.which
    monkeypatch.setattr(
        "agents.scanning.patterns.importlib.util.find_spec",
        lambda name, *more: None if name == "semgrep" else find(name, *more),
    )
    monkeypatch.setattr(
        "agents.scanning.patterns.shutil.which",
        lambda name, *more: None if "semgrep" in name else which(name, *more),
    )
    code = tmp_path / "code"
    code.mkdir()
    (code / "a.py").write_text("eval('1')\n")
    output = await scanned(code)
    assert [it.rule for it in output.findings] == ["bandit.B307"]
    (warning,) = output.warnings
    assert "semgrep is not installed" in warning
    assert "pip install --no-deps semgrep" in warning
    # A scan that could have found nothing does not look like one that found nothing.
    with pytest.raises(PermanentError, match="semgrep is not installed"):
        await scanned(code, "xss")


# --- advisories -----------------------------------------------------------------------------------


def advisory(name: str = "left-pad", fixed: str = "2.0.0") -> dict[str, Any]:
    return {
        "id": "TEST-1",
        "aliases": ["CVE-1"],
        "summary": "pads | too much",
        "severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H"}],
        "affected": [
            {
                "package": {"ecosystem": "npm", "name": name},
                "ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}, {"fixed": fixed}]}],
            }
        ],
    }


@pytest.mark.parametrize("kind", ["folder", "zip", "setting"])
async def test_a_database_is_a_folder_or_a_zip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    code, database = tmp_path / "code", tmp_path / "database"
    code.mkdir()
    (code / "package.json").write_text('{"dependencies": {"left-pad": "1.0.0"}}')
    database.mkdir()
    (database / "a.json").write_text(json.dumps(advisory()))
    (database / "broken.json").write_text("{")
    more: dict[str, object] = {"advisories": str(database)}
    if kind == "zip":
        with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
            for file in database.iterdir():
                archive.write(file, file.name)
        more = {"advisories": str(tmp_path / "all.zip")}
    if kind == "setting":
        monkeypatch.setenv("COMMANDCENTER_ADVISORIES", str(database))
        more = {}
    output = await scanned(code, "dependencies", **more)
    (only,) = output.findings
    assert (only.type, only.severity, only.confidence) == ("dependency", "critical", "high")
    assert (only.rule, only.cwe) == ("osv.TEST-1", "CWE-1395")
    assert only.description == ("left-pad 1.0.0: pads | too much (TEST-1, CVE-1); fixed in 2.0.0")
    assert len(output.warnings) == 1
    assert "broken.json: not in OSV's format" in output.warnings[0]


async def test_a_database_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"dependencies": {"left-pad": "1.0.0"}}')
    with pytest.raises(PermanentError, match="neither a folder nor a zip"):
        await scanned(tmp_path, "dependencies", advisories=str(tmp_path / "package.json"))


async def test_a_range_is_judged_by_its_oldest_version_with_low_confidence(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"dependencies": {"lodash": "^4.17.15"}}')
    output = await scanned(tmp_path, "dependencies")
    assert {it.confidence for it in output.findings} == {"low"}
    assert "lodash 4.17.15 or newer" in output.findings[0].description
    assert any("sample of" in it for it in output.warnings)
    # The lock file knows better.
    (tmp_path / "package-lock.json").write_text(
        '{"packages": {"node_modules/lodash": {"version": "4.17.21"}}}'
    )
    assert (await scanned(tmp_path, "dependencies")).findings == []


async def test_this_repository_can_be_scanned() -> None:
    # What we ship; the demo, which has its own test, scans the rest as well.
    output = await scanned(ROOT, paths=["agents", "gateway", "infra", "sinks", "streams"])
    assert output.scanned_files > 300
    ours = [
        it
        for it in output.findings
        if (it.severity, it.confidence) in {("critical", "high"), ("high", "high")}
    ]
    assert ours == []


async def test_a_scan_says_how_far_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    context = Context()
    await scan.test({"repositoryPath": str(tmp_path)}, context)
    assert context.signals.progress == (95.0, "writing it down")
