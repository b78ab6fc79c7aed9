"""Makes new rows agree with their legacy rows, some at a time: after a rollback, on a retry."""

from __future__ import annotations

import time
import uuid
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from terrain import locks, progress
from terrain.legacy import catalog, sql
from terrain.legacy.batches import ranges
from terrain.legacy.schema import Lens
from terrain.pace import Pace
from terrain.pace.governor import Ungoverned

#: Keys carried over in the first transaction; of the others its time decides.
FIRST_CHUNK = 20
#: Rows compared by one query.
COMPARED = 5_000


#: For a few rows that somebody waits for.
AT_ONCE = Ungoverned()


def reconcile(
    connection: BaseDatabaseWrapper, lens: Lens, governor: Ungoverned = AT_ONCE
) -> int:
    """Bring rows that were parked up to date with what the old application did since.

    New rows that it deleted go (or become customers), those it changed are carried over;
    what it added is left to the copy.  Returns how many there were.
    """
    if not catalog.value(
        connection, f"SELECT true FROM {sql.new_table(lens.new)} LIMIT 1"
    ):
        return 0
    changed = 0
    for query in (sql.stale(lens), sql.not_own(lens)):
        changed += carry_over_all(
            connection, lens, _keys(connection, query), governor=governor
        )
    for after, upto, _rows in ranges(
        connection, sql.legacy_table(lens.legacy), COMPARED
    ):
        differing = _keys(
            connection, sql.differing(lens), {"after": after, "upto": upto}
        )
        changed += carry_over_all(connection, lens, differing, governor=governor)
    return changed


def _keys(
    connection: BaseDatabaseWrapper, query: str, params: Any = None
) -> list[uuid.UUID]:
    return [key for (key,) in catalog.rows(connection, query, params)]


def carry_over_all(
    connection: BaseDatabaseWrapper,
    lens: Lens,
    keys: list[uuid.UUID],
    patience: float | None = None,
    governor: Ungoverned = AT_ONCE,
) -> int:
    """Carry over rows, some at a time; each time the old application goes first.

    ``patience`` is the limit of :func:`terrain.locks.run_briefly`.  Returns how many rows
    have been carried over.
    """
    pace = Pace.beside_others(connection)
    pace.rows = FIRST_CHUNK
    start = 0
    with progress.measured(f"carry over {lens.legacy}", len(keys)) as advance:
        while start < len(keys) and governor.turn(connection, pace):
            some = keys[start : start + pace.rows]

            def carry(some: list[uuid.UUID] = some) -> None:
                carry_over(connection, lens, some)
                governor.committing()

            started = time.monotonic()
            locks.run_briefly(
                connection,
                carry,
                what=f"Carrying over {len(some)} rows of {lens.legacy}",
                tables=catalog.both(connection, lens),
                limit=patience,
            )
            pace.took(len(some), time.monotonic() - started)
            advance(len(some))
            start += len(some)
    return start


def carry_over_stale(
    connection: BaseDatabaseWrapper, lens: Lens, patience: float | None = None
) -> int:
    """Take away new rows, and notes in the quarantine, whose legacy row is not there.

    ``patience`` as for :func:`carry_over_all`.  Returns how many rows there were.
    """
    stale = _keys(connection, sql.stale(lens))
    carried = carry_over_all(connection, lens, stale, patience)
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM @new.legacy_quarantine q WHERE q.legacy_table = %s AND NOT EXISTS"
            f" (SELECT FROM @legacy.{lens.legacy} l WHERE l.id = q.legacy_id)",
            [lens.legacy],
        )
    return carried


def carry_over_missing(
    connection: BaseDatabaseWrapper, lens: Lens, governor: Ungoverned = AT_ONCE
) -> int:
    """Carry over legacy rows that have no new row and are not held; returns how many."""
    missing = _keys(
        connection,
        f"SELECT l.id FROM @legacy.{lens.legacy} l"
        f" WHERE NOT EXISTS (SELECT FROM @new.{lens.new} n WHERE n.id = l.id AND {lens.own})"
        "   AND NOT EXISTS (SELECT FROM @new.legacy_quarantine q WHERE q.kind = 'held'"
        "                    AND q.legacy_table = %s AND q.legacy_id = l.id)",
        [lens.legacy],
    )
    return carry_over_all(connection, lens, missing, governor=governor)


def carry_over(
    connection: BaseDatabaseWrapper, lens: Lens, keys: list[uuid.UUID]
) -> None:
    """Make the new rows agree with the legacy rows of these keys, as the triggers would.

    In the caller's transaction, which has the legacy rows from then on, as a trigger would:
    what the old application writes between the look at a row and the carrying over would
    be overwritten by what was there before.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT FROM {sql.legacy_table(lens.legacy)} l WHERE l.id = ANY (%s::uuid[])"
            " ORDER BY l.id FOR NO KEY UPDATE",
            [keys],
        )
        cursor.execute(
            f"SELECT {sql.ident('rebuilt', f'{lens.legacy}_to_new')}(k.id)"
            " FROM unnest(%s::uuid[]) AS k (id)",
            [keys],
        )
