"""Signals between an action at work and its worker: progress, and the order to end.

An action has these through its `Context`. Telling progress may be done in any thread; everything
else belongs to the worker's loop.
"""

import asyncio
from collections.abc import Callable
from typing import Final

_MESSAGE_LENGTH: Final = 500

Progress = tuple[float | None, str]
"""Percent (0 to 100, None: unknown) and message."""


class Signals:
    """The signals of one attempt; `told` is called, in whatever thread, when there is progress.

    `progress` is the newest that was told. `reason` says why the attempt is to end; None while it
    is not.
    """

    __slots__ = ("_cancelled", "_told", "progress", "reason")

    def __init__(self, told: Callable[[], None] | None = None) -> None:
        self._told = told
        self._cancelled: asyncio.Event | None = None
        self.progress: Progress = (None, "")
        self.reason: str | None = None

    def tell(self, percent: float | None, message: str) -> None:
        """Tell how far the work is; a percentage beyond 0 to 100 becomes the nearest of these."""
        within = None if percent is None else min(100.0, max(0.0, float(percent)))
        text = message[:_MESSAGE_LENGTH].encode(errors="replace").decode()
        self.progress = (within, text)
        if self._told is not None:
            self._told()

    def cancel(self, reason: str) -> None:
        """Tell the action that its result is not wanted any more; the first reason counts."""
        if self.reason is None:
            self.reason = reason
        if self._cancelled is not None:
            self._cancelled.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether the action has been told to end."""
        return self.reason is not None

    @property
    def cancelled(self) -> asyncio.Event:
        """Set when the action is told to end; made for the few that wait for it."""
        if self._cancelled is None:
            self._cancelled = asyncio.Event()
            if self.is_cancelled:
                self._cancelled.set()
        return self._cancelled

    def __repr__(self) -> str:
        return f"Signals(progress={self.progress!r}, reason={self.reason!r})"
