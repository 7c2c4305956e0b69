"""Workflow files: YAML or JSON text to definitions, and every fault to its line and column.

- One file may hold several definitions (YAML documents, separated by `---`).
- Scalars are read as YAML 1.2 and JSON read them: `on` and `no` are strings, `1:30` is a string, a
  date is a string. Keys are strings, and a key that stands twice is a fault: the second would win
  in silence.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import yaml

from streams.action_inputs import KnownAction, use_problems
from streams.definition_limits import DefinitionLimits
from streams.errors import CallerError, DefinitionError, Problem, TooLargeError
from streams.foresight import Outputs, foreseen
from streams.plan import parse

MAX_BYTES: Final = 1_000_000
_MERGE: Final = "tag:yaml.org,2002:merge"
_QUOTED_TEMPLATE: Final = re.compile(r"'\{\{ (.*?) \}\}'")


Actions = Mapping[str, Mapping[str, KnownAction]]
"""Agent → its actions."""


class Place(NamedTuple):
    """A position in a file; lines and columns count from 1."""

    line: int
    column: int


class Fault(NamedTuple):
    """One thing that is wrong in a file, where it stands."""

    file: str
    place: Place
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.place.line}:{self.place.column}: {self.message}"


class WorkflowFileError(DefinitionError):
    """A file holds no valid workflows; the text has one line for each of its `faults`."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = tuple(faults)


class Document(NamedTuple):
    """One definition of a file: its value, and the YAML node that knows where everything stands."""

    file: str
    definition: dict[str, Any]
    node: yaml.MappingNode

    @property
    def name(self) -> str:
        """What the workflow is called, as far as it says so."""
        return str(self.definition.get("name", "?"))

    def check(
        self, actions: Actions | None = None, limits: DefinitionLimits | None = None
    ) -> list[Fault]:
        """Everything that is wrong with the definition; nothing hides anything else.

        But what it would fail at when it runs can be foreseen only where its graph is right.

        Args:
            actions: The actions of every known agent; None leaves out whether there are such.
            limits: How big it may be; None leaves that out.
        """
        problems: list[Problem] = []
        try:
            plan = parse(self.definition)
            problems += foreseen(plan, _outputs(actions or {}))
            if limits is not None:
                problems += limits.problems(plan.spec)
                limits.check_size(plan.spec)
        except DefinitionError as error:
            problems += error.problems
        except TooLargeError as error:
            problems.append(Problem((), str(error)))
        if actions is not None:
            problems += _agent_problems(self.definition, actions)
        return self.faults(problems)

    def faults(self, problems: Sequence[Problem]) -> list[Fault]:
        """The problems with the places of the fields that they are about, from top to bottom."""
        found = [Fault(self.file, self.place_of(problem), problem.message) for problem in problems]
        return sorted(found, key=lambda fault: fault.place)

    def place_of(self, problem: Problem) -> Place:
        """Where the problem's field stands, or what it would stand in if it is missing."""
        node: yaml.Node = self.node
        place = _place(node)
        for part in problem.path:
            entry = _entry(node, part)
            if entry is None:
                break
            key, node = entry
            # Of a short value its own place, of a long one (on the next lines) its key's.
            place = _place(node if isinstance(node, yaml.ScalarNode) else key)
        template = _QUOTED_TEMPLATE.search(problem.message)
        return (template and _template_place(node, template[1])) or place


def read(path: Path) -> list[Document]:
    """The definitions in a file (`-` is standard input's name and not handled here).

    Raises:
        CallerError: The file cannot be read.
        WorkflowFileError: It is not YAML or JSON, or its documents are not objects.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CallerError(f"{path}: {error.strerror or error}") from error
    if len(content) > MAX_BYTES:
        raise CallerError(
            f"{path}: {len(content):,} bytes are more than a workflow file may have ({MAX_BYTES:,})"
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        raise _failed(str(path), Place(line, column), "the text is not UTF-8") from error
    return read_text(text, str(path), is_json=path.suffix.lower() == ".json")


def read_text(
    text: str, file: str, *, is_json: bool = False, aliases: bool = True
) -> list[Document]:
    """The definitions in a text; `file` is what faults call it. Errors as for `read`.

    Where `aliases` is false, YAML's aliases are faults.
    """
    if is_json:
        text = _checked_json(text, file)
    try:
        documents = list(_documents(text, file, aliases))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)
        raise _failed(file, place, _syntax(error)) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        message = f"U+{error.character:04X} may not stand in YAML; write it as an escape"
        raise _failed(file, Place(line, column), message) from error
    except RecursionError as error:
        raise _failed(file, Place(1, 1), "nested too deeply") from error
    if not documents:
        raise _failed(file, Place(1, 1), "the file is empty; a workflow has a name and nodes")
    return documents


class _Loader(yaml.SafeLoader):
    """PyYAML with the scalars of YAML 1.2's core schema instead of those of 1.1."""

    # Without those of 1.1; PyYAML adds to it by copying.
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # as the base class has it


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), _first
    )


