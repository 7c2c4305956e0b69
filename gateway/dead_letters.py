"""Dead letters: what could not be processed, sent back to where it came from, or set aside."""

import asyncio
import base64
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import web

from gateway.problem import ConflictError
from gateway.requests import answer, choice, json_object, page_size
from gateway.services import LETTERS, SERVICES, WRITER
from gateway.views import DeadLetterList, DeadLetterView, HeaderView, moment
from streams import codec, letters
from streams.errors import CallerError, NotFoundError
from streams.letters import AlreadyClosedError, Entry, LetterId, LetterState, Purged, Replayed
from streams.messages import DeadLetter
from streams.topics import DEAD_LETTERS

_BUSY: Final = web.AppKey("busy", asyncio.Lock)
"""One replay or purge at a time: each looks first at what became of the letter."""


def prepare(app: web.Application) -> None:
    """Put in what these routes need."""
    app[_BUSY] = asyncio.Lock()


async def list_dead_letters(request: web.Request) -> web.Response:
    """Dead letters, the newest first; large originals are left out.

    `since` is a time (RFC 3339); `error` is the class of the error.
    """
    limit = page_size(request)
    wanted = {name: request.query.get(name) for name in ("topic", "error")}
    state = choice(request, "state", LetterState)
    since = _since(request.query.get("since"))
    after = _cursor(request.query.get("cursor"))
    reader = request.app[LETTERS]
    await reader.caught_up()
    found = reader.book.newest(**wanted, state=state, since=since)
    still_open = sum(entry.state is LetterState.OPEN for entry in found)
    if after is not None:
        found = [entry for entry in found if letters.sort_key(entry) < after]
    page = found[:limit]
    more = _cursor_of(page[-1]) if len(found) > limit else None
    views = [_view(entry, entry.letter) for entry in page]
    return answer(DeadLetterList(dead_letters=views, open=still_open, next=more))


async def get_dead_letter(request: web.Request) -> web.Response:
    """A dead letter with all of the original."""
    reader = request.app[LETTERS]
    await reader.caught_up()
    entry = reader.book.get(request.match_info["id"])
    return answer(_view(entry, await reader.whole(entry)))


async def replay_dead_letter(request: web.Request) -> web.Response:
    """Send the original back to the partition that it came from; 409 where that was done before.

    The body may have `again` (true: nevertheless) and `requestedBy`.
    """
    given = await _body(request, again=bool, requestedBy=str)
    app = request.app
    reader, writer = app[LETTERS], app[WRITER]
    async with app[_BUSY]:
        await reader.caught_up()
        entry = reader.book.get(request.match_info["id"])
        try:
            letters.check_replay(entry, again=given.get("again", False))
        except AlreadyClosedError as error:
            raise ConflictError(str(error)) from error
        letter = await reader.whole(entry)
        # The original first: where we are killed in between it may go twice, but is never lost.
        place = await writer.put(
            letter.topic,
            letter.partition,
            letter.key,
            letter.value,
            letters.replay_headers(entry, letter),
        )
        record = Replayed(
            letter=str(entry.id),
            at=_now(app),
            topic=place.topic,
            partition=place.partition,
            offset=place.offset,
            by=given.get("requestedBy", ""),
        )
        return answer(await _close(app, entry, record), 202)


async def purge_dead_letter(request: web.Request) -> web.Response:
    """Say that a letter needs no more attention, and why; 409 where it is not open.

    The body has `reason`, and may have `purgedBy`. The letter stays on its topic.
    """
    given = await _body(request, reason=str, purgedBy=str)
    reason = given.get("reason", "").strip()
    if not reason:
        raise CallerError("'reason' is missing: say why the letter needs no more attention")
    app = request.app
    async with app[_BUSY]:
        await app[LETTERS].caught_up()
        entry = app[LETTERS].book.get(request.match_info["id"])
        try:
            letters.check_purge(entry)
        except AlreadyClosedError as error:
            raise ConflictError(str(error)) from error
        by = given.get("purgedBy", "")
        record = Purged(letter=str(entry.id), at=_now(app), reason=reason, by=by)
        return answer(await _close(app, entry, record))


async def _close(app: web.Application, entry: Entry, record: Replayed | Purged) -> DeadLetterView:
    """Write what became of a letter, and show it as every reader sees it now."""
    key = str(entry.id).encode()
    await app[WRITER].put(DEAD_LETTERS, entry.id.partition, key, codec.encode(record))
    await app[LETTERS].caught_up()
    entry = app[LETTERS].book.get(str(entry.id))
    return _view(entry, entry.letter)


def _now(app: web.Application) -> int:
    return int(app[SERVICES].clock() * 1000)


async def _body(request: web.Request, **fields: type) -> dict[str, Any]:
    """The body's fields, each of its type; others are refused."""
    given = await json_object(request)
    for name, value in given.items():
        if name not in fields:
            raise CallerError(f"unknown field {name!r} (there are: {', '.join(fields)})")
        if not isinstance(value, fields[name]):
            kind = {bool: "true or false", str: "a text"}[fields[name]]
            raise CallerError(f"{name!r} must be {kind}")
    return given


def _since(text: str | None) -> int:
    if text is None:
        return 0
    try:
        since = datetime.fromisoformat(text)
    except ValueError as error:
        raise CallerError(f"since={text!r} is not a time such as 2030-01-31T12:00:00Z") from error
    return int((since if since.tzinfo else since.replace(tzinfo=UTC)).timestamp() * 1000)


def _cursor_of(entry: Entry) -> str:
    text = f"{entry.letter.at}-{entry.id}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _cursor(text: str | None) -> tuple[int, LetterId] | None:
    if text is None:
        return None
    try:
        plain = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
        at, _, letter = plain.partition("-")
        return int(at), LetterId.parse(letter)
    except (ValueError, NotFoundError) as error:
        raise CallerError(f"cursor={text[:50]!r} is none of this list") from error


def _view(entry: Entry, letter: DeadLetter) -> DeadLetterView:
    last = entry.last
    return DeadLetterView(
        id=str(entry.id),
        state=entry.state,
        topic=letter.topic,
        partition=letter.partition,
        offset=letter.offset,
        at=moment(letter.at),
        error=letter.error,
        reason=letter.reason,
        worker=letter.worker,
        attempts=letter.attempts,
        replays=entry.replays,
        replayed_to=(
            f"{last.topic}/{last.partition}/{last.offset}" if isinstance(last, Replayed) else None
        ),
        purge_reason=last.reason if isinstance(last, Purged) else None,
        closed_at=None if last is None else moment(last.at),
        closed_by=None if last is None else last.by,
        key=_text(letter.key),
        key_bytes=letter.key,
        value=letter.value,
        value_text=_text(letter.value),
        headers={name: (value or b"").decode(errors="replace") for name, value in letter.headers},
        all_headers=tuple(HeaderView(name=name, value=value) for name, value in letter.headers),
        complete=letter is not entry.letter or entry.whole,
    )


def _text(content: bytes | None) -> str | None:
    """The bytes as text, if they are."""
    if content is None:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None
