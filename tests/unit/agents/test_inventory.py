"""Which packages manifests and lock files name, and which versions advisories concern."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agents.repository.source_tree import SourceTree
from agents.scanning.advisories import SAMPLE, Advisories
from agents.scanning.inventory import packages
from agents.scanning.package import Ecosystem, Package

Row = tuple[str, str, int, bool]

REQUIREMENTS = """\
# what we need
--index-url https://somewhere.example
-r other.txt
Flask==3.0.3 ; python_version > "3.8"  # the web
requests[socks]>=2.31,<3 \\
    --hash=sha256:abc
git+https://somewhere.example/x.git
./local
ruamel.yaml~=0.18.5
attrs
numpy==1.*
"""
PYPROJECT = """\
[project]
name = "shop"
dependencies = ["Jinja2>=2.10", "click==8.1.0"]
[project.optional-dependencies]
fast = ["uvloop==0.20"]
[dependency-groups]
dev = ["pytest>8", {include-group = "x"}]
"""
UV_LOCK = """\
[[package]]
name = "shop"
version = "1.0"
source = { editable = "." }
[[package]]
name = "pyyaml"
version = "5.3.1"
"""
PIPFILE_LOCK = '{"default": {"flask": {"version": "==1.0"}},\n"develop": {"x": {"git": "y"}}}'
LOCK_3 = """\
{"packages": {
  "": {"name": "shop", "version": "1.0.0"},
  "node_modules/a": {"version": "1.0.0", "license": "MIT"},
  "node_modules/a/node_modules/@s/b": {"version": "2.0.0-rc.1"},
  "packages/own": {"version": "0.0.1"},
  "node_modules/own": {"link": true}
}}
"""
LOCK_1 = """\
{"dependencies": {
  "a": {
    "version": "1.0.0",
    "dependencies": {
      "b": {"version": "2.0.0"}
    }
  },
  "c": {"version": "git+ssh://x"}
}}
"""
PACKAGE_JSON = """\
{"dependencies": {
  "a": "1.2.3",
  "b": "^1.2.0",
  "c": "latest",
  "d": "git+https://x.example/y.git"
 },
 "devDependencies": {
  "e": ">=2 <3 || 4.x"
 }}
"""
PNPM = """\
lockfileVersion: '9.0'
packages:
  '@s/a@1.0.0':
    resolution: {integrity: x}
  b@2.0.0(peer@1.0.0):
    resolution: {integrity: x}
  /c/3.0.0:
    resolution: {integrity: x}
"""
YARN = """\
# yarn lockfile v1

a@^1.0.0, a@^1.2.0:
  version "1.2.3"
  dependencies:
    b "2"

"@s/b@npm:2":
  version: 2.0.0
"""
GO_MOD = """\
module shop.example/shop
go 1.24
require (
	a.example/a v1.0.0 // indirect
	b.example/b v2.0.0+incompatible
)
require c.example/c v0.0.0-20220906165146-f3363e06e74c
replace b.example/b => d.example/d v3.0.0
replace c.example/c v0.0.0-20220906165146-f3363e06e74c => ../c
require "e.example/e" v1.0.0
replace e.example/e v0.9.0 => ../e
exclude a.example/a v0.9.0
"""
POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <parent><groupId>g</groupId><version>7</version></parent>
  <properties><a.version>1.${minor}</a.version><minor>2</minor></properties>
  <dependencyManagement><dependencies>
    <dependency><groupId>m</groupId><artifactId>managed</artifactId><version>3</version></dependency>
    <dependency><groupId>m</groupId><artifactId>unused</artifactId><version>4</version></dependency>
  </dependencies></dependencyManagement>
  <dependencies>
    <dependency><groupId>g</groupId><artifactId>a</artifactId><version>${a.version}</version></dependency>
    <dependency><groupId>${project.groupId}</groupId><artifactId>own</artifactId><version>${project.version}</version></dependency>
    <dependency><groupId>m</groupId><artifactId>managed</artifactId></dependency>
    <dependency><groupId>g</groupId><artifactId>r</artifactId><version>[1.0,2.0)</version></dependency>
    <dependency><groupId>g</groupId><artifactId>elsewhere</artifactId><version>${b.version}</version></dependency>
  </dependencies>
</project>
"""