def _integer(_: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    bases = {"0o": 8, "0x": 16}
    return int(node.value, bases.get(node.value[:2], 10))


def _float(_: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(node.value)


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)


def _documents(text: str, file: str, aliases: bool) -> Iterator[Document]:
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = cast("yaml.Node", loader.get_node())
            if faults := list(_structural_faults(node, file, set(), [], aliases)):
                raise WorkflowFileError(faults)
            if not isinstance(node, yaml.MappingNode):
                found = "a list" if isinstance(node, yaml.SequenceNode) else "a single value"
                raise _failed(file, _place(node), f"a workflow is a mapping, not {found}")
            yield Document(file, loader.construct_document(node), node)
    finally:
        loader.dispose()


def _structural_faults(
    node: yaml.Node, file: str, seen: set[int], inside: list[yaml.Node], aliases: bool
) -> Iterator[Fault]:
    """What YAML allows and a definition does not: odd or doubled keys, a value inside itself."""
    if any(node is outer for outer in inside):
        yield Fault(file, _place(node), "an alias refers to what it stands in")
        return
    if id(node) in seen:
        if not aliases:
            yield Fault(file, _place(node), "aliases (*name) of this are not accepted")
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        known: dict[str, Place] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                yield Fault(file, _place(key), "a key has to be a string")
            elif key.tag != _MERGE and key.tag != "tag:yaml.org,2002:str":
                text = f"the key {key.value!r} is not a string: put it in quotes"
                yield Fault(file, _place(key), text)
            elif key.value in known:
                text = f"{key.value!r} is given twice, first on line {known[key.value].line}"
                yield Fault(file, _place(key), text)
            else:
                known[key.value] = _place(key)
            yield from _structural_faults(value, file, seen, [*inside, node], aliases)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _structural_faults(value, file, seen, [*inside, node], aliases)


def _checked_json(text: str, file: str) -> str:
    """JSON, checked as such and made readable as YAML, every character in its place."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        message = f"not valid JSON: {error.msg[0].lower()}{error.msg[1:]}"
        raise _failed(file, Place(error.lineno, error.colno), message) from error
    except RecursionError as error:
        raise _failed(file, Place(1, 1), "nested too deeply") from error
    return text.replace("\t", " ")  # in valid JSON a tab only stands between tokens


def _outputs(actions: Actions) -> Outputs:
    def of(agent: str, action: str) -> Mapping[str, Any] | None:
        known = actions.get(agent, {}).get(action)
        return None if known is None else known.output

    return of


def _agent_problems(definition: Mapping[str, Any], actions: Actions) -> Iterator[Problem]:
    """Uses of agents or actions that are not among the known ones, or of inputs they refuse."""
    for path, use in _uses(definition):
        agent, action, inputs = use.get("agent"), use.get("action"), use.get("inputs", {})
        if not isinstance(agent, str):
            continue
        if agent not in actions:
            names = ", ".join(sorted(actions)) or "none"
            message = f"no agent is called {agent!r} (known: {names})"
            yield Problem((*path, "agent"), message)
        elif isinstance(action, str) and action not in actions[agent]:
            names = ", ".join(sorted(actions[agent])) or "none"
            message = f"agent {agent!r} has no action {action!r} (it has: {names})"
            yield Problem((*path, "action"), message)
        elif isinstance(action, str) and isinstance(inputs, dict):
            known, undoes = actions[agent][action], path[-1] == "compensate"
            for problem in use_problems(agent, action, inputs, known, undoes=undoes):
                yield Problem((*path, *problem.path), problem.message)


def _uses(definition: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], dict[str, Any]]]:
    """Whatever may name an agent: nodes, those of onFailure, and what undoes them."""
    for stage in ("nodes", "onFailure"):
        nodes = definition.get(stage)
        for index, node in enumerate(nodes if isinstance(nodes, list) else ()):
            if isinstance(node, dict):
                yield (stage, index), node
                if isinstance(node.get("compensate"), dict):
                    yield (stage, index, "compensate"), node["compensate"]


def _entry(node: yaml.Node, part: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    """The key (or item) and value that one part of a path leads to."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == part or _camel(key.value) == part:
                return key, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None


def _camel(name: object) -> str:
    """`dependsOn` of `depends_on`: a definition may write either."""
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), str(name))


def _template_place(node: yaml.Node, reference: str) -> Place | None:
    """Where a value below the node has this template."""
    wanted = re.compile(r"\{\{\s*" + re.escape(reference) + r"\s*\}\}")
    waiting = [node]
    seen: set[int] = set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            if wanted.search(node.value):
                return _place(node)
        elif isinstance(node, yaml.SequenceNode):
            waiting += reversed(node.value)
        elif isinstance(node, yaml.MappingNode):
            waiting += reversed([value for _, value in node.value])
    return None


def _place(node: yaml.Node) -> Place:
    return Place(node.start_mark.line + 1, node.start_mark.column + 1)


def _syntax(error: yaml.MarkedYAMLError) -> str:
    context = f" ({error.context})" if error.context else ""
    return f"not valid YAML: {error.problem or 'it cannot be read'}{context}"


def _failed(file: str, place: Place, message: str) -> WorkflowFileError:
    return WorkflowFileError([Fault(file, place, message)])
