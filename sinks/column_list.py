"""The lists of columns in docs/sql.md: what the schema says of every public table.

python -m sinks.column_list docs/sql.md     # what `make docs` does
"""

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Final

from sinks import schema
from sinks.clickhouse import open_store
from sinks.guest_catalogue import PUBLIC_TABLES
from sinks.store import Store
from streams.errors import CallerError

BEGIN: Final = "<!-- columns -->\n"
END: Final = "<!-- end of columns -->"


async def markdown(store: Store) -> str:
    """A heading, a sentence and a table for each public table of a store with the schema."""
    lines: list[str] = []
    for table in sorted(PUBLIC_TABLES):
        about = await store.query_readonly(
            "SELECT comment FROM system.tables WHERE name = {t:String}", {"t": table}
        )
        lines += [f"### `{table}`", "", f"{about.rows[0][0]}.", ""]
        lines += ["| column | type | what it is |", "|---|---|---|"]
        lines += [
            f"| `{row['name']}` | {row['type']} | {row['comment']} |"
            for row in (await store.query_readonly(f"DESCRIBE {table}")).dicts()
        ]
        lines.append("")
    return "\n".join(lines)


def replaced(text: str, listed: str) -> str:
    """The document with this list between its marks.

    Raises:
        CallerError: It has no such marks.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise CallerError(f"the document has no {BEGIN.strip()} and {END} behind it")
    return before + begin + listed + end + after


async def _of_the_schema() -> str:
    with tempfile.TemporaryDirectory(prefix="columns-") as folder:
        store = await open_store(f"chdb://{folder}/store")
        try:
            await schema.apply(store)
            return await markdown(store)
        finally:
            await store.close()


if __name__ == "__main__":
    document = Path(sys.argv[1])
    listed = asyncio.run(_of_the_schema())
    document.write_text(replaced(document.read_text("utf-8"), listed), "utf-8")
