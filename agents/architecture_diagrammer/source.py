"""What one source file says about its imports, as tree-sitter reads it.

The tree is walked by hand, with bounds: the queries of tree-sitter take minutes on a tree that is
nested a hundred thousand deep, and cannot be stopped.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import PurePosixPath
from typing import Any, Final

MAX_FILE_BYTES: Final = 500_000
_MAX_NODES: Final = 500_000
_MAX_DEPTH: Final = 150
_LANGUAGES: Final = {
    ".py": "Python", ".pyi": "Python", ".js": "JavaScript", ".jsx": "JavaScript",
    ".mjs": "JavaScript", ".cjs": "JavaScript", ".ts": "TypeScript", ".mts": "TypeScript",
    ".cts": "TypeScript", ".tsx": "TSX", ".java": "Java", ".go": "Go",
}  # fmt: skip


@dataclass(slots=True)
class Source:
    """`imports` are as written; `names` are the types a Java file speaks of."""

    file: str
    language: str
    package: str = ""
    imports: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    is_whole: bool = True


def language(file: str) -> str | None:
    """The language of a source file; `None` for any other file."""
    return _LANGUAGES.get(PurePosixPath(file).suffix)


def read(file: str, text: str) -> Source:
    """The imports of a source file."""
    from tree_sitter import Parser

    named = _LANGUAGES[PurePosixPath(file).suffix]
    source = Source(file, "TypeScript" if named == "TSX" else named)
    tree = Parser(_grammar(named)).parse(text.encode())
    reader = _READERS[source.language]
    count = 0
    for count, node in enumerate(_walk(tree.root_node), start=1):  # noqa: B007 -- read after it
        reader(node, source)
    source.is_whole = not tree.root_node.has_error and count < _MAX_NODES
    return source


@cache
def _grammar(name: str) -> Any:
    from tree_sitter import Language

    if name == "Python":
        import tree_sitter_python

        return Language(tree_sitter_python.language())
    if name == "JavaScript":
        import tree_sitter_javascript

        return Language(tree_sitter_javascript.language())
    if name == "Java":
        import tree_sitter_java

        return Language(tree_sitter_java.language())
    if name == "Go":
        import tree_sitter_go

        return Language(tree_sitter_go.language())
    import tree_sitter_typescript

    is_tsx = name == "TSX"
    grammar = (
        tree_sitter_typescript.language_tsx
        if is_tsx
        else (tree_sitter_typescript.language_typescript)
    )
    return Language(grammar())


def _walk(root: Any) -> Iterator[Any]:
    """The nodes in the order of the text, as far as the bounds allow."""
    cursor = root.walk()
    depth = 0
    for _ in range(_MAX_NODES):
        yield cursor.node
        if depth < _MAX_DEPTH and cursor.goto_first_child():
            depth += 1
            continue
        while not cursor.goto_next_sibling():
            if depth == 0 or not cursor.goto_parent():
                return
            depth -= 1


def _text(node: Any) -> str:
    return str(node.text.decode(errors="replace")) if node is not None else ""


def _python(node: Any, source: Source) -> None:
    if node.type == "import_statement":
        for name in node.children_by_field_name("name"):
            named = name.child_by_field_name("name") if name.type == "aliased_import" else name
            source.imports.append(_text(named))
    elif node.type == "import_from_statement":
        module = _text(node.child_by_field_name("module_name")).replace(" ", "")
        names = node.children_by_field_name("name")
        for name in names:
            named = name.child_by_field_name("name") if name.type == "aliased_import" else name
            # With a colon: what follows it is a module or only a name in one.
            source.imports.append(f"{module}:{_text(named)}")
        if not names:
            source.imports.append(module)


def _script(node: Any, source: Source) -> None:
    if node.type in {"import_statement", "export_statement", "import_require_clause"}:
        _add_string(node.child_by_field_name("source"), source)
    elif node.type == "call_expression":
        function = node.child_by_field_name("function")
        arguments = node.child_by_field_name("arguments")
        if function is None or arguments is None:
            return
        if function.type == "import" or _text(function) == "require":
            _add_string(next(iter(arguments.named_children), None), source)


def _add_string(node: Any, source: Source) -> None:
    if node is not None and node.type == "string":
        source.imports.append(_text(node)[1:-1])


def _java(node: Any, source: Source) -> None:
    if node.type == "package_declaration":
        named = [it for it in node.named_children if it.type in _JAVA_NAMES]
        source.package = _text(named[0]) if named else ""
    elif node.type == "import_declaration":
        named = [it for it in node.named_children if it.type in _JAVA_NAMES]
        is_all = any(it.type == "asterisk" for it in node.named_children)
        source.imports.extend(_text(it) + (".*" if is_all else "") for it in named[:1])
    elif node.type in {"type_identifier", "identifier"}:
        source.names.add(_text(node))


def _go(node: Any, source: Source) -> None:
    if node.type == "import_spec":
        source.imports.append(_text(node.child_by_field_name("path"))[1:-1])


_JAVA_NAMES: Final = frozenset({"scoped_identifier", "identifier"})
_READERS: Final[dict[str, Callable[[Any, Source], None]]] = {
    "Python": _python,
    "JavaScript": _script,
    "TypeScript": _script,
    "Java": _java,
    "Go": _go,
}
