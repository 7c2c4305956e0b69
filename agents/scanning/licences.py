"""Licences of the packages that a repository uses, judged by a policy.

A licence is what a lock file, installed metadata (`.venv`, `node_modules`) or the policy itself
says. Nothing is asked on the network and no text of a licence is guessed at, so that it may be
unknown.
"""

import json
from collections.abc import Iterable, Iterator
from email.parser import HeaderParser
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from license_expression import ExpressionError, LicenseSymbol, LicenseWithExceptionSymbol
from license_expression import get_spdx_licensing as spdx
from packaging.utils import canonicalize_name
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agents.errors import PermanentError
from agents.repository.source_tree import MAX_LOCK_BYTES, read_regular
from agents.scanning.package import PURL_TYPES, Package

POLICY: Final = Path(__file__).with_name("licence_policy.yaml")

Verdict = Literal["allowed", "denied", "unlisted", "unknown"]

_MAX_POLICY_BYTES: Final = 1_000_000
# Classifiers that name one licence; "BSD License" does not say which of them.
_CLASSIFIERS: Final = {
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Apache Software License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "GNU General Public License v2 (GPLv2)": "GPL-2.0-only",
    "GNU General Public License v2 or later (GPLv2+)": "GPL-2.0-or-later",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Affero General Public License v3": "AGPL-3.0-only",
    "GNU Affero General Public License v3 or later (AGPLv3+)": "AGPL-3.0-or-later",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.0-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "Eclipse Public License 2.0 (EPL-2.0)": "EPL-2.0",
    "zlib/libpng License": "Zlib",
}
# What people write for one licence and no expression allows.
_SPELLINGS: Final = {
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache license version 2.0": "Apache-2.0",
    "apache-2": "Apache-2.0",
    "the mit license": "MIT",
    "mit license": "MIT",
    "isc license": "ISC",
    "3-clause bsd": "BSD-3-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "new bsd license": "BSD-3-Clause",
    "2-clause bsd": "BSD-2-Clause",
    "bsd 2-clause": "BSD-2-Clause",
    "mpl 2.0": "MPL-2.0",
    "gplv2": "GPL-2.0-only",
    "gplv3": "GPL-3.0-only",
    "agplv3": "AGPL-3.0-only",
    "lgplv3": "LGPL-3.0-only",
    "psf": "PSF-2.0",
}


class Policy(BaseModel):
    """Which licences may be used, as SPDX identifiers; a trailing `*` stands for the rest.

    What is in both lists is denied. An empty `allow` allows all that is not denied.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    packages: dict[str, str] = Field(
        default={}, description="what somebody found out: pkg:<type>/<name> to an expression"
    )
    ignore: tuple[Annotated[str, Field(pattern="^pkg:")], ...] = Field(
        default=(), description="packages that are not judged: pkg:<type>/<name>"
    )


def policy(path: Path | None) -> Policy:
    """The policy in a YAML file, or the one that comes along. Raises `PermanentError`."""
    file = path or POLICY
    try:
        content = read_regular(file, _MAX_POLICY_BYTES)
        if content is None:
            raise PermanentError(f"policy: {file} is no regular file, or too large")
        return Policy.model_validate(yaml.safe_load(content) or {})
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        if isinstance(error, ValidationError):
            said = "; ".join(
                f"{'.'.join(map(str, it['loc']))}: {it['msg']}" for it in error.errors()
            )
        else:
            said = " ".join(str(error).split())
        raise PermanentError(f"policy: {file} is no licence policy: {said}") from error


class Licences:
    """Says the licence of a package of the repository at `root`, and what the policy says to it."""

    def __init__(self, root: Path, policy: Policy) -> None:
        self._policy = policy
        self._root = root
        self._python = _installed_python(root)
        self._spdx = spdx()

    def of(self, package: Package) -> str:
        """The SPDX expression, empty where it is unknown."""
        stated = (
            self._policy.packages.get(purl_name(package))
            or package.licence
            or self._installed(package)
        )
        return self.expression(stated)

    def expression(self, stated: str) -> str:
        """What is stated, as an SPDX expression; empty where it is none."""
        plain = _SPELLINGS.get(stated.strip().lower(), stated.strip())
        if not plain or len(plain) > 500:
            return ""
        try:
            parsed = self._spdx.parse(plain, validate=True)
        except ExpressionError:
            return ""
        return "" if parsed is None else str(parsed)

    def judge(self, package: Package, expression: str) -> Verdict:
        """The policy's verdict: of alternatives the best counts, of a conjunction the worst."""
        if purl_name(package) in self._policy.ignore:
            return "allowed"
        if not expression:
            return "unknown"
        return self._judged(self._spdx.parse(expression))

    def _judged(self, node: Any) -> Verdict:
        order: tuple[Verdict, ...] = ("allowed", "unlisted", "denied")
        if isinstance(node, LicenseWithExceptionSymbol):
            exact = self._listed(str(node))
            return exact if exact != "unlisted" else self._judged(node.license_symbol)
        if isinstance(node, LicenseSymbol):
            return self._listed(node.key)
        verdicts = [self._judged(each) for each in node.args]
        choose = min if isinstance(node, self._spdx.OR) else max
        return choose(verdicts, key=order.index)

    def _listed(self, key: str) -> Verdict:
        if any(_matches(key, each) for each in self._policy.deny):
            return "denied"
        if not self._policy.allow or any(_matches(key, each) for each in self._policy.allow):
            return "allowed"
        return "unlisted"

    def _installed(self, package: Package) -> str:
        if package.ecosystem == "PyPI":
            return self._python.get(package.name, "")
        if package.ecosystem == "npm" and ".." not in package.name:
            return _npm_licence(self._root, package)
        return ""


