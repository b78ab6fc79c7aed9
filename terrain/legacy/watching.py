"""``settle --watch``: settles beside the old application, for as long as there is one.

Nothing that somebody else has locked may end it, or hold up the rest: it is said, left
for later, and tried again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from django.db import ProgrammingError
from django.db.backends.base.base import BaseDatabaseWrapper

from terrain.legacy import closing, settling
from terrain.legacy.settling import Blocked, Settled

#: Seconds between two looks at the queue, two tries of a merge that somebody was in the
#: way of, and two looks at everything: repeated ids, held rows, what a kill has left undone.
INTERVAL, AGAIN, EVERYTHING = 1.0, 10.0, 300.0
#: Seconds something is tried for before the rest goes on.
PATIENCE = 1.0


@dataclass
class Watch:
    """What is due when; ``say`` hears of who is in the way, ``clock`` counts seconds."""

    connection: BaseDatabaseWrapper
    say: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    everything_at: float = 0.0
    merges_at: float | None = None
    said: set[str] = field(default_factory=set)

    def begin(self) -> Settled:
        """The first look, at everything."""
        self.everything_at = self.clock() + EVERYTHING
        self.said.clear()
        blocked: Blocked = []
        done = settling.settle(self.connection, PATIENCE, blocked)
        self._leave_for_later(blocked)
        return done

    def look(self) -> Settled | None:
        """Do what is due; None if there is nothing to settle any more."""
        try:
            if self.clock() >= self.everything_at:
                return self.begin() if settling.is_possible(self.connection) else None
            return self._what_is_new()
        except closing.Closed:
            return Settled()  # the shop is on its way; where to, the next look says
        except ProgrammingError:
            if self.connection.follow_tables():  # type: ignore[attr-defined]
                return Settled()  # a cut-over meanwhile: the next look finds the tables
            if settling.is_possible(self.connection):
                raise
            return None

    def _what_is_new(self) -> Settled:
        blocked: Blocked = []
        done = settling.settle_queue(self.connection, PATIENCE, blocked)
        if self.merges_at is not None and self.clock() >= self.merges_at:
            self.merges_at = None
            done += settling.merge_customers(self.connection, None, PATIENCE, blocked)
        self._leave_for_later(blocked)
        return done

    def _leave_for_later(self, blocked: Blocked) -> None:
        for each in blocked:
            if each.what in self.said:
                continue
            self.said.add(each.what)
            self.say(
                f"{each.what} waits for {each.in_the_way}. The rest goes on, and this is"
                " tried again."
            )
        if blocked and self.merges_at is None:
            self.merges_at = self.clock() + AGAIN
