"""How commands answer: JSON for scripts, tables on a terminal, tab-separated lines in a pipe."""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

STYLES: Final = {
    "SUCCESS": "green",
    "FAILED": "red",
    "TIMED_OUT": "red",
    "CANCELLED": "yellow",
    "RETRYING": "yellow",
    "RUNNING": "cyan",
    "WAITING_APPROVAL": "magenta",
    "critical": "bold red",
    "high": "red",
    "medium": "yellow",
}
_DIFF_STYLES: Final = (
    ("+++", "bold"),
    ("---", "bold"),
    ("@@", "cyan"),
    ("+", "green"),
    ("-", "red"),
)
_WORD: Final = 12
_GAP: Final = 2
_LONGEST: Final = 400


def print_json(value: Any) -> None:
    """One JSON value, readable."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_json_line(value: Any) -> None:
    """One JSON value on one line, at once: for streams."""
    print(json.dumps(value, ensure_ascii=False, separators=(",", ":")), flush=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], none: str) -> None:
    """Rows under a heading; `none` says on a terminal that there are no rows."""
    cells = [[text(value) for value in row] for row in rows]
    if not sys.stdout.isatty():
        for row in ([name.lower() for name in columns], *cells):
            print("\t".join(row))
    elif cells:
        from rich.console import Console

        Console().print(table(columns, cells))
    else:
        print(none)


def print_list(columns: Sequence[str], rows: Iterable[Sequence[object]], none: str) -> None:
    """As `print_table`, but on a terminal each row is one line: what does not fit is cut.

    For lists of things that can be looked at one by one.
    """
    if not sys.stdout.isatty():
        print_table(columns, rows, none)
        return
    from rich.console import Console

    cells = [[text(value) for value in row] for row in rows]
    if not cells:
        print(none)
        return
    console = Console(highlight=False)
    shown = _that_fit(columns, cells, console.width)
    console.width = max(console.width, _widest(columns, cells, 0))
    console.print(_one_line_each(columns[:shown], cells))
    if columns[shown:]:
        print(f"No room for {', '.join(columns[shown:])}: widen the terminal, or ask for --json.")


def _that_fit(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> int:
    """How many columns there is room for, with a word of each at least, and all of the first."""
    needed = _widest(columns, rows, 0)
    for number in range(1, len(columns)):
        needed += _GAP + min(_WORD, _widest(columns, rows, number))
        if needed > width:
            return number
    return len(columns)


def _one_line_each(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    """A rich table; of the first column and of single words nothing is cut."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    for number, name in enumerate(columns):
        whole = number == 0 or _widest(columns, rows, number) <= _WORD
        made.add_column(name, no_wrap=whole)
    for row in rows:
        made.add_row(
            *(
                Text(cell, style=STYLES.get(cell, ""), no_wrap=True, overflow="ellipsis")
                for cell in row[: len(columns)]
            )
        )
    return made


def _widest(columns: Sequence[str], rows: Sequence[Sequence[str]], number: int) -> int:
    """Characters of the longest cell of a column, its name included."""
    return max(len(columns[number]), *(len(row[number]) for row in rows))


def print_diff(diff: str) -> None:
    """A unified diff; on a terminal with its colours."""
    if not sys.stdout.isatty():
        print(diff, end="")
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for line in diff.splitlines():
        style = next((style for start, style in _DIFF_STYLES if line.startswith(start)), "")
        console.print(Text(text(line), style=style), soft_wrap=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Any:
    """A rich table; statuses and severities have their colours."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    cells = [tuple(row) for row in rows]
    for number, name in enumerate(columns):
        # What is copied stays whole, and so do single words; the rest is folded where it is narrow.
        widest = max((len(row[number]) for row in cells), default=0)
        made.add_column(name, overflow="fold", no_wrap=number == 0 or widest <= _WORD)
    for row in cells:
        made.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
    return made


def text(value: object) -> str:
    """A value for people, on one line; control characters of foreign texts do no harm."""
    if value is None:
        return ""
    if isinstance(value, (dict, list)):
        value = json.dumps(value, ensure_ascii=False)
    shown = str(value)
    return shown if shown.isprintable() else "".join(map(_printable, shown))


def short(line: str) -> str:
    """The line, or as much of it as people read."""
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}… (--json shows it all)"


def percent(value: float) -> str:
    """How much is done: `40 %`, `2.5 %`."""
    return f"{round(value, 1):g} %"


def duration(milliseconds: float | None) -> str:
    """A time span as people say it: `38 ms`, `2.41 s`, `3 min 5 s`."""
    if milliseconds is None:
        return ""
    if milliseconds < 1_000:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1_000
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, seconds = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    return f"{minutes // 60} h {minutes % 60} min"


def moment(value: str | None) -> str:
    """A time of an answer (RFC 3339) in the local time zone, to the second."""
    return datetime.fromisoformat(value).astimezone().strftime("%F %T") if value else ""


def recently(value: str | None) -> str:
    """As `moment`; on a terminal only what is to be known: of today the time, else the day too."""
    if not value or not sys.stdout.isatty():
        return moment(value)
    local = datetime.fromisoformat(value).astimezone()
    is_today = local.date() == datetime.now(UTC).astimezone().date()
    return f"{local:%T}" if is_today else f"{local:%d %b %H:%M}"


def date(milliseconds: int) -> str:
    """A time of the log (ms since the epoch) in the local time zone, to the second."""
    return f"{datetime.fromtimestamp(milliseconds / 1_000, UTC).astimezone():%F %T}"


def clock(milliseconds: int) -> str:
    """A time of the log (ms since the epoch) as local time of day."""
    local = datetime.fromtimestamp(milliseconds / 1_000, UTC).astimezone()
    return f"{local:%T}.{local.microsecond // 1_000:03d}"


def _printable(character: str) -> str:
    return (
        character
        if character.isprintable()
        else " "
        if character in "\n\r\t"
        else "\N{REPLACEMENT CHARACTER}"
    )
