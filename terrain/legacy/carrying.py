"""Carries rows over that are late.

A row is late when its trigger would have had to wait long for a lock, or would have made the
old application's statement fail: a lock of an open transaction, a serialization failure in
one that has a single snapshot, a batch that has read a row which is being deleted.  The
statement succeeds, the row is in the queue, the new application cannot overwrite it, and
here it is carried over: after the batch, by every command, and by ``settle --watch``.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from django.db import DatabaseError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import errors

from terrain import locks
from terrain.legacy import catalog, sql
from terrain.legacy.mapping import BY_LEGACY
from terrain.legacy.reconciling import carry_over, carry_over_stale
from terrain.legacy.schema import Lens

#: Late rows carried over in one transaction, which has their legacy rows meanwhile.
AT_ONCE = 20

EVERY_ROW = uuid.UUID(sql.EVERY_ROW)


@dataclass(frozen=True)
class Late:
    """An entry of the queue; ``moved_to`` is the key the row has now, if it got another."""

    id: int
    table: str
    key: uuid.UUID
    moved_to: uuid.UUID | None


def settle_late(connection: BaseDatabaseWrapper, table: str | None = None) -> int:
    """Carry late rows over, of one legacy table or of all; returns how many.

    Nobody is waited for: rows that somebody still has locked stay late.
    """
    carried = 0
    for found in _late(connection, table):
        whole = [entry for entry in found if entry.key == EVERY_ROW]
        carried += sum(_settle_whole(connection, entry) for entry in whole)
        some = [entry for entry in found if entry not in whole]
        try:
            carried += _settle_some(connection, some)
        except DatabaseError as error:
            if not _may_succeed_later(error):
                raise
            carried += sum(_settle_alone(connection, each) for each in some)
    return carried


def _late(connection: BaseDatabaseWrapper, table: str | None) -> Iterator[list[Late]]:
    after = 0
    while True:
        found = catalog.rows(
            connection,
            sql.query("late"),
            {"after": after, "table": table, "limit": AT_ONCE},
        )
        if not found:
            return
        some = [Late(*row) for row in found]
        yield some
        after = some[-1].id


def _settle_whole(connection: BaseDatabaseWrapper, entry: Late) -> int:
    """A table that was truncated by somebody who could not see all that this took away."""
    try:
        carried = carry_over_stale(connection, BY_LEGACY[entry.table], patience=0)
    except locks.LockNotObtained:
        return 0
    catalog.rows(connection, sql.query("take_late"), {"ids": [entry.id]})
    return carried


def _settle_alone(connection: BaseDatabaseWrapper, entry: Late) -> int:
    try:
        return _settle_some(connection, [entry])
    except DatabaseError as error:
        if not _may_succeed_later(error):
            raise
        return 0


def _may_succeed_later(error: DatabaseError) -> bool:
    """Somebody has a lock; or what a row refers to is late itself, or has just gone."""
    cause = error.__cause__ or error
    return locks.is_retried(error) or isinstance(cause, errors.ForeignKeyViolation)


def _settle_some(connection: BaseDatabaseWrapper, some: list[Late]) -> int:
    """Those entries nobody else is at, in one transaction."""
    with (
        transaction.atomic(using=connection.alias),
        locks.lock_timeout(connection, locks.LOCK_TIMEOUT),
    ):
        ids = [entry.id for entry in some]
        rows = catalog.rows(connection, sql.query("take_late"), {"ids": ids})
        taken = {id_ for (id_,) in rows}
        for table, entries in groupby(
            (entry for entry in some if entry.id in taken), lambda entry: entry.table
        ):
            _carry(connection, BY_LEGACY[table], list(entries))
    return len(taken)


def _carry(
    connection: BaseDatabaseWrapper, lens: Lens, entries: Iterable[Late]
) -> None:
    keys: list[uuid.UUID] = []
    for entry in entries:
        keys.append(entry.key)
        if entry.moved_to is not None:
            _move(connection, lens, entry.key, entry.moved_to)
            keys.append(entry.moved_to)
    carry_over(connection, lens, list(dict.fromkeys(keys)))


def _move(
    connection: BaseDatabaseWrapper, lens: Lens, was: uuid.UUID, is_: uuid.UUID
) -> None:
    """Let the new row of another key be this one's, if it is still to be had."""
    catalog.rows(
        connection,
        f"SELECT FROM {sql.legacy_table(lens.legacy)} l WHERE l.id = ANY (%s::uuid[])"
        " ORDER BY l.id FOR NO KEY UPDATE",
        [[was, is_]],
    )
    catalog.value(
        connection,
        f"SELECT {sql.ident('rebuilt', f'{lens.legacy}_moved')}(%s, %s)",
        [was, is_],
    )


def still_late(connection: BaseDatabaseWrapper) -> list[tuple[Any, ...]]:
    """What is late: (legacy table, id, why), oldest first."""
    return catalog.rows(
        connection,
        "SELECT legacy_table, key, why FROM rebuilt.queue WHERE late ORDER BY id",
    )
