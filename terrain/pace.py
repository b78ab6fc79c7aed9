"""How long a batch may be: what it locks, others wait for."""

from __future__ import annotations

from dataclasses import dataclass, field

from django.db.backends.base.base import BaseDatabaseWrapper

#: Seconds a batch should take with its commit: while others are connected, and alone.
BESIDE_OTHERS, ALONE = 0.08, 0.5
#: Rows in the first batch, and at most.
FIRST_BATCH, LARGEST_BATCH = 200, 20_000


@dataclass
class Pace:
    """How many rows make a batch of the wanted length.  Shrinks at once, grows slowly."""

    seconds: float
    rows: int = field(default_factory=lambda: FIRST_BATCH)

    @classmethod
    def beside_others(cls, connection: BaseDatabaseWrapper) -> Pace:
        """Short batches while anybody else is connected, long ones otherwise."""
        return cls(BESIDE_OTHERS if others_connected(connection) else ALONE)

    def took(self, rows: int, seconds: float) -> None:
        """Learn from a batch."""
        if rows <= 0 or seconds <= 0:
            return
        ideal = rows * self.seconds / seconds
        if ideal < self.rows:
            self.rows = max(1, int(ideal))
        elif rows >= self.rows:
            self.rows = min(LARGEST_BATCH, int(min(ideal, self.rows * 2)) + 1)

    def halve(self) -> None:
        self.rows = max(1, self.rows // 2)


def others_connected(connection: BaseDatabaseWrapper) -> bool:
    """Whether anybody else has a session in this database."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT true FROM pg_stat_activity"
            " WHERE datname = current_database() AND usesysid IS NOT NULL"
            # NULL where it is another role's, and not for us to know.
            "   AND coalesce(backend_type, 'client backend') = 'client backend'"
            "   AND pid <> pg_backend_pid() AND application_name IS DISTINCT FROM 'terrain'"
            " LIMIT 1"
        )
        return cursor.fetchone() is not None
