"""One compliance check of a folder: licences, security headers, secrets."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, get_args

from agents.errors import PermanentError
from agents.finding import SEVERITIES, Severity
from agents.repository.source_tree import SourceTree
from agents.scanning import nginx, patterns, sbom
from agents.scanning.alone import alone
from agents.scanning.inventory import packages
from agents.scanning.licences import Licences, Verdict, distinct, policy
from agents.scanning.package import Package
from agents.scanning.scan import shortened
from agents.scanning.secrets import Secrets

RULES: Final = ("licenses", "security-headers", "secrets")

Progress = Callable[[float, str], None]
Violation = dict[str, Any]

_SEVERITIES: Final[dict[tuple[Verdict, bool], Severity]] = {
    ("denied", False): "high",
    ("denied", True): "high",
    ("unlisted", False): "medium",
    ("unlisted", True): "high",
    ("unknown", True): "medium",
}


def check(question: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """What `agents/compliance_checker.py` makes its output of. Raises `AgentError`."""
    tree = SourceTree(Path(question["path"]), question["paths"])
    rules = [rule for rule in RULES if rule in question["rules"] or "all" in question["rules"]]
    strict = question["strictMode"]
    violations: list[Violation] = []
    answer: dict[str, Any] = {"licenses": None, "sbom": None}
    if "licenses" in rules:
        progress(0, "looking at licences")
        named, counts, bom = _licences(tree, question)
        violations += named
        answer |= {"licenses": counts, "sbom": bom}
    with alone(tree.root):
        secrets = Secrets(tree)
        if "security-headers" in rules:
            progress(30, "looking at headers")
            violations += _headers(tree, secrets, strict)
        if "secrets" in rules:
            progress(50, "looking for secrets")
            violations += _secrets(secrets, strict)
    violations.sort(key=lambda it: (SEVERITIES.index(it["severity"]), it["file"], it["line"]))
    counted = Counter(it["severity"] for it in violations)
    return {
        **answer,
        "violations": violations[: question["maxViolations"]],
        "omittedViolations": max(0, len(violations) - question["maxViolations"]),
        "summary": {"total": len(violations), **{each: counted[each] for each in SEVERITIES}},
        "passed": not violations if strict else not (counted["critical"] or counted["high"]),
        "checkedFiles": len(tree.read),
        "skippedFiles": len(tree.skipped),
        "rulesApplied": rules,
        "warnings": shortened(tree.warnings),
    }


def _licences(
    tree: SourceTree, question: dict[str, Any]
) -> tuple[list[Violation], dict[str, int], str]:
    given = question["policy"]
    licences = Licences(tree.root, policy(tree.root / given if given else None))
    used = list(distinct(packages(tree)))
    judged = [
        (package, expression, licences.judge(package, expression))
        for package, expression in ((each, licences.of(each)) for each in used)
    ]
    counts = Counter(verdict for _, _, verdict in judged)
    violations = [
        _licence(package, expression, verdict, severity)
        for package, expression, verdict in judged
        if (severity := _SEVERITIES.get((verdict, question["strictMode"]))) is not None
    ]
    bom = sbom.document(((each, expression) for each, expression, _ in judged), question["version"])
    return violations, {name: counts[name] for name in get_args(Verdict)}, bom.decode()


def _licence(package: Package, expression: str, verdict: Verdict, severity: Severity) -> Violation:
    name = f"{package.name} {package.known_version}".strip()
    message, remediation = {
        "denied": (
            f"{name} is under {expression}, which the policy denies",
            "Replace the package, or have the policy say otherwise.",
        ),
        "unlisted": (
            f"{name} is under {expression}, of which the policy says nothing",
            "Add the licence to allow or deny in the policy.",
        ),
        "unknown": (
            f"the licence of {name} is unknown",
            "Install the packages before the check, or say it under packages in the policy.",
        ),
    }[verdict]
    return _violation(
        f"license.{verdict}", severity, package.file, package.line, message, remediation
    )


def _headers(tree: SourceTree, secrets: Secrets, strict: bool) -> Iterator[Violation]:
    found = list(nginx.found(tree))
    try:
        found += patterns.found(tree, secrets, "headers")
    except patterns.MissingProgramError as error:
        # A check that could have found nothing must not look like one that found nothing.
        raise PermanentError(f"a check of security headers needs it: {error}") from error
    for each in found:
        if strict or not each.is_strict:
            yield _violation(
                each.rule, each.severity, each.file, each.line, each.description, each.remediation
            )


def _secrets(secrets: Secrets, strict: bool) -> Iterator[Violation]:
    for each in secrets.found():
        if strict or each.confidence != "low":
            yield _violation(
                each.rule,
                each.severity,
                each.file,
                each.line,
                each.description,
                "Make it invalid where it is used, then take it out: whoever has the repository's "
                "history has it.",
            )


def _violation(
    rule: str, severity: Severity, file: str, line: int, message: str, remediation: str
) -> Violation:
    return {
        "rule": rule,
        "severity": severity,
        "file": file,
        "line": line,
        "message": message,
        "remediation": remediation,
    }