@pytest.mark.parametrize(
    ("file", "text", "rows"),
    [
        (
            "requirements-dev.txt",
            REQUIREMENTS,
            [
                ("flask", "3.0.3", 4, True),
                ("requests", "2.31", 5, False),
                ("ruamel-yaml", "0.18.5", 9, False),
                ("attrs", "", 10, False),
                ("numpy", "1", 11, False),
            ],
        ),
        ("requirements/base.txt", "flask==1\n", [("flask", "1", 1, True)]),
        (
            "pyproject.toml",
            PYPROJECT,
            [
                ("jinja2", "2.10", 3, False),
                ("click", "8.1.0", 3, True),
                ("uvloop", "0.20", 5, True),
                ("pytest", "", 7, False),
            ],
        ),
        ("uv.lock", UV_LOCK, [("pyyaml", "5.3.1", 6, True)]),
        ("Pipfile.lock", PIPFILE_LOCK, [("flask", "1.0", 1, True)]),
        ("package-lock.json", LOCK_3, [("a", "1.0.0", 3, True), ("@s/b", "2.0.0-rc.1", 4, True)]),
        ("npm-shrinkwrap.json", LOCK_1, [("a", "1.0.0", 2, True), ("b", "2.0.0", 5, True)]),
        (
            "package.json",
            PACKAGE_JSON,
            [
                ("a", "1.2.3", 2, True),
                ("b", "1.2.0", 3, False),
                ("c", "", 4, False),
                ("d", "", 5, False),
                ("e", "2.0.0", 8, False),
            ],
        ),
        (
            "pnpm-lock.yaml",
            PNPM,
            [("@s/a", "1.0.0", 3, True), ("b", "2.0.0", 5, True), ("c", "3.0.0", 7, True)],
        ),
        ("yarn.lock", YARN, [("a", "1.2.3", 3, True), ("@s/b", "2.0.0", 8, True)]),
        (
            "go.mod",
            GO_MOD,
            [
                ("a.example/a", "1.0.0", 4, True),
                ("d.example/d", "3.0.0", 5, True),
                ("e.example/e", "1.0.0", 10, True),
            ],
        ),
        (
            "sub/pom.xml",
            POM,
            [
                ("g:a", "1.2", 9, True),
                ("g:own", "7", 10, True),
                ("m:managed", "3", 5, True),
                ("g:r", "1.0", 12, False),
                ("g:elsewhere", "", 13, False),
            ],
        ),
    ],
)
def test_what_a_file_names(tmp_path: Path, file: str, text: str, rows: list[Row]) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    tree = SourceTree(tmp_path)
    found = [(it.name, it.version, it.line, it.pinned) for it in packages(tree)]
    assert (found, tree.warnings) == (rows, [])


def test_a_lock_file_speaks_for_the_manifests_below_it(tmp_path: Path) -> None:
    for name, text in {
        "package.json": PACKAGE_JSON,
        "package-lock.json": LOCK_3,
        "packages/own/package.json": PACKAGE_JSON,
        "pyproject.toml": PYPROJECT,
        "uv.lock": UV_LOCK,
        "requirements.txt": "flask==1.0\nclick>=8\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = {(it.file, it.name) for it in packages(SourceTree(tmp_path))}
    assert found == {
        ("package-lock.json", "a"),
        ("package-lock.json", "@s/b"),
        ("uv.lock", "pyyaml"),
        ("requirements.txt", "flask"),
    }


@pytest.mark.parametrize(
    "text", ["", "null", "[]", '"x"', '{"packages": []}', '{"packages": {"node_modules/a": 1}}']
)
@pytest.mark.parametrize("file", ["package-lock.json", "package.json", "Pipfile.lock", "uv.lock"])
def test_odd_content_is_no_crash(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text)
    assert list(packages(SourceTree(tmp_path))) == []


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("Pipfile.lock", "[" * 20_000),
        ("uv.lock", "a = " + "[" * 20_000 + "]" * 20_000),
        ("pyproject.toml", "a = " + "[" * 20_000 + "]" * 20_000),
        ("pnpm-lock.yaml", "lockfileVersion: 2020-13-45"),
    ],
)
def test_what_a_parser_cannot_bear_is_told_and_the_rest_is_read(
    tmp_path: Path, file: str, text: str
) -> None:
    (tmp_path / file).write_text(text)
    (tmp_path / "requirements.txt").write_text("flask==1.0")
    tree = SourceTree(tmp_path)
    assert [it.name for it in packages(tree)] == ["flask"]
    assert [it.partition(":")[0] for it in tree.warnings] == [file]


