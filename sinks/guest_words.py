"""What a guest's text may call, told from its words alone.

The parser knows many functions under other names, or takes them for something else; here every
word that stands where ClickHouse would look for a function is held against the allow-list.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from typing import Final

import sqlglot
from sqlglot import Token, TokenType
from sqlglot.errors import SqlglotError

from sinks import guest_pieces

TABLE_FUNCTIONS: Final = frozenset({"numbers", "generateseries", "generate_series"})

# What may stand before a parenthesis without being called. VALUES is not there: as a table it gets
# a text with columns, whose defaults may be any expressions.
_KEYWORDS: Final = frozenset(
    {
        "all", "and", "any", "anti", "apply", "array", "as", "asc", "asof", "between", "by",
        "case", "columns", "cube", "desc", "distinct", "else", "end", "except", "exists", "fill",
        "filter", "from", "full", "global", "group", "grouping", "having", "ilike", "in", "inner",
        "intersect", "interval", "into", "is", "join", "left", "like", "limit", "not", "offset",
        "on", "or", "order", "outer", "over", "partition", "prewhere", "qualify", "recursive",
        "replace", "right", "rollup", "sample", "select", "semi", "sets", "settings", "step",
        "then", "ties", "to", "totals", "union", "using", "when", "where", "window",
        "with", "within", "xor", "interpolate", "regexp", "null", "true", "false",
    }
)  # fmt: skip
_NO_CALLS: Final = _KEYWORDS - {"apply", "columns"}
_COMBINATORS: Final = re.compile(
    r"(?:if|array|map|foreach|distinct|ordefault|ornull|resample|argmin|argmax|tuple)$"
)
# Their first argument is a function: written out, or named.
_HIGHER: Final = re.compile(
    r"array(map|filter|fill|reversefill|split|reversesplit|exists|all|count|first\w*|last\w*|min|max"
    r"|sum|avg|product|cumsum\w*|sort|reversesort|partialsort|partialreversesort|fold"
    r"|topk|bottomk|difference|compact)|map(apply|filter|exists|all|sort|reversesort|partial\w*)"
)
# Which of their arguments names a type: a text that the engine reads like the query itself.
_TYPED: Final = {
    "cast": 1, "accuratecast": 1, "accuratecastornull": 1, "accuratecastordefault": 1,
    "reinterpret": 1, "kqlparametercast": 1, "defaultvalueoftypename": 0,
}  # fmt: skip
# Their first argument is the text of an aggregate. The engine evaluates what stands there as an
# argument, whatever it is: only numbers and texts may.
_AGGREGATE_TEXTS: Final = frozenset({"arrayreduce", "arrayreduceinranges"})
_AGGREGATE: Final = re.compile(r"(\w+)(?:\((?:[\d\s.,+-]|'[^'\\]*')*\))?", re.ASCII)
_DEPTH: Final = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}
# Functions that some place calls by their bare name.
_NEVER_NAMED: Final = re.compile(
    r"current_?user|current(handler|requesturl)|session_user|file|sleep|sleepeachrow|hostname"
    r"|getsetting"
)
# ClickHouse takes these for quotes in some places.
_LOOK_ALIKE: Final = re.compile("[\u2018\u2019\u201c\u201d\u2212\0]")
_COMMENT: Final = re.compile(r"/\*|--|//|#")


def unlike(sql: str, tokens: Sequence[Token]) -> Iterator[str]:
    """What the engine and the parser would read differently: then the rest says nothing."""
    for token in tokens:
        if token.token_type is TokenType.IDENTIFIER and (found := _LOOK_ALIKE.search(token.text)):
            yield f"The character {found[0]!r} can only stand in a text."
    yield from guest_pieces.problems(sql, tokens)


def problems(tokens: Sequence[Token], named: set[str]) -> Iterator[str]:
    """What is in the way of a text; `named` are the names that it gives by itself (WITH)."""
    for place, token in enumerate(tokens):
        if token.token_type in guest_pieces.TEXTS:
            continue
        # Behind these the parser takes the rest of a statement for one text.
        if token.token_type is TokenType.BEGIN and place + 1 < len(tokens):
            yield f"The word {token.text} cannot stand there; as a name put it into backticks."
        name = token.text.lower()
        after = _text(tokens, place + 1)
        if name == "apply" and token.token_type is not TokenType.IDENTIFIER:
            yield from _named_function(tokens, place + 1, "APPLY")
        if not _is_name(token):
            continue
        if after == "(":
            if not _may_be_called(name, token, named):
                yield f"The function {token.text} cannot be used here."
            if _HIGHER.fullmatch(name):
                yield from _named_function(tokens, place + 1, token.text)
            if name in _TYPED and not _has_plain_type(tokens, place + 1, _TYPED[name]):
                yield f"{token.text} needs a type that is written out, such as 'Array(String)'."
            if name in _AGGREGATE_TEXTS and not _has_plain_aggregate(tokens, place + 1):
                yield f"{token.text} needs an aggregate that is written out, such as 'sum'."
        elif _NEVER_NAMED.fullmatch(name) and _text(tokens, place - 1) != ".":
            yield f"The function {token.text} cannot be used here; a name has to be another one."


def called(tokens: Sequence[Token], named: set[str]) -> frozenset[str]:
    """The names that a text defines and calls, in lower case."""
    return frozenset(
        token.text.lower()
        for place, token in enumerate(tokens)
        if _is_name(token)
        and token.text in named
        and _text(tokens, place + 1) == "("
        and not _may_be_called(token.text.lower(), token, set())
    )


def defines_lambdas(tokens: Sequence[Token]) -> bool:
    """Whether there is a lambda that may get a name: it is no argument of a call, or has AS."""
    is_call, is_lambda = [False], [False]
    for place in range(len(tokens)):
        word = _text(tokens, place)
        if word in ("(", "[", "{"):
            before = _text(tokens, place - 1)
            is_call.append(place > 0 and _is_name(tokens[place - 1]) and before not in _NO_CALLS)
            is_lambda.append(False)
        elif word in (")", "]", "}") and len(is_call) > 1:
            is_call.pop()
            is_lambda.pop()
        elif word == ",":
            is_lambda[-1] = False
        elif word == "->":
            is_lambda[-1] = True
        if is_lambda[-1] and (not is_call[-1] or word == "as"):
            return True
    return False


def _may_be_called(name: str, token: Token, named: set[str]) -> bool:
    if token.token_type is not TokenType.IDENTIFIER and name in _KEYWORDS:
        return True
    if name in TABLE_FUNCTIONS or name in _words("types") or token.text in named:
        return True
    return _is_function(name)


def _is_function(name: str) -> bool:
    while name not in _words("functions"):
        shorter = _COMBINATORS.sub("", name)
        if shorter == name:
            return False
        name = shorter
    return True


def _named_function(tokens: Sequence[Token], place: int, caller: str) -> Iterator[str]:
    """A function that is handed over by its name has to be one that may be called."""
    opened = place
    while _text(tokens, place) == "(":
        place += 1
    if place >= len(tokens) or not _is_name(tokens[place]):
        return
    name, after = tokens[place].text, _text(tokens, place + 1)
    if place > opened + 1 and _text(tokens, _closing(tokens, opened + 1)) == "->":
        return  # the names of a lambda: (x, y) -> …
    if after in ("->", "(", ".", "[") or (
        after == ")" and caller != "APPLY" and place == opened + 1
    ):
        return
    if after in (",", ")", "as") or _is_name_at(tokens, place + 1):
        if name.lower() not in _words("functions"):
            yield f"{caller} cannot be given {name}: write a lambda, such as x -> x + 1."
    elif caller == "APPLY" and name.lower() not in _words("functions"):
        yield f"{caller} cannot be given {name}: write a lambda, such as x -> x + 1."


def _has_plain_type(tokens: Sequence[Token], opened: int, number: int) -> bool:
    """Whether an argument is the text of a type that may be named; with AS the type is no text."""
    arguments = _arguments(tokens, opened)
    if number >= len(arguments):
        return True  # CAST(x AS Type), where the words of the type are looked at like all others
    match arguments[number]:
        case [Token(token_type=TokenType.STRING, text=text)] if "\\" not in text:
            return _is_plain_type(text)
        case _:
            return False


def _is_plain_type(text: str) -> bool:
    try:  # The engine passes over comments in it, as in the query.
        words = sqlglot.tokenize(text, dialect="clickhouse")
    except SqlglotError:
        return False
    if _COMMENT.search(text) or any(guest_pieces.problems(text, words)):
        return False
    return all(
        words[place].text.lower() in _words("types")
        for place in range(len(words))
        if _text(words, place + 1) == "("
    )


def _has_plain_aggregate(tokens: Sequence[Token], opened: int) -> bool:
    match _arguments(tokens, opened)[0]:
        case [Token(token_type=TokenType.STRING, text=text)]:
            found = _AGGREGATE.fullmatch(text)
            return found is not None and _is_function(found[1].lower())
        case _:
            return False


def _arguments(tokens: Sequence[Token], opened: int) -> list[list[Token]]:
    """The words of each argument between the parenthesis at a place and the one that closes it."""
    arguments: list[list[Token]] = [[]]
    depth = 0
    for token in tokens[opened + 1 : _closing(tokens, opened) - 1]:
        # Letter by letter: the parser has words such as `{{`.
        depth += sum(_DEPTH.get(letter, 0) for letter in _text([token], 0))
        if depth == 0 and _text([token], 0) == ",":
            arguments.append([])
        else:
            arguments[-1].append(token)
    return arguments


def _closing(tokens: Sequence[Token], place: int) -> int:
    """The place behind the parenthesis that closes the one at `place`."""
    depth = 0
    for at in range(place, len(tokens)):
        depth += {"(": 1, ")": -1}.get(_text(tokens, at), 0)
        if depth == 0:
            return at + 1
    return len(tokens)


def _text(tokens: Sequence[Token], place: int) -> str:
    if not 0 <= place < len(tokens) or tokens[place].token_type in guest_pieces.QUOTED:
        return ""
    return tokens[place].text.lower()


def _is_name(token: Token) -> bool:
    return token.token_type is TokenType.IDENTIFIER or bool(
        re.fullmatch(r"\w+", token.text) and not token.text[0].isdigit()
    )


def _is_name_at(tokens: Sequence[Token], place: int) -> bool:
    return place < len(tokens) and _is_name(tokens[place])


@cache
def _words(kind: str) -> frozenset[str]:
    text = (files("sinks") / "sql" / f"guest_{kind}.txt").read_text(encoding="utf-8")
    return frozenset(line for line in text.splitlines() if line and not line.startswith("#"))
