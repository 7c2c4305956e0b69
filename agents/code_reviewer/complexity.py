"""How complex code is: Python by radon, other languages by lizard."""

import ast
import threading
import warnings
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, Final

from agents.code_reviewer.remark import Measured, Remark

_MAX_LENGTH: Final = 100
_MAX_PARAMETERS: Final = 8
_PYTHON: Final = frozenset({".py", ".pyi"})
_LANGUAGES: Final = {
    "py": "Python",
    "pyi": "Python",
    "js": "JavaScript",
    "jsx": "JavaScript",
    "mjs": "JavaScript",
    "cjs": "JavaScript",
    "ts": "TypeScript",
    "tsx": "TypeScript",
    "vue": "Vue",
    "java": "Java",
    "go": "Go",
    "c": "C",
    "h": "C",
    "cc": "C++",
    "cpp": "C++",
    "cxx": "C++",
    "hh": "C++",
    "hpp": "C++",
    "cs": "C#",
    "rs": "Rust",
    "rb": "Ruby",
    "php": "PHP",
    "kt": "Kotlin",
    "kts": "Kotlin",
    "swift": "Swift",
    "scala": "Scala",
    "lua": "Lua",
    "m": "Objective-C",
    "mm": "Objective-C",
}
# The filters for warnings belong to the whole process.
_parsing: Final = threading.Lock()


class UnreadableCodeError(Exception):
    """A tool cannot make sense of a file; the text says why."""


def language(file: str) -> str | None:
    """The language of a source file; `None` for any other file."""
    return _LANGUAGES.get(PurePosixPath(file).suffix.lower().removeprefix("."))


def is_python(file: str) -> bool:
    """Whether ruff and radon know it."""
    return PurePosixPath(file).suffix.lower() in _PYTHON


def measured(file: str, text: str, limit: int) -> Measured:
    """The file's figures and what is over the limits. Raises `UnreadableCodeError`."""
    try:
        return _python(file, text, limit) if is_python(file) else _other(file, text, limit)
    except RecursionError as error:
        raise UnreadableCodeError("it is nested too deep") from error


def _python(file: str, text: str, limit: int) -> Measured:
    from radon.complexity import cc_visit_ast
    from radon.metrics import mi_visit
    from radon.raw import analyze

    text = text.removeprefix("\ufeff")  # Python itself passes over it
    try:
        with _parsing, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the code that is read, not of ours
            tree = ast.parse(text)
            maintainability = float(mi_visit(text, multi=True))
            code_lines = int(analyze(text).sloc)
    except (SyntaxError, ValueError, MemoryError) as error:
        raise UnreadableCodeError(f"it is not Python: {error}") from error
    functions = list(_functions(cc_visit_ast(tree)))
    remarks = [
        _too_complex(file, each.fullname, each.complexity, each.lineno, each.endline, limit)
        for each in functions
        if each.complexity > limit
    ]
    if maintainability < 10:
        remarks.append(
            Remark(
                "quality",
                "low",
                file,
                1,
                text.count("\n") + 1,
                f"Hard to maintain: radon's index is {maintainability:.0f} of 100",
                "Split the file by what changes together.",
                "maintainability",
            )
        )
    return Measured([each.complexity for each in functions], code_lines, maintainability, remarks)


def _functions(blocks: list[Any]) -> Iterator[Any]:
    """Functions, methods and closures, each once: radon lists methods beside their class."""
    for block in blocks:
        if not hasattr(block, "methods"):
            yield block
            yield from _functions(block.closures)


def _other(file: str, text: str, limit: int) -> Measured:
    import lizard

    is_whole = False

    def watched(tokens: Iterator[Any], _reader: Any) -> Iterator[Any]:
        nonlocal is_whole
        yield from tokens
        is_whole = True

    analyzer = lizard.FileAnalyzer([*lizard.get_extensions([]), watched])
    try:
        found = analyzer.analyze_source_code(file, text)
    except Exception as error:
        # Of code that is not whole its readers raise what they come upon.
        raise UnreadableCodeError(f"lizard cannot read it ({type(error).__name__})") from error
    if not is_whole:  # lizard keeps that to itself
        raise UnreadableCodeError("it is nested too deep")
    remarks = []
    for each in found.function_list:
        name, first, last = each.name, each.start_line, each.end_line
        if each.cyclomatic_complexity > limit:
            remarks.append(_too_complex(file, name, each.cyclomatic_complexity, first, last, limit))
        if each.nloc > _MAX_LENGTH:
            remarks.append(
                Remark(
                    "quality",
                    "low",
                    file,
                    first,
                    last,
                    f"{name} is {each.nloc} lines long; {_MAX_LENGTH} is the limit",
                    "Take steps that have a name of their own out of it.",
                    "length",
                )
            )
        if each.parameter_count > _MAX_PARAMETERS:
            remarks.append(
                Remark(
                    "quality",
                    "low",
                    file,
                    first,
                    last,
                    f"{name} takes {each.parameter_count} parameters; "
                    f"{_MAX_PARAMETERS} is the limit",
                    "Pass what belongs together as one value.",
                    "parameters",
                )
            )
    complexities = [each.cyclomatic_complexity for each in found.function_list]
    return Measured(complexities, found.nloc, None, remarks)


def _too_complex(file: str, name: str, value: int, first: int, last: int, limit: int) -> Remark:
    return Remark(
        "quality",
        "high" if value > 2 * limit else "medium",
        file,
        first,
        last,
        f"{name} has a cyclomatic complexity of {value}; {limit} is the limit",
        "Give its branches names of their own, or put the cases into a table.",
        "complexity",
    )
