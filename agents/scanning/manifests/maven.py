"""Java: pom.xml, with its own properties and managed versions; a parent's are not looked up."""

import re
from collections.abc import Iterator
from typing import Final
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from agents.scanning.package import Package, Places, UnreadableManifestError, UnreadLine

_PROPERTY: Final = re.compile(r"\$\{([^}]+)\}")
_LEVELS: Final = 5
_LONGEST: Final = 500
"""Characters of a name or version: properties may stand for each other many times over."""


def pom(file: str, text: str) -> Iterator[Package | UnreadLine]:
    """The dependencies of a project, those that it manages without using them left out."""
    try:
        project = fromstring(text.encode())
    except (ParseError, DefusedXmlException) as error:
        raise UnreadableManifestError(f"no XML: {error}") from error
    for element in project.iter():
        element.tag = element.tag.rpartition("}")[2]
    if project.tag != "project":
        raise UnreadableManifestError(f"no project of Maven: {project.tag}")
    properties = _properties(project)
    managed = {
        _name(each, properties): _said(each, "version", properties)
        for each in project.iterfind("dependencyManagement/dependencies/dependency")
    }
    places = Places(text)
    for each in project.iterfind("dependencies/*"):
        name = _name(each, properties)
        version = _said(each, "version", properties) or managed.get(name, "")
        artifact = each.findtext("artifactId", "").strip()
        line = places.of(f"<artifactId>{artifact}</artifactId>", f"<{each.tag}")
        if each.tag != "dependency" or name.startswith(":") or not artifact:
            yield UnreadLine(line, "no dependency with a groupId and an artifactId")
            continue
        exact, pinned = _oldest(version)
        yield Package(
            ecosystem="Maven",
            name=name,
            version=exact,
            file=file,
            line=line,
            pinned=pinned,
        )


def _properties(project: Element) -> dict[str, str]:
    found = {each.tag: (each.text or "").strip() for each in project.iterfind("properties/*")}
    for name in ("groupId", "artifactId", "version"):
        value = project.findtext(name) or project.findtext(f"parent/{name}")
        if value:
            found[f"project.{name}"] = value.strip()
    return {name: text for name, text in found.items() if len(text) <= _LONGEST}


def _said(element: Element, tag: str, properties: dict[str, str]) -> str:
    text = element.findtext(tag, "").strip()
    for _ in range(_LEVELS):
        if len(text) > _LONGEST:
            return ""
        text = _PROPERTY.sub(lambda it: properties.get(it[1], it[0]), text)
    return text[:_LONGEST]


def _name(dependency: Element, properties: dict[str, str]) -> str:
    group = _said(dependency, "groupId", properties)
    return f"{group}:{_said(dependency, 'artifactId', properties)}"


def _oldest(version: str) -> tuple[str, bool]:
    """The oldest version of a range like [1.0,2.0), and whether it is the only one."""
    if "${" in version or version in ("LATEST", "RELEASE"):
        return "", False
    if version[:1] in "[(" and version:
        return version.strip("[]()").partition(",")[0].strip(), "," not in version
    return version, True
