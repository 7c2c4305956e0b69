"""Findings as SARIF 2.1.0, the format that code hosts and editors read."""

import json
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote

from agents.finding import Severity
from agents.scanning.found import Found

MEDIA_TYPE: Final = "application/sarif+json"

_LEVELS: Final[dict[Severity, str]] = {
    "critical": "error",
    "high": "error",
    "medium": "warning",
    "low": "note",
}
# What code hosts sort by; the middle of each band of CVSS.
_SCORES: Final[dict[Severity, str]] = {
    "critical": "9.5",
    "high": "8.0",
    "medium": "5.5",
    "low": "2.0",
}


def document(found: Iterable[tuple[Found, str]], tool: str, version: str) -> bytes:
    """One run of a tool: every finding with its fingerprint, every rule once."""
    rules: dict[str, dict[str, Any]] = {}
    results = []
    for each, fingerprint in found:
        rules.setdefault(each.rule, _rule(each))
        results.append(_result(each, fingerprint, list(rules).index(each.rule)))
    run = {
        "tool": {"driver": {"name": tool, "version": version, "rules": list(rules.values())}},
        "columnKind": "unicodeCodePoints",
        "results": results,
    }
    return json.dumps(
        {
            "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/"
            "sarif-schema-2.1.0.json",
            "version": "2.1.0",
            "runs": [run],
        }
    ).encode()


def _rule(found: Found) -> dict[str, Any]:
    return {
        "id": found.rule,
        "shortDescription": {"text": found.type},
        "properties": {
            "tags": ["security", *([f"external/cwe/{found.cwe.lower()}"] if found.cwe else [])],
            "security-severity": _SCORES[found.severity],
        },
    }


def _result(found: Found, fingerprint: str, rule: int) -> dict[str, Any]:
    return {
        "ruleId": found.rule,
        "ruleIndex": rule,
        "level": _LEVELS[found.severity],
        "message": {"text": found.description},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": quote(found.file), "uriBaseId": "%SRCROOT%"},
                    "region": {
                        "startLine": max(found.line, 1),
                        **({"snippet": {"text": found.code}} if found.code else {}),
                    },
                }
            }
        ],
        "partialFingerprints": {"commandcenter/v1": fingerprint},
        "properties": {"confidence": found.confidence, "severity": found.severity},
    }