CONTINUED = """\
flask==1.0  # the web \\
click==8.0
# only a remark \\
attrs==1.0
requests \\
  # a remark in between \\
jinja2==3.0
- numpy==1.0
pyyaml==5.0 \\"""
TAKEN_IN = "the comment before it ends in a backslash and takes it in"
ODD_GO_MOD = """\
require a.example/a 1.0
)
replace b.example/b => c.example/c
require(
	d.example/d v1.0.0
go 1.24
"""
GARBLED_POM = """\
<project><dependencies>
  <dependency><groupId>g</groupId><artifactId>a</artifactId><version>1</version></dependency>
  <dependency><artifactId>b</artifactId></dependency>
  <dependency><groupId>g</groupId><version>1</version></dependency>
  <dependancy><groupId>g</groupId><artifactId>c</artifactId></dependancy>
</dependencies></project>
"""
ODD_PYPROJECT = """\
[project]
dependencies = "attrs"
[project.optional-dependencies]
web = "flask"
fast = ["uvloop==0.20", 7]
[dependency-groups]
dev = {pytest = "8"}
"""
ODD_UV_LOCK = """\
[[package]]
name = "attrs"
version = "1.0"
[[package]]
name = 7
version = "1.0"
[[package]]
name = "flask"
version = 1.0
"""
ODD_PACKAGE_JSON = """\
{"dependencies": [],
 "devDependencies": {"a": "1.0.0",
  "b": 1},
 "optionalDependencies": null}
"""
ODD_LOCK_3 = """\
{"packages": {
 "node_modules/a": {"version": "1.0.0"},
 "node_modules/b": "2.0.0",
 "node_modules/c": {"version": 3},
 "node_modules/d": {"name": 4, "version": "4.0.0"},
 "node_modules/": {"version": "5.0.0"}
}}
"""
GARBLED_GO_MOD = """\
module shop.example/shop
<<<<<<< ours
require (
	a.example/a v1.0.0
	b.example/b
	!!! v1.0.0
	c.example/c ???
	d.example/d v1.0.0
)
replace d.example/d =>
exclude a.example/a v0.9.0
"""


def test_properties_that_multiply_are_no_version(tmp_path: Path) -> None:
    names = "abcd"
    pairs = pairwise(names)
    properties = "".join(f"<{one}>{f'${{{other}}}' * 20}</{one}>" for one, other in pairs)
    dependency = "<groupId>g</groupId><artifactId>a</artifactId><version>${a}</version>"
    (tmp_path / "pom.xml").write_text(
        f"<project><properties>{properties}<d>1</d></properties>"
        f"<dependencies><dependency>{dependency}</dependency></dependencies></project>"
    )
    (only,) = packages(SourceTree(tmp_path))
    assert (only.name, only.version) == ("g:a", "")


