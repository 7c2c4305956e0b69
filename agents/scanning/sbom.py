"""The packages that a repository uses, as a bill of materials in CycloneDX 1.6."""

import uuid
from collections.abc import Iterable
from typing import Final

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from agents.scanning.package import PURL_TYPES, Package

MEDIA_TYPE: Final = "application/vnd.cyclonedx+json"


def document(packages: Iterable[tuple[Package, str]], version: str) -> bytes:
    """Each package with its SPDX expression, where one is known, and the file that names it.

    A version is told where it is the one that is used. Several ranges of a package are one
    component, the first: a reference must be unique.

    The same packages give the same document: the time is not in it, and its serial number is made
    of what is.
    """
    bom = Bom()
    licences = LicenseFactory()
    tool = Component(type=ComponentType.APPLICATION, name="compliance-checker", version=version)
    bom.metadata.tools.components.add(tool)
    seen: set[str] = set()
    for package, expression in packages:
        purl = _purl(package)
        if str(purl) in seen:
            continue
        seen.add(str(purl))
        bom.components.add(
            Component(
                type=ComponentType.LIBRARY,
                name=purl.name,
                group=purl.namespace,
                version=package.known_version or None,
                purl=purl,
                bom_ref=str(purl),
                licenses=[licences.make_from_string(expression)] if expression else (),
                properties=[Property(name="commandcenter:file", value=package.file)],
            )
        )
    content = "\n".join(sorted(str(it.purl) for it in bom.components))
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, content)
    bom.metadata.timestamp = None  # type: ignore[assignment]  # the library's type forgets that it may be absent
    return make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string().encode()


def _purl(package: Package) -> PackageURL:
    separator = ":" if package.ecosystem == "Maven" else "/"
    namespace, _, name = package.name.rpartition(separator)
    return PackageURL(
        type=PURL_TYPES[package.ecosystem],
        namespace=namespace or None,
        name=name,
        version=package.known_version or None,
    )
