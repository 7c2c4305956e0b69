"""One security scan of a folder: which scanners run, and what becomes of what they find."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from agents.errors import PermanentError
from agents.finding import SEVERITIES, Confidence
from agents.repository.source_tree import SourceTree
from agents.scanning import baseline, dependencies, patterns, python_code, sarif
from agents.scanning.alone import alone
from agents.scanning.found import Found, fingerprinted, told
from agents.scanning.python_code import PASSWORD_RULES
from agents.scanning.secrets import Secrets

MAX_WARNINGS: Final = 50

_CONFIDENCES: Final[tuple[Confidence, ...]] = ("high", "medium", "low")

Progress = Callable[[float, str], None]


def scan(question: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """What `agents/security_scanner.py` makes its output of. Raises `AgentError`."""
    tree = SourceTree(Path(question["path"]), question["paths"])
    known = _known(tree.root, question["baseline"])
    with alone(tree.root):
        found = list(_found(tree, question, progress))
    floor = SEVERITIES.index(question["severityFloor"])
    every = fingerprinted(found)
    new = [pair for pair in every if pair[1] not in known]
    kept = [pair for pair in new if SEVERITIES.index(pair[0].severity) <= floor]
    counts = Counter(each.severity for each, _ in kept)
    progress(95, "writing it down")
    return {
        "findings": [told(each, mark) for each, mark in kept[: question["maxFindings"]]],
        "omittedFindings": max(0, len(kept) - question["maxFindings"]),
        "suppressedFindings": len(every) - len(new),
        "belowFloor": len(new) - len(kept),
        "summary": {"total": len(kept), **{each: counts[each] for each in SEVERITIES}},
        "scannedFiles": len(tree.read),
        "skippedFiles": len(tree.skipped),
        "warnings": shortened(tree.warnings),
        "sarif": sarif.document(kept, "security-scanner", question["version"]).decode(),
    }


def shortened(warnings: list[str]) -> list[str]:
    """At most `MAX_WARNINGS`, and how many more there are."""
    distinct = list(dict.fromkeys(warnings))
    if len(distinct) <= MAX_WARNINGS:
        return distinct
    return [*distinct[:MAX_WARNINGS], f"and {len(distinct) - MAX_WARNINGS} more"]


def _known(root: Path, given: str | list[str] | None) -> frozenset[str]:
    if given is None:
        return frozenset()
    return frozenset(given) if isinstance(given, list) else baseline.fingerprints(root / given)


def _found(tree: SourceTree, question: dict[str, Any], progress: Progress) -> Iterator[Found]:
    kind = question["scanType"]
    secrets = Secrets(tree)
    found: list[Found] = []
    if kind in ("secrets", "all"):
        progress(0, "looking for secrets")
        found += secrets.found()
    if kind in ("python", "sql-injection", "xss", "all"):
        progress(40, "looking at Python")
        code = list(python_code.found(tree, secrets, kind))
        progress(60, "looking for patterns")
        code += _matches(tree, secrets, kind)
        found += _without_secrets_told_already(_merged(code), found)
    if kind in ("dependencies", "all"):
        progress(80, "looking at dependencies")
        database = question["advisories"]
        found += dependencies.found(tree, secrets, Path(database) if database else None)
    if kind in ("sql-injection", "xss"):
        return iter([each for each in found if each.type == kind])
    return iter(found)


def _matches(tree: SourceTree, secrets: Secrets, kind: str) -> Iterator[Found]:
    try:
        for each in patterns.found(tree, secrets):
            if kind != "python" or each.file.endswith(".py"):
                yield each
    except patterns.MissingProgramError as error:
        # A scan that could have found nothing must not look like one that found nothing.
        if kind in ("sql-injection", "xss"):
            raise PermanentError(f"a scan for {kind} needs it: {error}") from error
        tree.warnings.append(f"only Python was looked at, with bandit alone: {error}")
    except patterns.SemgrepFailedError as error:
        if kind in ("sql-injection", "xss"):
            raise
        tree.warnings.append(f"only Python was looked at, with bandit alone: {error}")


def _merged(found: Iterable[Found]) -> list[Found]:
    """Each problem once where several rules tell it: the surest one's words, the worst severity."""
    merged: list[Found] = []
    places: defaultdict[str, list[int]] = defaultdict(list)
    for each in sorted(found, key=lambda it: (_CONFIDENCES.index(it.confidence), it.rank)):
        same = next((at for at in places[each.file] if merged[at].is_same(each)), None)
        if same is None:
            places[each.file].append(len(merged))
            merged.append(each)
        else:
            severity = min(merged[same].severity, each.severity, key=SEVERITIES.index)
            merged[same] = replace(merged[same], severity=severity)
    return merged


def _without_secrets_told_already(code: list[Found], told_before: list[Found]) -> Iterator[Found]:
    places = {(each.file, each.line) for each in told_before}
    for each in code:
        is_secret = each.rule in PASSWORD_RULES or each.type == "secret"
        if not (is_secret and (each.file, each.line) in places):
            yield each