@pytest.mark.parametrize(
    ("file", "text", "names", "warnings"),
    [
        (
            "requirements.txt",
            "flask==1.0\n???\n/srv/x\nC:\\x\nx-1.0+cpu.whl\na = 1\nclick==8 \\\n  garbled\nattrs\n",
            ["flask", "attrs"],
            [f"requirements.txt:{it}: not read: no requirement of Python" for it in (2, 6, 7)],
        ),
        (
            "requirements.txt",
            "???\n" * 13 + "attrs\n",
            ["attrs"],
            [
                *(
                    f"requirements.txt:{it}: not read: no requirement of Python"
                    for it in range(1, 11)
                ),
                "requirements.txt: 3 more lines were not read",
            ],
        ),
        (
            "pyproject.toml",
            '[project]\ndependencies = [\n"???",\n"attrs"]\n',
            ["attrs"],
            ["pyproject.toml:3: not read: no requirement of Python"],
        ),
        (
            "go.mod",
            GARBLED_GO_MOD,
            ["a.example/a", "d.example/d"],
            [
                "go.mod:2: not read: no directive of go.mod",
                *(f"go.mod:{it}: not read: not as require is written" for it in (5, 6, 7)),
                "go.mod:10: not read: not as replace is written",
            ],
        ),
        (
            "requirements.txt",
            CONTINUED,
            ["flask", "attrs", "requests", "jinja2", "pyyaml"],
            [
                f"requirements.txt:2: not read: {TAKEN_IN}",
                "requirements.txt:8: not read: no requirement of Python",
            ],
        ),
        (
            "pyproject.toml",
            ODD_PYPROJECT,
            ["uvloop"],
            [
                "pyproject.toml:2: not read: a list of dependencies is no list: str",
                "pyproject.toml:4: not read: a list of dependencies is no list: str",
                "pyproject.toml:5: not read: a dependency is no text: int",
                "pyproject.toml:7: not read: a list of dependencies is no list: dict",
            ],
        ),
        (
            "pyproject.toml",
            'project = "x"\ndependency-groups = []\n',
            [],
            [
                "pyproject.toml:1: not read: project is no table: str",
                "pyproject.toml:2: not read: dependency-groups is no table: list",
            ],
        ),
        (
            "uv.lock",
            ODD_UV_LOCK,
            ["attrs"],
            [
                "uv.lock:4: not read: a package without a name",
                "uv.lock:8: not read: a version is no text: float",
            ],
        ),
        (
            "poetry.lock",
            'package = ["x"]\npackages = {}\n',
            [],
            [
                "poetry.lock:1: not read: a package is no table: str",
                "poetry.lock:2: not read: packages is no list: dict",
            ],
        ),
        (
            "Pipfile.lock",
            '{"default": [],\n"develop": {"a": "1",\n"b": {"version": 2}}}',
            [],
            [
                "Pipfile.lock:1: not read: default is no table: list",
                "Pipfile.lock:2: not read: a package is no table: str",
                "Pipfile.lock:3: not read: a version is no text: int",
            ],
        ),
        (
            "package.json",
            ODD_PACKAGE_JSON,
            ["a"],
            [
                "package.json:1: not read: dependencies is no table: list",
                "package.json:3: not read: a version is no text: int",
                "package.json:4: not read: optionalDependencies is no table: NoneType",
            ],
        ),
        (
            "package-lock.json",
            ODD_LOCK_3,
            ["a"],
            [
                "package-lock.json:3: not read: a package is no table: str",
                "package-lock.json:4: not read: a version is no text: int",
                "package-lock.json:5: not read: a package without a name",
                "package-lock.json:6: not read: a package without a name",
            ],
        ),
        (
            "npm-shrinkwrap.json",
            '{"dependencies": {"a": {"version": "1.0.0", "dependencies": []},\n"b": 1}}',
            ["a"],
            [
                "npm-shrinkwrap.json:2: not read: a package is no table: int",
                "npm-shrinkwrap.json:2: not read: dependencies is no table: list",
            ],
        ),
        (
            "pnpm-lock.yaml",
            "lockfileVersion: '9.0'\npackages: [a]\n",
            [],
            ["pnpm-lock.yaml:2: not read: packages is no table: list"],
        ),
        (
            "yarn.lock",
            f"<<<<<<< ours\n{YARN}\n__metadata:\n  version: 8\n",
            ["a", "@s/b"],
            ["yarn.lock:1: not read: no entry of yarn.lock"],
        ),
        (
            "pom.xml",
            GARBLED_POM,
            ["g:a"],
            [
                f"pom.xml:{it}: not read: no dependency with a groupId and an artifactId"
                for it in (3, 2, 5)
            ],
        ),
        ("pom.xml", "<html/>", [], ["pom.xml: not read as a manifest: no project of Maven: html"]),
        (
            "go.mod",
            ODD_GO_MOD,
            ["d.example/d"],
            [
                "go.mod:1: not read: not as require is written",
                "go.mod:2: not read: no directive of go.mod",
                "go.mod:3: not read: not as replace is written",
                "go.mod:6: not read: not as require is written",
            ],
        ),
        *(
            (file, "[]", [], [f"{file}: not read as a manifest: no object: list"])
            for file in ("package.json", "package-lock.json", "Pipfile.lock", "pnpm-lock.yaml")
        ),
    ],
)
def test_what_is_garbled_is_told_and_what_is_around_it_is_read(
    tmp_path: Path, file: str, text: str, names: list[str], warnings: list[str]
) -> None:
    (tmp_path / file).write_text(text)
    tree = SourceTree(tmp_path)
    assert ([it.name for it in packages(tree)], tree.warnings) == (names, warnings)


def test_a_package_without_a_name_is_none(tmp_path: Path) -> None:
    nameless = {"version": "1.0.0"}
    lock = {"packages": {"node_modules/": nameless, "node_modules/@s/": nameless}}
    (tmp_path / "package-lock.json").write_text(json.dumps(lock))
    tree = SourceTree(tmp_path)
    assert list(packages(tree)) == []
    assert tree.warnings == ["package-lock.json:1: not read: a package without a name"] * 2


