"""The budgets: a view of the compacted `budgets` topic. The newest record of a name counts."""

from typing import Any, Self

import structlog

from streams import codec
from streams.budget import Budget
from streams.compacted_reader import CompactedReader
from streams.errors import NotFoundError, UnreadableRecordError
from streams.topics import BUDGETS

_log = structlog.get_logger(__name__)


def budget_key(project: str, name: str) -> str:
    """The key of a budget's records."""
    return f"{project}/{name}"


class BudgetReader:
    """The budgets, kept current; an async context manager."""

    def __init__(self, bootstrap: str) -> None:
        self._budgets: dict[str, Budget] = {}
        self._reader = CompactedReader(bootstrap, BUDGETS, self._read)

    async def __aenter__(self) -> Self:
        await self._reader.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._reader.__aexit__(*error)

    @property
    def trouble(self) -> str:
        """Why the view may be out of date; empty while all is well."""
        return self._reader.trouble

    async def caught_up(self) -> None:
        """Wait until every budget set so far has been read."""
        await self._reader.caught_up()

    def apply(self, key: bytes | None, value: bytes | None) -> None:
        """Take in a record; one without a value takes the budget away."""
        name = (key or b"").decode(errors="replace")
        if value is None:
            self._budgets.pop(name, None)
        else:
            self._budgets[name] = codec.budgets.decode(value)

    def all(self, project: str | None = None) -> list[Budget]:
        """Every budget, or those of a project, by project and name."""
        found = [each for each in self._budgets.values() if project in (None, each.project)]
        return sorted(found, key=lambda each: (each.project, each.name))

    def get(self, project: str, name: str) -> Budget:
        """One budget; `NotFoundError` names those that there are."""
        found = self._budgets.get(budget_key(project, name))
        if found is None:
            names = ", ".join(each.name for each in self.all(project)) or "none"
            raise NotFoundError(
                f"there is no budget {name!r} in project {project!r} (budgets: {names})"
            )
        return found

    def _read(self, record: Any) -> None:
        try:
            self.apply(record.key, record.value)
        except UnreadableRecordError as error:
            _log.error("a budget cannot be read", offset=record.offset, why=str(error))
