"""Security headers in nginx configurations, which crossplane parses.

Rules:
- A `server` that answers with content needs the headers, at its level or, where it adds none of
  its own, above it. One that only redirects needs none.
- A `location` that adds headers of its own loses those above it: nginx inherits all or none.
- A file that is included counts where the repository has one of that name. Where it has none, what
  is in it is not known, and no header is called missing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import PurePosixPath
from typing import Any, Final

import crossplane

from agents.finding import Severity
from agents.repository.source_tree import SourceTree
from agents.scanning.found import Found

_PATTERNS: Final = (
    "*nginx*.conf",
    "*/nginx/*",
    "nginx/*",
    "*conf.d/*.conf",
    "*sites-available/*",
    "*sites-enabled/*",
    "*.nginx",
)
_HALF_A_YEAR_S: Final = 15_552_000
_REMEDIES: Final = {
    "strict-transport-security": "max-age=31536000; includeSubDomains",
    "content-security-policy": "default-src 'self'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "strict-origin-when-cross-origin",
}
_SEVERITIES: Final[dict[str, Severity]] = {
    "strict-transport-security": "medium",
    "content-security-policy": "medium",
    "x-content-type-options": "medium",
    "x-frame-options": "medium",
    "referrer-policy": "low",
}
_NAMES: Final = {
    "strict-transport-security": "Strict-Transport-Security",
    "content-security-policy": "Content-Security-Policy",
    "x-content-type-options": "X-Content-Type-Options",
    "x-frame-options": "X-Frame-Options",
    "referrer-policy": "Referrer-Policy",
}

Block = list[dict[str, Any]]


@dataclass(frozen=True)
class _Headers:
    """The headers at one level, by name in lower case: value and line."""

    of: dict[str, tuple[str, int]]
    is_complete: bool

    def has(self, name: str) -> bool:
        policy = self.of.get("content-security-policy", ("", 0))[0]
        return name in self.of or (name == "x-frame-options" and "frame-ancestors" in policy)


def found(tree: SourceTree) -> Iterator[Found]:
    """What is missing or weak in the tree's nginx files; the unreadable become its warnings."""
    for file in tree.files:
        if not any(fnmatch(file, pattern) for pattern in _PATTERNS):
            continue
        if tree.lines(file) is None:
            continue
        block = _parsed(tree, file)
        if block is not None:
            yield from _servers(tree, file, block, _Headers({}, True))


def _parsed(tree: SourceTree, file: str) -> Block | None:
    parsed = crossplane.parse(
        str(tree.root / file), single=True, check_ctx=False, check_args=False, comments=False
    )
    for error in parsed["errors"]:
        tree.warnings.append(f"{file}: not read as an nginx file: {_reason(error)}")
    if parsed["status"] != "ok" or not parsed["config"]:
        return None
    block: Block = parsed["config"][0]["parsed"]
    return block


def _reason(error: dict[str, Any]) -> str:
    return " ".join(str(error.get("error", "")).rpartition("/")[2].split())


def _servers(tree: SourceTree, file: str, block: Block, above: _Headers) -> Iterator[Found]:
    headers = _headers(tree, file, block, above)
    for directive in block:
        inner = directive.get("block")
        if inner is None:
            continue
        if directive["directive"] == "server":
            if _answers(inner):
                yield from _judged(tree, file, directive, headers)
        else:
            yield from _servers(tree, file, inner, headers)


def _headers(tree: SourceTree, file: str, block: Block, above: _Headers) -> _Headers:
    own: dict[str, tuple[str, int]] = {}
    is_complete = True
    for directive in block:
        if directive["directive"] == "add_header" and len(directive["args"]) >= 2:
            name, value = directive["args"][:2]
            own[name.lower()] = (value, directive["line"])
        elif directive["directive"] == "include" and directive["args"]:
            wanted = PurePosixPath(directive["args"][0]).name
            if wanted in ("mime.types", "fastcgi_params", "proxy_params", "uwsgi_params"):
                continue
            files = [it for it in tree.files if fnmatch(PurePosixPath(it).name, wanted)]
            is_complete = is_complete and bool(files)
            for each in files:
                if each != file:
                    for inner in _parsed(tree, each) or []:
                        if inner["directive"] == "add_header" and len(inner["args"]) >= 2:
                            own[inner["args"][0].lower()] = (inner["args"][1], directive["line"])
    if own:
        return _Headers(own, is_complete)
    return _Headers(above.of, is_complete and above.is_complete)


