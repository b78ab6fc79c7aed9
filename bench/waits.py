"""Who keeps the old application's statements waiting, looked at while they wait."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import psycopg

from bench import shop
from bench.clients import ROLE

#: Seconds between two looks, and how long a statement has run before it is of interest.
EVERY, SLOW = 0.015, 0.05
#: How many are remembered; then the quicker half is forgotten.
KEPT = 2_000

_LOOK = """
SELECT a.pid, a.query_start, extract(epoch FROM clock_timestamp() - a.query_start)::float,
       coalesce(a.wait_event_type || ' ' || a.wait_event, 'at work'), left(a.query, 90),
       (SELECT string_agg(b.application_name || ': '
                          || left(regexp_replace(b.query, '\\s+', ' ', 'g'), 120), ' | ')
          FROM pg_stat_activity b
         WHERE a.wait_event_type = 'Lock' AND b.pid = ANY (pg_blocking_pids(a.pid)))
  FROM pg_stat_activity a
 WHERE a.usename = %(role)s AND a.state = 'active' AND a.datname = %(database)s
   AND a.query_start < clock_timestamp() - %(slow)s * interval '1 second'
"""


@dataclass
class Seen:
    """A statement that took long: seconds when last seen, what it waited for, and whom."""

    statement: str
    at: float = 0.0
    seconds: float = 0.0
    waits: Counter[str] = field(default_factory=Counter)
    blockers: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        waits = ", ".join(f"{name} ×{number}" for name, number in self.waits.items())
        blocked = "; ".join(self.blockers) or "nobody"
        return (
            f"{self.seconds * 1000:5.0f} ms  {self.statement}\n"
            f"          {waits}; blocked by {blocked}"
        )


class Watch(threading.Thread):
    """Looks until the block ends; ``seen`` are the slow statements, the slowest first."""

    def __init__(self, database: str) -> None:
        super().__init__(daemon=True)
        self.database = database
        self.ended = threading.Event()
        self._seen: dict[tuple[Any, Any], Seen] = {}

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.ended.set()
        self.join()

    def run(self) -> None:
        parameters = {"role": ROLE, "database": self.database, "slow": SLOW}
        try:
            with shop.superuser() as connection:
                while not self.ended.wait(EVERY):
                    for row in connection.execute(_LOOK, parameters, prepare=True):
                        self._note(*row)
        except psycopg.Error as error:
            print(f"Nobody looks at what waits: {error}")

    def _note(
        self,
        pid: int,
        began: Any,
        seconds: float,
        wait: str,
        statement: str,
        blockers: str | None,
    ) -> None:
        if len(self._seen) > KEPT:
            for other in sorted(self._seen, key=lambda key: self._seen[key].seconds):
                if len(self._seen) <= KEPT // 2:
                    break
                del self._seen[other]
        seen = self._seen.setdefault((pid, began), Seen(statement, began.timestamp()))
        seen.seconds = max(seen.seconds, seconds)
        seen.waits[wait] += 1
        if blockers:
            seen.blockers[blockers] += 1

    @property
    def seen(self) -> list[Seen]:
        return sorted(self._seen.values(), key=lambda seen: -seen.seconds)
