"""Packages with known vulnerabilities."""

from collections.abc import Iterator
from pathlib import Path

from agents.repository.source_tree import SourceTree
from agents.scanning.advisories import SAMPLE, Advisories
from agents.scanning.found import Found
from agents.scanning.inventory import packages
from agents.scanning.secrets import Secrets


def found(tree: SourceTree, secrets: Secrets, database: Path | None) -> Iterator[Found]:
    """One finding for each advisory about a package that the tree uses.

    A package whose version is not pinned is judged by the oldest that may be used, with low
    confidence. Where nothing says a version it is passed over.
    """
    used = [package for package in packages(tree) if package.version]
    if not used:
        return
    advisories = Advisories(database or SAMPLE, used)
    for package in used:
        for advisory in advisories.about(package):
            fix = advisory.fixed_in(package)
            names = ", ".join(dict.fromkeys((advisory.id, *advisory.aliases)))
            at_least = "" if package.pinned else " or newer"
            yield Found(
                type="dependency",
                rule=f"osv.{advisory.id}",
                severity=advisory.severity,
                confidence="high" if package.pinned else "low",
                file=package.file,
                line=package.line,
                description=f"{package.name} {package.version}{at_least}: {advisory.summary} "
                f"({names}); {f'fixed in {fix}' if fix else 'no fix is known'}",
                code=secrets.shown(package.file, package.line),
                cwe=advisory.cwe,
                identity=f"{package.ecosystem}\0{package.name}\0{advisory.id}",
            )
    tree.warnings.extend(advisories.warnings)
    if database is None:
        tree.warnings.append(
            f"dependencies: compared with a sample of {advisories.entries} advisories alone; "
            "give a full database (advisories, or COMMANDCENTER_ADVISORIES)"
        )
