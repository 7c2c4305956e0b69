"""Which import means which module of the repository.

A module is a file; of Go, where a package is a folder, it is the folder.
"""

import json
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from agents.architecture_diagrammer.source import Source

_SCRIPT_ENDS: Final = (
    "", ".ts", ".tsx", ".mts", ".cts", ".d.ts", ".js", ".jsx", ".mjs", ".cjs",
    *(f"/index{end}" for end in (".ts", ".tsx", ".js", ".jsx", ".mjs", ".cjs")),
)  # fmt: skip
_GO_MODULE: Final = re.compile(r"^\s*module\s+\"?([^\s\"]+)", re.MULTILINE)


class Modules:
    """The modules of a repository; `manifests` are the texts of its go.mod and package.json."""

    def __init__(self, sources: Sequence[Source], manifests: Mapping[str, str]) -> None:
        self._files = {source.file for source in sources}
        self._python: dict[str, list[str]] = defaultdict(list)
        self._java: dict[str, str] = {}
        self._java_packages: dict[str, dict[str, str]] = defaultdict(dict)
        self._go_folders = {
            posixpath.dirname(it.file) or "." for it in sources if it.language == "Go"
        }
        self._go_modules: dict[str, str] = {}
        self._packages: dict[str, str] = {}
        for source in sources:
            if source.language == "Python":
                for name in self._python_names(source.file):
                    self._python[name].append(source.file)
            elif source.language == "Java":
                stem = posixpath.basename(source.file).removesuffix(".java")
                self._java[f"{source.package}.{stem}".lstrip(".")] = source.file
                self._java_packages[source.package][stem] = source.file
        for file, text in manifests.items():
            self._add_manifest(file, text)

    def of(self, source: Source) -> str:
        """The module that a file is, or is part of."""
        return (posixpath.dirname(source.file) or ".") if source.language == "Go" else source.file

    def imported(self, source: Source) -> Iterator[tuple[str | None, str]]:
        """Each import's module, or `None` and the name of what comes from elsewhere."""
        if source.language == "Java":
            for name in source.names & self._java_packages[source.package].keys():
                yield self._java_packages[source.package][name], ""
        for written in source.imports:
            if source.language == "Python":
                yield self._of_python(source.file, written)
            elif source.language == "Java":
                yield from self._of_java(source, written)
            elif source.language == "Go":
                yield self._of_go(written)
            else:
                yield self._of_script(source.file, written)

    # --- Python -----------------------------------------------------------------------------------

    def _python_names(self, file: str) -> set[str]:
        """By what a file may be imported: from the repository's root, and from its package's."""
        path = file.rpartition(".")[0].removesuffix("/__init__")
        top = posixpath.dirname(path)
        while top and f"{top}/__init__.py" in self._files:
            top = posixpath.dirname(top)
        within = posixpath.relpath(path, top) if top else path
        return {it.replace("/", ".") for it in (path, path.removeprefix("src/"), within)}

    def _of_python(self, file: str, written: str) -> tuple[str | None, str]:
        module, colon, name = written.partition(":")
        dots = len(module) - len(module.lstrip("."))
        if dots:
            folder = "/".join([*file.split("/")[:-1], "x"])
            for _ in range(dots):
                folder = posixpath.dirname(folder)
            place = "/".join(filter(None, [folder, module[dots:].replace(".", "/")]))
            for path in filter(None, [f"{place}/{name}" if colon else "", place]):
                for end in (".py", "/__init__.py", ".pyi"):
                    found = path.lstrip("/") + end
                    if found in self._files and found != file:
                        return found, ""
            return None, ""
        for dotted in filter(None, [f"{module}.{name}" if colon else "", module]):
            known = [it for it in self._python.get(dotted, ()) if it != file]
            if known:
                return max(known, key=lambda it: (_shared(it, file), it)), ""
        return None, module.partition(".")[0]

    # --- JavaScript and TypeScript ----------------------------------------------------------------

    def _of_script(self, file: str, written: str) -> tuple[str | None, str]:
        if written.startswith("."):
            return self._script(posixpath.join(posixpath.dirname(file), written)), ""
        parts = written.split("/")
        name = "/".join(parts[: 2 if written.startswith("@") else 1])
        if name in self._packages:
            rest = written[len(name) :].lstrip("/")
            folder = self._packages[name]
            for place in (rest, f"src/{rest}" if rest else "src", "lib"):
                found = self._script(posixpath.join(folder, place))
                if found is not None:
                    return found, ""
        return None, name

    def _script(self, path: str) -> str | None:
        path = posixpath.normpath(path)
        # TypeScript names the file that it will become.
        stem = re.sub(r"\.([mc]?)jsx?$", "", path)
        for base in (path, stem):
            for end in _SCRIPT_ENDS:
                if base + end in self._files:
                    return base + end
        return None

    # --- Java -------------------------------------------------------------------------------------

    def _of_java(self, source: Source, written: str) -> Iterator[tuple[str | None, str]]:
        package = written.removesuffix(".*")
        if written.endswith(".*") and package in self._java_packages:
            for name in source.names & self._java_packages[package].keys():
                yield self._java_packages[package][name], ""
            return
        parts = package.split(".")
        for length in range(len(parts), 0, -1):
            found = self._java.get(".".join(parts[:length]))
            if found is not None:
                yield found, ""
                return
        yield None, ".".join(parts[:2])

    # --- Go ---------------------------------------------------------------------------------------

    def _of_go(self, written: str) -> tuple[str | None, str]:
        for module, folder in self._go_modules.items():
            if written == module or written.startswith(module + "/"):
                place = posixpath.normpath(posixpath.join(folder, "." + written[len(module) :]))
                if place in self._go_folders:
                    return place, ""
        return None, "/".join(written.split("/")[:3])

    def _add_manifest(self, file: str, text: str) -> None:
        folder = posixpath.dirname(file) or "."
        if posixpath.basename(file) == "go.mod":
            found = _GO_MODULE.search(text)
            if found is not None:
                self._go_modules[found[1]] = folder
            return
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            return  # a package that cannot be read has no name that could be imported
        if isinstance(data, dict) and isinstance(data.get("name"), str):
            self._packages[data["name"]] = folder


def _shared(one: str, other: str) -> int:
    """How many folders two files have in common."""
    pairs = zip(one.split("/")[:-1], other.split("/")[:-1], strict=False)
    return next(
        (at for at, (a, b) in enumerate(pairs) if a != b), min(one.count("/"), other.count("/"))
    )
