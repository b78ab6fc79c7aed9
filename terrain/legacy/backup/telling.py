"""Where a run says what it does."""

from __future__ import annotations


class Teller:
    """Told what happens; this one keeps it to itself."""

    def say(self, text: str) -> None:
        """A line for people."""

    def progress(self, what: str, done: int, total: int | None, unit: str) -> None:
        """How far something is, every now and then: ``unit`` is ``B`` or ``rows``."""
