"""One problem as a scanner tells it, and how problems are compared."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from agents.finding import SEVERITIES, Confidence, Severity

_BY_WEAKNESS: Final[dict[str, tuple[int, ...]]] = {
    "sql-injection": (89, 564, 943),
    "xss": (79, 80, 116),
    "command-injection": (78, 77, 88),
    "code-injection": (94, 95, 96, 1336),
    "path-traversal": (22, 23, 73, 377, 379),
    "insecure-deserialization": (502,),
    "xxe": (611, 776),
    "ssrf": (918,),
    "open-redirect": (601,),
    "prototype-pollution": (1321,),
    "weak-cryptography": (326, 327, 328, 330, 338, 916),
    "insecure-transport": (295, 319, 322, 614),
    "insecure-permissions": (732, 276),
    "secret": (259, 321, 798),
}
_TYPES: Final = {number: kind for kind, numbers in _BY_WEAKNESS.items() for number in numbers}
# So many of the 256 bits tell that a secret was replaced by another, and not what it is.
_SECRET_BITS: Final = 12


def type_of(cwe: int) -> str:
    """What kind of finding a weakness of the Common Weakness Enumeration is."""
    return _TYPES.get(cwe, "insecure-code")


@dataclass(frozen=True, kw_only=True)
class Found:
    """A finding before it is told.

    `identity` is what stays when its line moves; `lines` are all that have to do with it.
    `is_strict`: only a strict check counts it.
    """

    type: str
    rule: str
    severity: Severity
    confidence: Confidence
    file: str
    line: int
    description: str
    code: str
    cwe: str
    identity: str
    lines: frozenset[int] = frozenset()
    remediation: str = ""
    is_strict: bool = False

    def is_same(self, other: "Found") -> bool:
        """Whether both tell the same problem: of one type, on lines that they share."""
        return (self.type, self.file) == (other.type, other.file) and not (
            self.lines | {self.line}
        ).isdisjoint(other.lines | {other.line})

    @property
    def rank(self) -> tuple[int, str, int, str, str]:
        """The worst first, then by place."""
        return (SEVERITIES.index(self.severity), self.file, self.line, self.type, self.rule)


def secret_identity(code: str, value: str) -> str:
    """`identity` of a secret: the line without it, and too little of its hash to guess it by."""
    bits = int.from_bytes(sha256(f"{code}\0{value}".encode()).digest()[:2]) % (1 << _SECRET_BITS)
    return f"{' '.join(code.split())}\0{bits}"


def fingerprinted(found: Iterable[Found]) -> list[tuple[Found, str]]:
    """Each finding with its fingerprint, the worst first.

    A fingerprint is of the type, the file, the text of the line, and which of several alike it is.
    It holds when lines move, and when another scanner finds the same.
    """
    seen: Counter[tuple[str, str, str]] = Counter()
    result = []
    for each in sorted(found, key=lambda it: (it.file, it.line, it.rule)):
        key = (each.type, each.file, each.identity)
        text = "\0".join((*key, str(seen[key])))
        seen[key] += 1
        result.append((each, sha256(text.encode()).hexdigest()[:32]))
    return sorted(result, key=lambda pair: pair[0].rank)


def told(found: Found, fingerprint: str) -> dict[str, Any]:
    """The finding as the agents tell it."""
    return {
        "type": found.type,
        "severity": found.severity,
        "file": found.file,
        "line": found.line,
        "description": found.description,
        "code": found.code,
        "rule": found.rule,
        "cwe": found.cwe,
        "confidence": found.confidence,
        "fingerprint": fingerprint,
    }