def purl_name(package: Package) -> str:
    """A package as a policy names it: without its version."""
    name = package.name.replace(":", "/") if package.ecosystem == "Maven" else package.name
    return f"pkg:{PURL_TYPES[package.ecosystem]}/{name}"


def _matches(key: str, pattern: str) -> bool:
    key, pattern = key.lower(), pattern.lower()
    return key.startswith(pattern[:-1]) if pattern.endswith("*") else key == pattern


def _installed_python(root: Path) -> dict[str, str]:
    """Licences by name of what is installed in the repository's own environment."""
    found: dict[str, str] = {}
    for environment in (".venv", "venv"):
        folder = root / environment
        if folder.is_symlink():
            continue
        for file in sorted(folder.glob("lib/python3*/site-packages/*.dist-info/METADATA")):
            content = _read(file)
            if content is not None:
                said = HeaderParser().parsestr(content)
                name = said.get("Name")
                if name:
                    found.setdefault(canonicalize_name(str(name)), _python_licence(said))
    return found


def _python_licence(said: Any) -> str:
    expression = said.get("License-Expression")
    if expression:
        return str(expression)
    names = {
        _CLASSIFIERS.get(each.rpartition(" :: ")[2], "")
        for each in said.get_all("Classifier", ())
        if each.startswith("License :: ")
    } - {""}
    if names:
        return " OR ".join(sorted(names)) if len(names) > 1 else names.pop()
    return str(said.get("License") or "")


def _npm_licence(root: Path, package: Package) -> str:
    folder = package.file.rpartition("/")[0]
    content = _read(root / folder / "node_modules" / package.name / "package.json")
    try:
        said = json.loads(content or "{}")
    except ValueError:
        return ""
    licence = said.get("license") if isinstance(said, dict) else None
    if isinstance(licence, dict):
        licence = licence.get("type")
    return licence if isinstance(licence, str) else ""


def _read(file: Path) -> str | None:
    try:
        content = read_regular(file, MAX_LOCK_BYTES)
    except (OSError, ValueError):
        return None
    return None if content is None else content.decode(errors="replace")


def distinct(packages: Iterable[Package]) -> Iterator[Package]:
    """Each version of each package once, where it is named first; a range is not its oldest one."""
    seen: set[tuple[object, ...]] = set()
    for package in packages:
        each = (package.key, package.version, package.pinned)
        if each not in seen:
            seen.add(each)
            yield package
