"""Names and exact texts are changed in many files at once.

A rename is worked out by rope on a copy of the Python files in a temporary folder. rope reads the
code and runs none of it: it is told to use no folder of settings, and the copy holds no other file.
"""

import ast
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from agents.errors import PermanentError
from agents.patcher.order import Rename, Replacement

_DEFINITIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def replaced(contents: Mapping[str, bytes], change: Replacement) -> dict[str, bytes]:
    """The files in which the text is, with it replaced. Raises `PermanentError`."""
    find, put = change.find.encode(), change.replace.encode()
    counts = {path: content.count(find) for path, content in contents.items()}
    found = sum(counts.values())
    if found != change.expected_count:
        where = ", ".join(f"{path} ({count})" for path, count in counts.items() if count)
        raise PermanentError(
            f"the text to replace is there {found} times, not {change.expected_count}"
            + (f": {where[:500]}" if where else "")
        )
    return {path: contents[path].replace(find, put) for path, count in counts.items() if count}


def renamed(contents: Mapping[str, bytes], change: Rename) -> dict[str, bytes]:
    """The files that name the symbol, with its new name. Raises `PermanentError`."""
    from rope.base.exceptions import RopeError
    from rope.base.project import Project
    from rope.refactor.rename import Rename as RopeRename

    if change.file not in contents:
        raise PermanentError(f"{change.file} is no file of Python among the target's files")
    offset = _offset(change.file, _decoded(change.file, contents[change.file]), change.symbol)
    with TemporaryDirectory(prefix="commandcenter-rename-") as folder:
        root = Path(os.path.realpath(folder))
        for path, content in contents.items():
            place = root / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        project = Project(
            str(root),
            ropefolder=None,
            ignore_syntax_errors=True,
            automatic_soa=False,
            import_dynload_stdmods=False,
            extension_modules=[],
            save_history=False,
            save_objectdb=False,
        )
        try:
            rename = RopeRename(project, project.get_resource(change.file), offset)
            made = rename.get_changes(change.to).changes
        except (RopeError, SyntaxError, RecursionError, ValueError) as error:
            raise PermanentError(f"{change.symbol} cannot be renamed: {error}") from error
        finally:
            project.close()
    edits: dict[str, bytes] = {}
    for each in made:
        path = each.resource.path
        if path not in contents or not hasattr(each, "new_contents"):
            raise PermanentError(
                f"{change.symbol} cannot be renamed: it would move or touch {path!r}"
            )
        edits[path] = _as_before(path, contents[path], each.new_contents)
    return edits


def _offset(file: str, text: str, symbol: str) -> int:
    """Where the definition's name stands, counted in characters with lines ended by one."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise PermanentError(f"{file} is not Python that can be read: {error}") from error
    parts = symbol.split(".")
    scope: ast.stmt | ast.expr | ast.Module = module
    for depth, name in enumerate(parts):
        found = _defined(scope, name)
        if found is None:
            raise PermanentError(f"{file} defines no {'.'.join(parts[: depth + 1])}")
        scope = found
    if isinstance(scope, ast.Module):
        raise PermanentError(f"{file}: {symbol!r} names nothing")
    lines = text.split("\n")
    number = scope.lineno - 1
    column = len(lines[number].encode()[: scope.col_offset].decode())
    start = sum(len(line) + 1 for line in lines[:number]) + column
    return text.index(parts[-1], start + _keyword(scope))


def _keyword(node: ast.stmt | ast.expr) -> int:
    """How many characters `def`, `async def` or `class` takes before the name."""
    if isinstance(node, ast.AsyncFunctionDef):
        return len("async def")
    if isinstance(node, ast.FunctionDef):
        return len("def")
    return len("class") if isinstance(node, ast.ClassDef) else 0


def _defined(scope: ast.AST, name: str) -> ast.stmt | ast.expr | None:
    """The definition of `name` in the body of a module, class or function."""
    for node in getattr(scope, "body", []):
        if isinstance(node, _DEFINITIONS) and node.name == name:
            return node
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            if isinstance(target, ast.Name) and target.id == name:
                return target
    return None


def _decoded(path: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise PermanentError(f"{path} is not UTF-8 text, so it cannot be refactored") from error


def _as_before(path: str, old: bytes, text: str) -> bytes:
    """The new text with the line ends of the old file, and its byte order mark."""
    _decoded(path, old)
    plain = old.replace(b"\r\n", b"\n")
    has_mixed_ends = b"\r" in plain or (plain != old and old.count(b"\n") != old.count(b"\r\n"))
    if has_mixed_ends:
        raise PermanentError(f"{path} has line ends of several kinds, which would not stay")
    text = text.replace("\r\n", "\n")
    return (text if plain == old else text.replace("\n", "\r\n")).encode()
