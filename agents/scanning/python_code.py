"""Insecure Python, by bandit."""

import re
from collections.abc import Iterator
from typing import Any, Final

from agents.repository.source_tree import SourceTree
from agents.scanning.found import Found, type_of
from agents.scanning.secrets import MASK, Secrets

PASSWORD_RULES: Final = frozenset({"bandit.B105", "bandit.B106", "bandit.B107"})
# Where bandit's own word for the weakness is too wide, or is another than everybody else's.
_WEAKNESSES: Final = {
    "B307": 95,
    "B506": 502,
    "B701": 79,
    "B702": 79,
    "B703": 79,
    "B704": 79,
}
_TESTS: Final = {
    "sql-injection": ("B608", "B610", "B611"),
    "xss": ("B308", "B701", "B702", "B703", "B704"),
}


def found(tree: SourceTree, secrets: Secrets, kind: str = "python") -> Iterator[Found]:
    """What bandit says of the tree's Python; files that are none become warnings of the tree.

    `kind`: only the tests for one type of finding are run, which takes a tenth of the time.
    """
    from bandit.core.config import BanditConfig
    from bandit.core.manager import BanditManager

    profile = {"include": set(_TESTS[kind])} if kind in _TESTS else None
    manager = BanditManager(BanditConfig(), "file", quiet=True, profile=profile)
    manager.files_list = [file for file, _ in tree.each_text(lambda it: it.endswith(".py"))]
    manager.run_tests()
    tree.warnings.extend(f"{file}: {reason}" for file, reason in manager.get_skipped())
    for issue in manager.get_issue_list():
        if not (issue.test_id == "B101" and _is_test(issue.fname)):
            yield _found(tree, secrets, issue)


def _found(tree: SourceTree, secrets: Secrets, issue: Any) -> Found:
    rule = f"bandit.{issue.test_id}"
    cwe = _WEAKNESSES.get(issue.test_id, issue.cwe.id)
    description = issue.text
    code = secrets.shown(issue.fname, issue.lineno)
    identity = " ".join(tree.line(issue.fname, issue.lineno).split())
    if rule in PASSWORD_RULES:
        # bandit quotes the password in its text, and it may be none of the known secrets.
        description = description.partition(":")[0]
        code = re.split(r"['\"]", code)[0].removesuffix(MASK) + MASK
        identity = code
    return Found(
        type=type_of(cwe),
        rule=rule,
        severity=issue.severity.lower(),
        confidence=issue.confidence.lower(),
        file=issue.fname,
        line=issue.lineno,
        description=description,
        code=code,
        cwe=f"CWE-{cwe}" if cwe else "",
        identity=identity,
        lines=frozenset(issue.linerange or ()),
    )


def _is_test(file: str) -> bool:
    """Asserts are what tests are made of."""
    *folders, name = file.split("/")
    return (
        not {"test", "tests"}.isdisjoint(folders)
        or name.startswith("test_")
        or name.endswith("_test.py")
        or name == "conftest.py"
    )
