"""Where ClickHouse sees texts, names in quotes and comments; the parser has to see the same.

What only one of them takes for a text or a comment, the other reads as SQL: then whatever is told
from the parser's words says nothing about what the engine runs.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from sqlglot import Token, TokenType

TEXTS: Final = frozenset({TokenType.STRING, TokenType.HEREDOC_STRING})
QUOTED: Final = TEXTS | {TokenType.IDENTIFIER}

# Some of these ClickHouse takes for quotes, for a minus or for a blank, and the parser for a part
# of a name. The blanks among them that both know are left out.
_STRANGE: Final = re.compile(
    r"[^\t-\r -~\x85\xa0\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]|[\ufeff\0]"
)
_PIECE: Final = re.compile(
    r"""
    (?P<blank>\s+)
    | (?P<comment>--[^\n]*+ | \#[ !][^\n]*+ | /\*.*?\*/)
    | (?P<quoted>'(?:[^'\\]|\\.|'')*+' | `(?:[^`\\]|\\.|``)*+` | "(?:[^"\\]|\\.|"")*+"
        | (?<![\w$])(?P<tag>\$[^$]*\$).*?(?P=tag))
    | (?P<word>\w+)
    | (?P<other>[^'`"$])
    """,
    re.DOTALL | re.VERBOSE,
)
_UNCLEAR: Final = {
    "//": "// is a comment to some: write -- before a comment.",
    "{#": "{# can only stand in a text.",
}


class _Piece(NamedTuple):
    kind: str
    start: int
    end: int


def problems(sql: str, tokens: Sequence[Token]) -> Iterator[str]:
    """What is unclear in a text that the parser has split into these words."""
    covered = bytearray(len(sql))
    quoted: set[tuple[int, int]] = set()
    for token in tokens:
        covered[token.start : token.end + 1] = b"\1" * (token.end + 1 - token.start)
        if token.token_type in QUOTED:
            quoted.add((token.start, token.end + 1))
    place = 0
    for piece in _pieces(sql):
        place = piece.end
        yield from _differences(sql, piece, covered, quoted)
    if place < len(sql):
        found = sql[place : place + 20]
        yield f"{found!r} is not clear: a quote without an end, or a $ in a name."
    if quoted:
        start = min(quoted)[0]
        yield f"The query is not clear at {sql[start : start + 20]!r}."


def _differences(
    sql: str, piece: _Piece, covered: bytearray, quoted: set[tuple[int, int]]
) -> Iterator[str]:
    kind, start, end = piece
    if kind in ("word", "other") and (found := _STRANGE.search(sql, start, end)):
        yield f"The character {found[0]!r} can only stand in a text, or in a name in quotes."
    if kind == "other" and (why := _UNCLEAR.get(sql[start : start + 2])):
        yield why
    span = (start, end)
    same = {
        "blank": True,
        "comment": not any(covered[start:end]),
        "quoted": span in quoted,
    }.get(kind, all(covered[start:end]))
    quoted.discard(span)
    if not same:
        yield f"The query is not clear at {sql[start : start + 20]!r}."


def _pieces(sql: str) -> Iterator[_Piece]:
    place = 0
    while found := _PIECE.match(sql, place):
        yield _Piece(found.lastgroup or "", *found.span())
        place = found.end()
