"""How long a batch may be: what it locks, others wait for.

``Pace`` is the length of one connection's batches.  ``governor.py`` decides, between two
of them, whether and how fast to go on: by what an operator has ordered (``control.py``) and
by what the run does to the shop (``watch.py``).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from django.db.backends.base.base import BaseDatabaseWrapper

#: Seconds a batch should take with its commit: while others are connected, and alone.
BESIDE_OTHERS, ALONE = 0.08, 0.5
#: Seconds after a change of definitions while others are connected: of a table or a few
#: functions, and of several tables at once; and how much longer at most, for who is still at it.
BREATH, LONG_BREATH, LONGEST_BREATH = 0.06, 0.1, 0.25
#: Rows in the first batch, and at most.
FIRST_BATCH, LARGEST_BATCH = 200, 20_000


@dataclass
class Pace:
    """How many rows make a batch of the wanted length.  Shrinks at once, grows slowly.

    ``last`` is how long the last batch took, ``commit`` how much of it the commit, in
    seconds; None where nobody has said when that began.
    """

    seconds: float
    rows: int = field(default_factory=lambda: FIRST_BATCH)
    last: float = 0.0
    commit: float | None = None
    commit_began: float | None = None

    @classmethod
    def beside_others(cls, connection: BaseDatabaseWrapper) -> Pace:
        """Short batches while anybody else is connected, long ones otherwise."""
        return cls(BESIDE_OTHERS if others_connected(connection) else ALONE)

    def aim(self, seconds: float) -> None:
        """From now on a batch should take this long."""
        if seconds < self.seconds:
            self.rows = max(1, int(self.rows * seconds / self.seconds))
        self.seconds = seconds

    def committing(self) -> None:
        """All of a batch is done but its commit, which begins now."""
        self.commit_began = time.monotonic()

    def took(self, rows: int, seconds: float) -> None:
        """Learn from a batch, which has been committed."""
        began, self.commit_began = self.commit_began, None
        self.commit = None if began is None else time.monotonic() - began
        self.last = seconds
        if rows <= 0 or seconds <= 0:
            return
        ideal = rows * self.seconds / seconds
        if ideal < self.rows:
            self.rows = max(1, int(ideal))
        elif rows >= self.rows:
            self.rows = min(LARGEST_BATCH, int(min(ideal, self.rows * 2)) + 1)

    def halve(self) -> None:
        """A batch ran into a time-out."""
        self.commit_began = None
        self.rows = max(1, self.rows // 2)


#: Somebody else's session in this database, as ``a``.
_OTHERS = (
    "a.datname = current_database() AND a.usesysid IS NOT NULL"
    # NULL where it is another role's, and not for us to know.
    " AND coalesce(a.backend_type, 'client backend') = 'client backend'"
    " AND a.pid <> pg_backend_pid() AND a.application_name IS DISTINCT FROM 'terrain'"
)


def others_connected(connection: BaseDatabaseWrapper) -> bool:
    """Whether anybody else has a session in this database."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT true FROM pg_stat_activity a WHERE {_OTHERS} LIMIT 1")
        return cursor.fetchone() is not None


#: Transactions that have outlasted a pause: a report, or one that somebody has left open.
_lasting: set[str] = set()


def breathe(connection: BaseDatabaseWrapper, long: bool = False) -> None:
    """After a change of definitions: a moment for others to take it in, if there are any.

    Every session is told of every table, index and function that has changed, and looks
    through all plans it has kept for each, before its next statement.  One change is soon
    taken in; twenty within a tenth of a second are one long wait.  How long it takes depends on
    what each session has kept, which nobody but itself knows.  So whoever is at the same
    transaction in the middle of the pause and at its end is waited for, a while.
    See docs/decisions/0007-short-locks.md.
    """
    global _lasting
    if not others_connected(connection):
        return
    pause = LONG_BREATH if long else BREATH
    time.sleep(pause / 2)
    at_it = _transactions(connection)
    time.sleep(pause / 2)
    until = time.monotonic() + LONGEST_BREATH
    while True:
        now = _transactions(connection)
        _lasting &= now
        at_it &= now - _lasting
        if not at_it:
            return
        if time.monotonic() >= until:
            _lasting |= at_it
            return
        time.sleep(BREATH / 3)


def _transactions(connection: BaseDatabaseWrapper) -> set[str]:
    """Transactions that others have begun in this database.

    By their virtual numbers, which everybody may see, of every role.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT l.virtualxid FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid"
            " WHERE l.locktype = 'virtualxid' AND l.virtualxid = l.virtualtransaction"
            f"  AND {_OTHERS}"
        )
        return {number for (number,) in cursor.fetchall()}
