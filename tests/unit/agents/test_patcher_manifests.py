"""New versions in manifests: what changes, and that nothing else does."""

import pytest

from agents import PermanentError
from agents.patcher.dependency_update import update
from agents.patcher.order import DependencyChange


def updated(manifest: str, text: str, package: str, version: str) -> str:
    change = DependencyChange(package=package, version=version)
    return update(manifest, text.encode(), [change]).decode()


REQUIREMENTS = """\
# the web
Django [argon2] == 4.2.1 ; python_version > "3.8"  # pinned: see #12
requests>=2.0
-r other.txt
-e git+https://example.org/x.git#egg=x
flask
celery ~=5.2\r
pin @ https://example.org/pin.whl
"""


@pytest.mark.parametrize(
    ("package", "version", "old", "new"),
    [
        ("django", "4.2.9", "== 4.2.1 ;", "== 4.2.9 ;"),
        ("Requests", "2.32", "requests>=2.0", "requests>=2.32"),
        ("flask", "3.0", "flask\n", "flask==3.0\n"),
        ("celery", ">=5.4,<6", "celery ~=5.2\r", "celery >=5.4,<6\r"),
    ],
)
def test_requirements(package: str, version: str, old: str, new: str) -> None:
    assert updated("requirements.txt", REQUIREMENTS, package, version) == REQUIREMENTS.replace(
        old, new
    )
    assert updated("requirements/dev-requirements.in", REQUIREMENTS, package, version)


PYPROJECT = """\
[build-system]
requires = ["hatchling==1.0"]   # the builder

[project]
name = "x"
dependencies = [
    # pinned on purpose
    'aiohttp[speedups]==3.9.0 ; python_version >= "3.8"',
    "Attrs>=21",  # old
]
[project.optional-dependencies]
dev = ["attrs==20"]
[dependency-groups]
test = [{include-group = "dev"}, "attrs"]
[tool.poetry.dependencies]
python = "^3.11"
httpx = { version = "^0.25", extras = ["http2"] }
"""


def test_pyproject() -> None:
    assert updated("pyproject.toml", PYPROJECT, "aiohttp", "3.14.5") == PYPROJECT.replace(
        "==3.9.0", "==3.14.5"
    )
    assert updated("pyproject.toml", PYPROJECT, "ATTRS", "26") == PYPROJECT.replace(
        "Attrs>=21", "Attrs>=26"
    ).replace("attrs==20", "attrs==26").replace('"attrs"]', '"attrs==26"]')
    assert updated("pyproject.toml", PYPROJECT, "httpx", "0.28") == PYPROJECT.replace(
        "^0.25", "^0.28"
    )
    assert updated("pyproject.toml", PYPROJECT, "hatchling", "1.33") == PYPROJECT.replace(
        "==1.0", "==1.33"
    )


PACKAGE = """{
  "name": "x",
\t"dependencies": { "lodash" : "^4.17.20", "left-pad":"1.0.0" },
  "devDependencies": {
    "lodash": "~4.17.20",
    "local": "file:../local",
    "odd": ">=1 <2"
  }
}"""


def test_package_json() -> None:
    assert updated("web/package.json", PACKAGE, "lodash", "4.17.21") == PACKAGE.replace(
        "4.17.20", "4.17.21"
    )
    assert updated("package.json", PACKAGE, "left-pad", "^1.3.0") == PACKAGE.replace(
        '"1.0.0"', '"^1.3.0"'
    )
    assert updated("package.json", PACKAGE, "odd", ">=2 <3") == PACKAGE.replace(">=1 <2", ">=2 <3")


GO = """module example.org/x

go 1.21

require example.org/one v1.0.0 // indirect
require (
\texample.org/two/v2 v2.1.0
\texample.org/two v0.0.0-20200101000000-abcdefabcdef // a comment
)

replace example.org/three => ../three
exclude example.org/one v0.9.0
"""


def test_go_mod() -> None:
    assert updated("go.mod", GO, "example.org/one", "v1.2.3") == GO.replace(
        "one v1.0.0", "one v1.2.3"
    )
    assert updated("go.mod", GO, "example.org/two", "v1.0.0") == GO.replace(
        "v0.0.0-20200101000000-abcdefabcdef", "v1.0.0"
    )
    crlf = GO.replace("\n", "\r\n")
    assert updated("go.mod", crlf, "example.org/two/v2", "v2.2.0") == crlf.replace(
        "v2.1.0", "v2.2.0"
    )


POM = """<?xml version="1.0" encoding="UTF-8"?>
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <!-- ü: <version>2.0</version> -->
  <parent><groupId>org.example</groupId><artifactId>base</artifactId><version>1</version></parent>
  <properties>
    <log4j.version> 2.14.0 </log4j.version>
  </properties>
  <dependencies>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-core</artifactId>
      <version>${log4j.version}</version>
      <exclusions><exclusion><groupId>org.example</groupId><artifactId>one</artifactId></exclusion>
      </exclusions>
    </dependency>
    <dependency>
      <artifactId>one</artifactId>
      <version>2.0</version>
      <groupId>org.example</groupId>
    </dependency>
    <dependency><groupId>org.example</groupId><artifactId>managed</artifactId></dependency>
    <dependency><groupId>org.example</groupId><artifactId>odd</artifactId><version><!--x-->1</version>
    </dependency>
  </dependencies>
  <build><plugins><plugin><artifactId>maven-jar-plugin</artifactId><version>3.0.0</version></plugin>
  </plugins></build>
</project>
"""


