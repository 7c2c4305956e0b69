"""Secrets in text files, by detect-secrets, and lines of code without them.

Rule: no secret leaves. A line of code is cut where the first known secret begins, and where that
place is not known, nothing of the line is shown.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from agents.finding import Confidence, Severity
from agents.repository.source_tree import SourceTree
from agents.scanning.found import Found, secret_identity
from agents.yaml_aliases import make_too_large

MAX_CODE_LENGTH: Final = 160
MASK: Final = "****"

# A detector that knows its provider is believed; one that goes by names or looks, less.
_GENERIC: Final[dict[str, tuple[Severity, Confidence]]] = {
    "Secret Keyword": ("high", "medium"),
    "Basic Auth Credentials": ("high", "medium"),
    "JSON Web Token": ("medium", "medium"),
    "Base64 High Entropy String": ("medium", "low"),
    "Hex High Entropy String": ("medium", "low"),
}
# A long hexadecimal number on a line with one of these words is a checksum, as in lock files.
_CHECKSUM: Final = re.compile(r"sha-?(1|256|384|512)|md5|checksum|digest|integrity", re.IGNORECASE)
_CODE: Final = frozenset({
    ".py", ".pyi", ".js", ".jsx", ".mjs", ".ts", ".tsx", ".java", ".go", ".c", ".h", ".cc",
    ".cpp", ".hpp", ".cs", ".rs", ".rb", ".php", ".swift",
})  # fmt: skip
_YAML: Final = (".yaml", ".yml", ".eyaml")
# Made of nothing but versions and checksums; its lines are short and many.
_CHECKSUMS_ALONE: Final = frozenset({"go.sum"})


class Secret(NamedTuple):
    """A detected secret. `value` must not leave the process."""

    line: int
    detector: str
    value: str


class Secrets:
    """The secrets of a tree. detect-secrets is set up within `prepared` alone."""

    def __init__(self, tree: SourceTree) -> None:
        self._tree = tree
        self._known: dict[str, list[Secret]] = {}

    def of(self, file: str) -> list[Secret]:
        """All that is known of a file."""
        if file not in self._known:
            lines = self._tree.lines(file)
            found = [] if lines is None else self._detected(file, lines)
            self._known[file] = found
        return self._known[file]

    def _detected(self, file: str, lines: list[str]) -> list[Secret]:
        if not _may_hold_secrets(file, lines):
            return []
        text = "\n".join(lines)
        if file.endswith(_YAML) and make_too_large(text):
            reason = "its aliases make it too large"
        else:
            try:
                return list(_detected(file, lines))
            except Exception as error:  # noqa: BLE001 -- its parsers raise what they like
                reason = type(error).__name__  # its text may quote the file
        self._tree.warnings.append(f"{file}: secrets are looked for by line alone: {reason}")
        with TemporaryDirectory() as folder:
            plain = Path(folder) / "plain"  # of no suffix that is parsed
            plain.write_text(text, encoding="utf-8")
            return list(_detected(str(plain), lines))

    def shown(self, file: str, line: int) -> str:
        """Line `line` (from 1) as it may be told: cut where the first secret begins."""
        text = self._tree.line(file, line)
        secrets = self.of(file)
        for value in {secret.value for secret in secrets if secret.line == line}:
            if value not in text:  # a parser changed its spelling, so it cannot be found
                return MASK
        for value in {secret.value for secret in secrets}:
            before, found, _ = text.partition(value)
            if found:
                text = before + MASK
        return text if len(text) <= MAX_CODE_LENGTH else text[: MAX_CODE_LENGTH - 1] + "…"

    def found(self) -> Iterator[Found]:
        """One finding for each secret: of several detectors' views of it, the most specific."""
        for file, _ in self._tree.each_text(lambda _: True):
            secrets = self.of(file)
            for secret in _distinct(secrets):
                severity, confidence = _GENERIC.get(secret.detector, ("critical", "high"))
                code = self.shown(file, secret.line)
                name = re.sub(r"[^a-z0-9]+", "-", secret.detector.lower()).strip("-")
                yield Found(
                    type="secret",
                    rule=f"detect-secrets.{name}",
                    severity=severity,
                    confidence=confidence,
                    file=file,
                    line=secret.line,
                    description=f"Possible secret in the source: {secret.detector}",
                    code=code,
                    cwe="CWE-798",
                    identity=secret_identity(code, secret.value),
                )


@contextmanager
def prepared() -> Iterator[None]:
    """Set up detect-secrets, which keeps its settings in globals."""
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
    from detect_secrets.settings import transient_settings  # its import is slow: only here

    classes: Iterable[type] = get_mapping_from_secret_type_to_class().values()
    # A public IP address is no secret.
    detectors = [{"name": it.__name__} for it in classes if it.__name__ != "IPPublicDetector"]
    with transient_settings({"plugins_used": detectors}):
        yield


def _detected(file: str, lines: list[str]) -> Iterator[Secret]:
    from detect_secrets.core.scan import scan_file

    for found in scan_file(file):
        if found.secret_value and not _is_checksum(lines, found.line_number, found.type):
            yield Secret(found.line_number, found.type, found.secret_value)


def _is_checksum(lines: list[str], line: int, detector: str) -> bool:
    return (
        "High Entropy" in detector
        and line <= len(lines)
        and _CHECKSUM.search(lines[line - 1]) is not None
    )


def _may_hold_secrets(file: str, lines: list[str]) -> bool:
    """Whether `scan_file` is worth its time, which is three times that of asking directly.

    Only for programming languages: other files it may also parse as configuration.
    """
    from detect_secrets.settings import get_plugins

    path = Path(file)
    if path.name in _CHECKSUMS_ALONE:
        return False
    if path.suffix not in _CODE:
        return True
    plugins = get_plugins()
    return any(
        plugin.analyze_line(filename=file, line=line) for line in lines for plugin in plugins
    )


def _distinct(secrets: list[Secret]) -> Iterator[Secret]:
    taken: list[Secret] = []
    for secret in sorted(secrets, key=lambda it: (it.detector in _GENERIC, it.line, it)):
        if not any(
            it.line == secret.line and (it.value in secret.value or secret.value in it.value)
            for it in taken
        ):
            taken.append(secret)
            yield secret
