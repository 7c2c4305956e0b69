"""A remark before it is weighed against what has changed."""

from typing import NamedTuple

from agents.code_reviewer import IssueType
from agents.finding import Severity


class Remark(NamedTuple):
    """`line` is where it is told, and `line` to `last` what it is about."""

    type: IssueType
    severity: Severity
    file: str
    line: int
    last: int
    description: str
    suggestion: str
    rule: str


class Measured(NamedTuple):
    """What the functions of one file measure."""

    complexities: list[int]
    code_lines: int
    maintainability: float | None
    remarks: list[Remark]
