"""The steps of one review."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from agents.code_reviewer import TYPES, Issue, Metrics, ReviewInput, ReviewOutput
from agents.code_reviewer.complexity import UnreadableCodeError, is_python, language, measured
from agents.code_reviewer.remark import Measured, Remark
from agents.code_reviewer.ruff_rules import judged
from agents.context import Context
from agents.finding import SEVERITIES
from agents.repository.history import opened
from agents.repository.named import folder_of
from agents.repository.source_tree import MAX_FILE_BYTES, SourceTree
from streams.errors import AgentError

_MAX_WARNINGS: Final = 50

Changed = Mapping[str, frozenset[int] | None]
"""The files that have changed with their new lines; `None` where all are new."""


def reviewed(inputs: ReviewInput, context: Context) -> ReviewOutput:
    """Review the folder. Raises `AgentError`."""
    began = time.monotonic()
    root = folder_of(inputs, context)
    tree = SourceTree(root, inputs.paths)
    texts = {
        file: text
        for file in tree.files
        if language(file) and (text := tree.text(file, MAX_FILE_BYTES)) is not None
    }
    base, changed = None, None
    if inputs.base_revision is not None:
        base, changed = _changed(root, inputs.base_revision, texts)
        texts = {file: text for file, text in texts.items() if file in changed}
    warnings = list(tree.warnings)
    figures = _measured(texts, inputs, context, warnings)
    remarks = list(
        judged(root, [it for it in texts if is_python(it)], inputs.review_type,
               lambda: context.is_cancelled, warnings)
    )  # fmt: skip
    if inputs.review_type in {"all", "quality"}:
        remarks += [remark for each in figures.values() for remark in each.remarks]
    remarks = sorted(
        {it for it in remarks if _is_new(it, changed)},
        key=lambda it: (SEVERITIES.index(it.severity), it.file, it.line, it.rule, it),
    )
    if len(warnings) > _MAX_WARNINGS:
        warnings[_MAX_WARNINGS:] = [f"and {len(warnings) - _MAX_WARNINGS} more"]
    return ReviewOutput(
        issues=tuple(_issue(it) for it in remarks[: inputs.max_issues]),
        omitted_issues=max(0, len(remarks) - inputs.max_issues),
        metrics=_metrics(texts, figures, remarks),
        base=base,
        reviewed_files=len(texts),
        skipped_files=len(tree.skipped),
        warnings=tuple(warnings),
        review_duration_ms=round((time.monotonic() - began) * 1000),
    )


def _changed(root: Path, revision: str, texts: Mapping[str, str]) -> tuple[str, Changed]:
    changed: dict[str, frozenset[int] | None] = {}
    with opened(str(root)) as repository:
        base = repository.commit(revision)
        entries = repository.entries(repository.tree(base))
        for file, text in texts.items():
            content, old = text.encode(), entries.get(file)
            if not repository.is_same(old, content):
                lines = repository.changed_lines(old, content)
                if lines is None or lines:
                    changed[file] = lines
    return base, changed


def _measured(
    texts: Mapping[str, str], inputs: ReviewInput, context: Context, warnings: list[str]
) -> dict[str, Measured]:
    figures: dict[str, Measured] = {}
    for done, (file, text) in enumerate(texts.items()):
        if context.is_cancelled:
            raise AgentError("the review was called off")
        context.report_progress(100 * done / len(texts), f"measuring {file}")
        try:
            figures[file] = measured(file, text, inputs.complexity_limit)
        except UnreadableCodeError as error:
            warnings.append(f"{file}: {error}")
    return figures


def _is_new(remark: Remark, changed: Changed | None) -> bool:
    if changed is None:
        return True
    lines = changed.get(remark.file, frozenset())
    return lines is None or any(remark.line <= line <= remark.last for line in lines)


def _issue(remark: Remark) -> Issue:
    return Issue(
        type=remark.type,
        severity=remark.severity,
        file=remark.file,
        line=remark.line,
        description=remark.description,
        suggestion=remark.suggestion,
        rule=remark.rule,
    )


def _metrics(
    texts: Mapping[str, str], figures: Mapping[str, Measured], remarks: Iterable[Remark]
) -> Metrics:
    complexities = [it for each in figures.values() for it in each.complexities]
    indexes = [it.maintainability for it in figures.values() if it.maintainability is not None]
    lines: Counter[str] = Counter()
    for file, text in texts.items():
        lines[language(file) or "other"] += len(text.splitlines())
    types = Counter(remark.type for remark in remarks)
    return Metrics(
        avg_complexity=round(sum(complexities) / len(complexities), 2) if complexities else 0.0,
        max_complexity=max(complexities, default=0),
        total_lines=lines.total(),
        code_lines=sum(each.code_lines for each in figures.values()),
        functions=len(complexities),
        avg_maintainability=round(sum(indexes) / len(indexes), 1) if indexes else None,
        issues={type_: types[type_] for type_ in TYPES},
        languages=dict(lines.most_common()),
    )