def package(ecosystem: Ecosystem, name: str, version: str) -> Package:
    return Package(ecosystem=ecosystem, name=name, version=version, file="f", line=1)


@pytest.mark.parametrize(
    ("ecosystem", "name", "version", "fixed"),
    [
        ("Maven", "org.apache.logging.log4j:log4j-core", "2.14.1", ["2.15.0", "2.16.0"]),
        ("Maven", "org.apache.logging.log4j:log4j-core", "2.3", ["2.3.1", "2.3.1"]),
        ("Maven", "org.apache.logging.log4j:log4j-core", "2.0-beta9", ["2.3.1", "2.3.1"]),
        ("Maven", "org.apache.logging.log4j:log4j-core", "2.15.0", ["2.16.0"]),
        ("Maven", "org.apache.logging.log4j:log4j-core", "2.12.2", []),
        ("Maven", "org.apache.logging.log4j:log4j-api", "2.14.1", []),
        ("PyPI", "pyyaml", "5.3.1", ["5.4"]),
        ("PyPI", "pyyaml", "5.4", []),
        ("PyPI", "pyyaml", "5.4rc1", ["5.4"]),
        ("PyPI", "pyyaml", "not a version", []),
        ("npm", "minimist", "0.2.3", ["0.2.4"]),
        ("npm", "minimist", "0.2.4", []),
        ("npm", "minimist", "1.2.5", ["1.2.6"]),
        ("npm", "minimist", "1.2.6", []),
        ("Go", "golang.org/x/net", "0.0.0-20220906165146-f3363e06e74c", ["0.7.0"]),
        ("Go", "golang.org/x/net", "0.7.0", []),
        ("Go", "github.com/dgrijalva/jwt-go", "3.2.0", ["4.0.0-preview1"]),
    ],
)
def test_versions_are_compared_as_the_ecosystem_does(
    ecosystem: Ecosystem, name: str, version: str, fixed: list[str]
) -> None:
    one = package(ecosystem, name, version)
    advisories = Advisories(SAMPLE, [one])
    assert sorted(each.fixed_in(one) for each in advisories.about(one)) == fixed
    assert bool(advisories.warnings) == (version == "not a version")


@pytest.mark.parametrize(
    ("affected", "version", "concerned"),
    [
        ({"versions": ["1.0.0"]}, "1.0.0", True),
        ({"versions": ["1.0.0"]}, "1.0.1", False),
        ({"ranges": [{"events": [{"introduced": "1.0.0"}]}]}, "9.0.0", True),
        ({"ranges": [{"events": [{"introduced": "1.0.0"}]}]}, "0.9.0", False),
        (
            {"ranges": [{"events": [{"introduced": "0"}, {"last_affected": "2.0.0"}]}]},
            "2.0.0",
            True,
        ),
        (
            {"ranges": [{"events": [{"introduced": "0"}, {"last_affected": "2.0.0"}]}]},
            "2.0.1",
            False,
        ),
        (  # events in any order
            {"ranges": [{"events": [{"fixed": "2.0.0"}, {"introduced": "1.0.0"}]}]},
            "1.5.0",
            True,
        ),
        ({"ranges": [{"type": "GIT", "events": [{"introduced": "0"}]}]}, "1.0.0", False),
        ({}, "1.0.0", False),
    ],
)
def test_ranges_are_evaluated_as_the_format_says(
    tmp_path: Path, affected: dict[str, Any], version: str, concerned: bool
) -> None:
    entry = {"id": "T", "affected": [{"package": {"ecosystem": "npm", "name": "a"}, **affected}]}
    (tmp_path / "t.json").write_text(json.dumps(entry))
    one = package("npm", "a", version)
    advisories = Advisories(tmp_path, [one])
    assert bool(list(advisories.about(one))) == concerned
    assert advisories.warnings == []


def test_a_withdrawn_advisory_and_a_second_name_of_a_problem_do_not_count(tmp_path: Path) -> None:
    def entry(name: str, **more: object) -> None:
        affected = [{"package": {"ecosystem": "npm", "name": "a"}, "versions": ["1.0.0"]}]
        (tmp_path / f"{name}.json").write_text(
            json.dumps({"id": name, "affected": affected, **more})
        )

    entry("A", aliases=["CVE-1"])
    entry("B", aliases=["CVE-1"])
    entry("C", withdrawn="2024-01-01T00:00:00Z")
    one = package("npm", "a", "1.0.0")
    assert [it.id for it in Advisories(tmp_path, [one]).about(one)] == ["A"]