def _answers(block: Block) -> bool:
    """Whether a server does more than send people elsewhere."""
    names = {directive["directive"] for directive in block}
    if "return" in names:
        code = next(it["args"][:1] for it in block if it["directive"] == "return")
        if code and code[0].startswith("3"):
            return False
    return not names.isdisjoint({"location", "root", "proxy_pass", "return", "try_files"})


def _judged(
    tree: SourceTree, file: str, server: dict[str, Any], above: _Headers
) -> Iterator[Found]:
    block = server["block"]
    headers = _headers(tree, file, block, above)
    is_secure = any(
        it["directive"] == "listen" and ("ssl" in it["args"] or it["args"][:1] == ["443"])
        for it in block
    )
    if headers.is_complete:
        for name in _NAMES:
            if not headers.has(name) and (is_secure or name != "strict-transport-security"):
                remedy = f'add_header {_NAMES[name]} "{_REMEDIES[name]}" always;'
                why = "the server does not send it"
                yield _found(file, server["line"], "missing", name, why, remedy)
    else:
        tree.warnings.append(f"{file}:{server['line']}: includes files that are not here")
    for name, (value, line) in headers.of.items():
        weakness = _weakness(name, value)
        if weakness:
            yield _found(file, line, "weak", name, weakness, f'Set it to "{_REMEDIES[name]}".')
    for directive in block:
        inner = directive.get("block")
        if directive["directive"] == "location" and inner is not None:
            below = _headers(tree, file, inner, headers)
            if below.of is not headers.of:
                lost = [_NAMES[it] for it in _NAMES if headers.has(it) and not below.has(it)]
                if lost:
                    yield _lost(file, directive["line"], lost)


def _weakness(name: str, value: str) -> str:
    plain = value.lower()
    match name:
        case "strict-transport-security":
            age = next((it for it in plain.split(";") if "max-age" in it), "").rpartition("=")[2]
            seconds = int(age.strip()[:18]) if age.strip().isdecimal() else 0
            return "" if seconds >= _HALF_A_YEAR_S else "its max-age is under half a year"
        case "x-content-type-options":
            return "" if plain == "nosniff" else "its only value is nosniff"
        case "x-frame-options":
            return "" if plain in ("deny", "sameorigin") else "browsers know DENY and SAMEORIGIN"
        case "content-security-policy":
            scripts = [
                it for it in plain.split(";") if it.strip().startswith(("script", "default"))
            ]
            if any("unsafe-inline" in it or "unsafe-eval" in it for it in scripts):
                return "it lets any script in the page run (unsafe-inline or unsafe-eval)"
    return ""


def _found(file: str, line: int, kind: str, name: str, why: str, remedy: str) -> Found:
    return Found(
        type="security-headers",
        rule=f"nginx.{name}-{kind}",
        severity=_SEVERITIES[name],
        confidence="medium",
        file=file,
        line=line,
        description=f"{_NAMES[name]}: {why}",
        code="",
        cwe="CWE-693",
        identity=f"{kind}\0{name}",
        remediation=remedy,
        is_strict=name == "referrer-policy",
    )


def _lost(file: str, line: int, names: list[str]) -> Found:
    return Found(
        type="security-headers",
        rule="nginx.headers-lost",
        severity="medium",
        confidence="high",
        file=file,
        line=line,
        description="The location adds headers of its own, so it does not send those of the "
        f"server: {', '.join(names)}",
        code="",
        cwe="CWE-693",
        identity="lost",
        remediation="Repeat the headers in the location, or include one file with them in both.",
    )
