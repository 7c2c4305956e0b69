"""The steps from a folder to a diagram."""

import posixpath
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

from agents.architecture_diagrammer import (
    Counts,
    DiagramInput,
    DiagramOutput,
    Import,
    Level,
    Node,
)
from agents.architecture_diagrammer.mermaid import MAX_TEXT, flowchart
from agents.architecture_diagrammer.modules import Modules
from agents.architecture_diagrammer.source import MAX_FILE_BYTES, Source, language, read
from agents.context import Context
from agents.repository.git import asked
from agents.repository.named import folder_of
from agents.repository.source_tree import SourceTree
from streams.errors import AgentError

_MAX_WARNINGS: Final = 50
_MAX_EXTERNAL: Final = 50
_MANIFESTS: Final = frozenset({"go.mod", "package.json"})
_FORGES: Final = {
    "github.com": "blob", "gitlab.com": "-/blob", "bitbucket.org": "src",
}  # fmt: skip

Edges = Counter[tuple[str, str]]


def drawn(inputs: DiagramInput, context: Context) -> DiagramOutput:
    """Draw the folder. Raises `AgentError`."""
    root = folder_of(inputs, context)
    tree = SourceTree(root, inputs.paths)
    warnings = list(tree.warnings)
    sources = _sources(tree, context, warnings)
    scanned, skipped = len(sources), len(tree.skipped)
    manifests = {
        file: text
        for file in tree.files
        if posixpath.basename(file) in _MANIFESTS
        and (text := tree.text(file, MAX_FILE_BYTES)) is not None
    }
    modules = Modules(sources, manifests)
    languages = {modules.of(source): source.language for source in sources}
    edges, external = _edges(modules, sources)
    level, languages, edges = _at_level(inputs, languages, edges)
    base = inputs.link_base or _link_base(root)
    if len(warnings) > _MAX_WARNINGS:
        warnings[_MAX_WARNINGS:] = [f"and {len(warnings) - _MAX_WARNINGS} more"]
    most_nodes, most_edges = inputs.max_nodes, inputs.max_edges
    while True:
        nodes, imports = _chosen(languages, edges, most_nodes, most_edges, base)
        left = Counts(modules=len(languages) - len(nodes), imports=len(edges) - len(imports))
        text = flowchart(nodes, imports, _cut(left, level))
        if len(text) <= MAX_TEXT or most_nodes <= 1:
            break
        most_nodes, most_edges = max(1, most_nodes * 3 // 4), max(1, most_edges * 3 // 4)
    return DiagramOutput(
        mermaid=text,
        level=level,
        nodes=nodes,
        imports=imports,
        total=Counts(modules=len(languages), imports=len(edges)),
        omitted=left,
        external=dict(sorted(external.items(), key=lambda it: (-it[1], it[0]))[:_MAX_EXTERNAL]),
        scanned_files=scanned,
        skipped_files=skipped,
        warnings=tuple(warnings),
    )


def _sources(tree: SourceTree, context: Context, warnings: list[str]) -> list[Source]:
    files = [file for file in tree.files if language(file)]
    sources = []
    for done, file in enumerate(files):
        if context.is_cancelled:
            raise AgentError("the drawing was called off")
        context.report_progress(100 * done / len(files), f"reading {file}")
        text = tree.text(file, MAX_FILE_BYTES)
        if text is not None:
            source = read(file, text)
            sources.append(source)
            if not source.is_whole:
                warnings.append(f"{file}: not all of it could be read as {source.language}")
    return sources


def _edges(modules: Modules, sources: list[Source]) -> tuple[Edges, Counter[str]]:
    edges: Edges = Counter()
    external: Counter[str] = Counter()
    for source in sources:
        own = modules.of(source)
        found = set(modules.imported(source))
        edges.update((own, other) for other, _ in found if other is not None and other != own)
        external.update({name for other, name in found if other is None and name})
    return edges, external


def _at_level(
    inputs: DiagramInput, languages: dict[str, str], edges: Edges
) -> tuple[Level, dict[str, str], Edges]:
    """The graph of modules, or of folders as deep as there is room for."""
    if inputs.level == "module" or (inputs.level == "auto" and len(languages) <= inputs.max_nodes):
        return "module", languages, edges
    deepest = max((it.count("/") for it in languages), default=0)
    folders = {it: it for it in languages}
    for depth in range(max(deepest, 1), 0, -1):
        folders = {it: _folder(it, languages[it], depth) for it in languages}
        if len(set(folders.values())) <= inputs.max_nodes:
            break
    of_folders: Edges = Counter()
    for (one, other), count in edges.items():
        if folders[one] != folders[other]:
            of_folders[folders[one], folders[other]] += count
    by_folder: dict[str, Counter[str]] = {}
    for module, folder in folders.items():
        by_folder.setdefault(folder, Counter())[languages[module]] += 1
    spoken = {it: ", ".join(name for name, _ in by_folder[it].most_common()) for it in by_folder}
    return "folder", spoken, of_folders


def _folder(module: str, spoken: str, depth: int) -> str:
    folder = module if spoken == "Go" else posixpath.dirname(module)
    return "/".join(folder.split("/")[:depth]) or "."


def _chosen(
    languages: Mapping[str, str], edges: Edges, most_nodes: int, most_edges: int, base: str
) -> tuple[tuple[Node, ...], tuple[Import, ...]]:
    """The most connected nodes, and the heaviest edges between them."""
    weight: Counter[str] = Counter()
    for (one, other), count in edges.items():
        weight[one] += count
        weight[other] += count
    kept = sorted(sorted(languages, key=lambda it: (-weight[it], it))[:most_nodes])
    ids = {module: f"n{number}" for number, module in enumerate(kept)}
    inner = [pair for pair in edges if pair[0] in ids and pair[1] in ids]
    heaviest = sorted(inner, key=lambda it: (-edges[it], it))[:most_edges]
    nodes = tuple(
        Node(
            id=ids[module],
            name=posixpath.basename(module) or module,
            group=posixpath.dirname(module) or ".",
            language=languages[module],
            link=base + quote(module if module != "." else "", safe="/") or "./",
        )
        for module in sorted(kept, key=lambda it: (posixpath.dirname(it), it))
    )
    imports = tuple(
        Import(source=ids[one], target=ids[other], count=edges[one, other])
        for one, other in sorted(heaviest)
    )
    return nodes, imports


def _cut(left: Counts, level: Level) -> str:
    if not (left.modules or left.imports):
        return ""
    return f"not drawn: {left.modules} {level}s and {left.imports} imports"


def _link_base(root: Path) -> str:
    """The page of the repository's files at its forge; empty where it has none that is known."""
    told = asked(root, "config", "--get", "remote.origin.url")
    commit = asked(root, "rev-parse", "HEAD")
    if not told or not commit:
        return ""
    if "://" not in told:  # git@host:owner/name
        host, _, path = told.rpartition("@")[2].partition(":")
    else:
        split = urlsplit(told)
        host, path = split.hostname or "", split.path
    if host not in _FORGES:
        return ""
    name = quote(path.strip("/").removesuffix(".git"), safe="/")
    prefix = quote(asked(root, "rev-parse", "--show-prefix"), safe="/")
    return f"https://{host}/{name}/{_FORGES[host]}/{commit}/{prefix}"