def test_pom() -> None:
    assert updated("pom.xml", POM, "org.apache.logging.log4j:log4j-core", "2.24.1") == POM.replace(
        "2.14.0", "2.24.1"
    )
    assert updated("pom.xml", POM, "org.example:one", "2.1") == POM.replace(
        "<version>2.0</version>\n", "<version>2.1</version>\n"
    )
    assert updated("pom.xml", POM, "org.example:base", "[1,2)") == POM.replace(
        "<version>1</version></parent>", "<version>[1,2)</version></parent>"
    )
    assert updated(
        "pom.xml", POM, "org.apache.maven.plugins:maven-jar-plugin", "3.4"
    ) == POM.replace("3.0.0", "3.4")


@pytest.mark.parametrize(
    "version", ["1.0-SNAPSHOT", "33.0.0-jre", "2.0.1.Final", "1_2+b~c", "[1.0]", "(,1], [1.2,)"]
)
def test_versions_of_maven(version: str) -> None:
    assert f"<version>{version}</version>" in updated("pom.xml", POM, "org.example:one", version)


HASHED = (
    "a==1 \\\n    --hash=sha256:00\nb==1 --hash=sha256:00\nc==1\n"
    "d==1 \\\n  ; python_version > '3' \\\n  --hash=sha256:00\n"
)
LINES = """\
# these are read by a robot \\
a==1  # it breaks with 2 \\
b==1
c==1 \\
  ; python_version > "3"
d \\
  ==1
e>=1, \\
  <2
"""


@pytest.mark.parametrize(
    ("manifest", "text", "package", "version", "says"),
    [
        ("requirements.txt", REQUIREMENTS, "nothing", "1", "nothing: the manifest does not name"),
        ("requirements.txt", REQUIREMENTS, "pin", "1", "comes from https://example.org/pin.whl"),
        ("requirements.txt", "a>=1,<2\n", "a", "2", "give the whole specifier"),
        ("requirements.txt", "a==1\n", "a", "not a version", "no version and no specifier"),
        ("requirements.txt", HASHED, "a", "2", "pinned with hashes"),
        ("requirements.txt", HASHED, "b", "2", "pinned with hashes"),
        ("requirements.txt", HASHED, "d", "2", "pinned with hashes"),
        ("requirements.txt", LINES, "b", "2", "does not name"),
        ("requirements.txt", LINES, "d", "2", "several lines, from 6"),
        ("requirements.txt", LINES, "e", ">=2,<3", "several lines, from 8"),
        ("requirements.txt", "a==1\n", "a", "2\nevil", "control|pattern"),
        ("pyproject.toml", "a = [", "a", "1", "not TOML"),
        ("pyproject.toml", PYPROJECT, "nothing", "1", "does not name"),
        ("package.json", "{", "a", "1", "not JSON"),
        ("package.json", "[]", "a", "1", "does not name"),
        ("package.json", PACKAGE, "local", "1.0.0", "no version range"),
        ("package.json", PACKAGE, "odd", "2.0.0", "give the whole range"),
        ("package.json", PACKAGE, "lodash", '1", "x": "', "no version and no range"),
        ("go.mod", GO, "example.org/three", "v1.0.0", "replace directive"),
        ("go.mod", GO, "example.org/four", "v1.0.0", "does not name"),
        ("go.mod", GO, "example.org/one", "1.0.0", "write it as v1.2.3"),
        *(
            ("pom.xml", POM, "org.example:one", version, "is no version and no range of Maven")
            for version in (
                *("1</l.v><evil/>", "a version", "1&amp;", "${x}", "-1"),
                *("[]", "[1,2", "[2,1)", "[1,2,3]", "[1</x>,2)", "[1,2)x", "[" * 90),
            )
        ),
        ("pom.xml", POM, "log4j-core", "1", "groupId:artifactId"),
        ("pom.xml", POM, "org.example:managed", "1", "gives it no version"),
        ("pom.xml", POM, "org.example:two", "1", "does not name"),
        ("pom.xml", POM, "org.example:odd", "2", "not plain"),
        ("pom.xml", "<project>", "a:b", "1", "not XML"),
        ("pom.xml", "<!DOCTYPE x [<!ENTITY a 'b'>]><x/>", "a:b", "1", "document type"),
        ("Gemfile", "gem 'a'", "a", "1", "kind of manifest is not known"),
    ],
)
def test_what_cannot_be_updated_is_told(
    manifest: str, text: str, package: str, version: str, says: str
) -> None:
    with pytest.raises((PermanentError, ValueError), match=says):
        updated(manifest, text, package, version)


def test_an_unchanged_neighbour_of_a_hash_is_updated() -> None:
    assert updated("requirements.txt", HASHED, "c", "2") == HASHED.replace("c==1", "c==2")


def test_a_line_of_requirements_goes_on_as_pip_reads_it() -> None:
    """Behind a comment a backslash takes the next line into the comment; one alone ends there."""
    assert updated("requirements.txt", LINES, "a", "2") == LINES.replace("a==1", "a==2")
    assert updated("requirements.txt", LINES, "c", "2") == LINES.replace("c==1", "c==2")


def test_bytes_that_are_no_text_are_told() -> None:
    change = DependencyChange(package="a", version="1")
    with pytest.raises(PermanentError, match=r"go\.mod is not UTF-8 text"):
        update("go.mod", b"\xff", [change])
