"""Where a run says what it does."""

from __future__ import annotations

import time
from collections.abc import Callable

from terrain import progress
from terrain.progress import Progress


class Teller:
    """Told what happens: passes on lines to ``say``, and how far things are to who shows it."""

    def __init__(self, say: Callable[[str], None] | None = None) -> None:
        self._say = say
        self._what = ""
        self._began = 0.0

    def say(self, text: str) -> None:
        """A line for people."""
        self._what = ""
        progress.make_way()
        if self._say is not None:
            self._say(text)

    def progress(self, what: str, done: int, total: int | None, unit: str) -> None:
        """How far something is, every now and then: ``unit`` is ``B`` or ``rows``.

        A total in bytes is an estimate.
        """
        now = time.monotonic()
        if what != self._what:
            self._what, self._began = what, now
        progress.report(Progress(what, done, total, now - self._began, unit=unit))


class Every:
    """Whether so many seconds have passed since this was last so; at first it is."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = 0.0

    def is_due(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True
