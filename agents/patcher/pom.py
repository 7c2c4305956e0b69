"""A Maven `pom.xml` with other versions.

The parser says at which byte a version stands; only its text is replaced.
"""

import re
from dataclasses import dataclass, field
from typing import Final
from xml.parsers import expat
from xml.sax.saxutils import escape

from agents.errors import PermanentError

_HOLDERS: Final = frozenset({"dependency", "plugin", "parent", "extension"})
_PROPERTY: Final = re.compile(r"\$\{([^}]+)\}")


@dataclass(slots=True)
class _Span:
    start: int
    end: int


@dataclass(slots=True)
class _Element:
    name: str
    start: int
    text: str = ""
    children: dict[str, "_Element"] = field(default_factory=dict)
    span: _Span | None = None


class PomText:
    """A `pom.xml`. Raises `PermanentError` for what is not plain XML."""

    def __init__(self, text: str) -> None:
        self._content = text.encode()
        self._open: list[_Element] = []
        self._holders: list[_Element] = []
        self._properties: list[_Element] = []
        parser = expat.ParserCreate("UTF-8")
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._told
        parser.StartDoctypeDeclHandler = self._refuse
        self._parser = parser
        try:
            parser.Parse(self._content, True)
        except expat.ExpatError as error:
            raise PermanentError(f"it is not XML: {error}") from error

    def changed(self, group: str, artifact: str, version: str) -> str:
        """The text with the version wherever the artifact has one, or its property has."""
        spans: dict[int, _Span] = {}
        is_named = False
        for holder in self._holders:
            if not self._is(holder, group, artifact):
                continue
            is_named = True
            told = holder.children.get("version")
            if told is None:
                continue  # its version is managed elsewhere
            for element in self._where_written(told):
                if element.span is not None:
                    spans[element.span.start] = element.span
        if not spans:
            raise PermanentError(
                "the manifest gives it no version; a parent or a bill of materials does"
                if is_named
                else "the manifest does not name this dependency"
            )
        content = self._content
        for span in sorted(spans.values(), key=lambda it: it.start, reverse=True):
            content = content[: span.start] + escape(version).encode() + content[span.end :]
        return content.decode()

    def _is(self, holder: _Element, group: str, artifact: str) -> bool:
        named = holder.children.get("groupId")
        # A plugin without a group is one of Maven's own.
        of_group = named.text.strip() if named is not None else "org.apache.maven.plugins"
        called = holder.children.get("artifactId")
        return of_group == group and called is not None and called.text.strip() == artifact

    def _where_written(self, version: _Element) -> list[_Element]:
        """The version itself, or the properties that it stands for."""
        found = _PROPERTY.fullmatch(version.text.strip())
        if found is None:
            if "${" in version.text or not version.text.strip():
                raise PermanentError(
                    f"its version {version.text!r} is put together; edit it by hand"
                )
            self._check_plain(version)
            return [version]
        properties = [it for it in self._properties if it.name == found[1]]
        if not properties:
            raise PermanentError(
                f"its version is the property {found[1]!r}, which is set in another file"
            )
        for each in properties:
            self._check_plain(each)
        return properties

    def _check_plain(self, element: _Element) -> None:
        """What the parser read must be what is written: no comment, entity or CDATA in it."""
        span = element.span
        if span is None or self._content[span.start : span.end].decode() != element.text.strip():
            raise PermanentError(f"the text of <{element.name}> is not plain; edit it by hand")

    # --- the parser's calls -----------------------------------------------------------------------

    def _start(self, name: str, _attributes: dict[str, str]) -> None:
        self._open.append(_Element(name.rpartition(":")[2], self._parser.CurrentByteIndex))

    def _told(self, text: str) -> None:
        if self._open:
            self._open[-1].text += text

    def _end(self, _name: str) -> None:
        element = self._open.pop()
        end = self._parser.CurrentByteIndex
        begin = self._content.find(b">", element.start) + 1
        written = self._content[begin:end]
        lead = len(written) - len(written.lstrip())
        element.span = _Span(begin + lead, begin + lead + len(written.strip()))
        parent = self._open[-1] if self._open else None
        if parent is not None:
            parent.children.setdefault(element.name, element)
        if element.name in _HOLDERS:
            self._holders.append(element)
        if parent is not None and parent.name == "properties":
            self._properties.append(element)

    def _refuse(self, *_declared: object) -> None:
        raise PermanentError("it has a document type declaration, which a pom.xml needs not")
