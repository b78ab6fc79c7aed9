"""What is left for after the commit: accounts, owner links, merges, second looks.

The triggers on the old application's tables never wait for another of its clients, so
whatever could (an address is unique, an account may be locked) they put into a queue.
Here too it is the old application that goes first: each transaction is short, and is
done again when it would have had to wait.
"""

from __future__ import annotations

import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import errors

from sessions_app.models import DEFAULT_TABLE_LIMIT
from terrain import locks, progress
from terrain.legacy import carrying, catalog, engine, reconciling, sql, usage
from terrain.legacy.mapping import BY_LEGACY, LENSES
from terrain.legacy.models import Quarantine
from terrain.legacy.schema import Lens
from terrain.locks import LockNotObtained
from terrain.pace import Pace
from terrain.pace.governor import Ungoverned, governed

#: What it is called where its pace is told.
STEP = "settle"
#: Queue entries settled in one transaction, at most, and seconds these are tried for before they
#: are taken one by one.
TAKEN_AT_ONCE, BATCH_PATIENCE = 500, 0.5


@dataclass(frozen=True)
class Settled:
    """What one call has done, in rows."""

    customers: int = 0
    linked: int = 0
    sessions: int = 0
    merged: int = 0
    released: int = 0
    carried: int = 0

    def __add__(self, other: Settled) -> Settled:
        return Settled(
            *(
                getattr(self, name) + getattr(other, name)
                for name in self.__dataclass_fields__
            )
        )

    @property
    def nothing(self) -> bool:
        return self == Settled()


#: What could not be done because somebody has it locked, for a caller who goes on.
Blocked = list[LockNotObtained]


def settle(
    connection: BaseDatabaseWrapper,
    patience: float | None = None,
    blocked: Blocked | None = None,
) -> Settled:
    """Do all that waits: the quarantine, then the queue, then what several rows share.

    What others have locked is waited for ``patience`` seconds (as :func:`run_briefly`
    does) and then left, while the rest is done.  Where the caller does not take them as
    ``blocked``, the first is raised when all else is done.
    """
    if not is_possible(connection):
        return Settled()
    left: Blocked = []
    with usage.ours(connection), governed(connection, STEP) as governor:
        released = _unless_blocked(
            left, retry_held, connection, None, patience, governor
        )
        queue_waiting(connection)
        total = Settled(released=released)
        total += _settle_all(connection, patience, left, governor)
        total += merge_customers(connection, None, patience, left, governor)
        _unless_blocked(left, mark_repeats, connection, patience)
    _hand_on(left, blocked)
    return total


def _unless_blocked(left: Blocked, action: Callable[..., int], *arguments: Any) -> int:
    """What ``action`` returns, or none done if somebody is in the way."""
    try:
        return action(*arguments)
    except LockNotObtained as error:
        left.append(error)
        return 0


def _hand_on(left: Blocked, blocked: Blocked | None) -> None:
    if blocked is not None:
        blocked.extend(left)
    elif left:
        raise left[0]


def is_possible(connection: BaseDatabaseWrapper) -> bool:
    """Whether both sides are there: between migration and cleanup."""
    return catalog.has_legacy_tables(connection) and catalog.table_exists(
        connection, "rebuilt", "queue"
    )


def queue_waiting(connection: BaseDatabaseWrapper) -> None:
    """Queue every row that has no owner yet: a rollback drops the queue, with what was in it."""
    with connection.cursor() as cursor:
        for lens in LENSES:
            if lens.owner is not None:
                cursor.execute(sql.queue_waiting(lens))


def settle_queue(
    connection: BaseDatabaseWrapper,
    patience: float | None = None,
    blocked: Blocked | None = None,
) -> Settled:
    """Empty the queue: late rows, then the others, a few hundred entries a transaction.

    ``patience`` and ``blocked`` as for :func:`settle`.
    """
    left: Blocked = []
    with governed(connection, STEP) as governor:
        total = _settle_all(connection, patience, left, governor)
    _hand_on(left, blocked)
    return total


def _settle_all(
    connection: BaseDatabaseWrapper,
    patience: float | None,
    left: Blocked,
    governor: Ungoverned,
) -> Settled:
    with progress.measured(STEP) as advance:
        return _settle_each(connection, advance, patience, left, governor)


def _settle_each(
    connection: BaseDatabaseWrapper,
    advance: Callable[[int], None],
    patience: float | None,
    left: Blocked,
    governor: Ungoverned,
) -> Settled:
    """Many entries at once; one by one past those that somebody has locked."""
    total = Settled(carried=carrying.settle_late(connection))
    pace = Pace.beside_others(connection)
    after, most = 0, TAKEN_AT_ONCE
    while governor.turn(connection, pace):
        size = min(most, pace.rows)
        started = time.monotonic()
        try:
            done = locks.run_briefly(
                connection,
                partial(_settle_some, connection, after, size),
                what="Settling",
                tables=catalog.new(connection, "users", "tables", "orders"),
                limit=patience if size == 1 else BATCH_PATIENCE,
                # The account of a row may be deleted before the link to it is committed.
                also=(errors.ForeignKeyViolation,),
            )
        except LockNotObtained as error:
            if size == 1:
                after, entry = _next_entry(connection, after)
                left.append(error.of(f"Settling {entry}"))
            most = 1
            continue
        if done is None:
            break
        settled, artists, taken = done
        pace.took(taken, time.monotonic() - started)
        advance(taken)
        total += settled
        most = min(most * 2, TAKEN_AT_ONCE)
        if artists:
            # After the commit: a merge may have to wait, and what has been settled is not
            # to stay locked meanwhile.  What a kill leaves undone here, settle finds.
            total += merge_customers(connection, artists, patience, left, governor)
    if total != Settled():
        usage.trim(connection)
    return total


def _next_entry(connection: BaseDatabaseWrapper, after: int) -> tuple[int, str]:
    """The entry that is to be passed over: its number, and the row that it is about."""
    found = catalog.rows(
        connection,
        "SELECT id, legacy_table || ' ' || key FROM rebuilt.queue"
        " WHERE NOT late AND id > %s"
        " ORDER BY id LIMIT 1",
        [after],
    )
    return found[0] if found else (after, "an entry that has gone")


def _settle_some(
    connection: BaseDatabaseWrapper, after: int, size: int
) -> tuple[Settled, list[uuid.UUID], int] | None:
    """The next entries of the queue, artists to merge customers into aside; None if none.

    The number is how many entries there were.
    """
    taken = catalog.rows(
        connection, sql.query("take_queue"), {"after": after, "limit": size}
    )
    if not taken:
        return None
    keys: dict[str, list[uuid.UUID]] = defaultdict(list)
    for table, key in taken:
        keys[table].append(key)
    _turn_limits_off(connection)
    artists = keys.pop("artists", [])
    total = Settled()
    for table, some in keys.items():
        total += _settle_rows(connection, table, some)
    return total, artists, len(taken)


def _turn_limits_off(connection: BaseDatabaseWrapper) -> None:
    """Limits are for people, not for what was there before them."""
    catalog.value(connection, "SELECT set_config('terrain.sync', 'on', true)")


def _settle_rows(
    connection: BaseDatabaseWrapper, table: str, keys: list[uuid.UUID]
) -> Settled:
    lens = BY_LEGACY[table]
    if lens.owner is None:
        return Settled()
    source = (
        f"@new.{lens.new} l WHERE l.id = ANY (%(keys)s::uuid[]) AND l.{lens.owner.column} IS NULL"
        f" AND {lens.own.replace('n.', 'l.')}"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql.customers(lens, source, new_side=True), {"keys": keys})
        customers = cursor.rowcount
        cursor.execute(sql.link(lens), {"keys": keys})
        linked = cursor.rowcount
        sessions = 0
        if lens.owner.or_session is not None:
            cursor.execute(sql.link_sessions(lens, DEFAULT_TABLE_LIMIT), {"keys": keys})
            sessions = cursor.rowcount
    return Settled(customers=customers, linked=linked, sessions=sessions)


def merge_customers(
    connection: BaseDatabaseWrapper,
    keys: list[uuid.UUID] | None,
    patience: float | None = None,
    blocked: Blocked | None = None,
    governor: Ungoverned = reconciling.AT_ONCE,
) -> Settled:
    """Merge customers into the artists who have their address; ``keys`` None means all.

    ``patience`` and ``blocked`` as for :func:`settle`.
    """
    left: Blocked = []
    merged = 0
    pace = Pace.beside_others(connection)
    for customer, artist in catalog.rows(connection, sql.merges(), {"keys": keys}):
        if not governor.turn(connection, pace):
            break
        started = time.monotonic()
        try:
            merged += locks.run_briefly(
                connection,
                partial(_merge, connection, customer, artist),
                what=f"Merging customer {customer} into {artist}",
                tables=catalog.new(connection, "users", "tables", "orders"),
                limit=patience,
                # Something may have been given to the customer meanwhile.
                also=(errors.ForeignKeyViolation,),
            )
        except LockNotObtained as error:
            left.append(error)
        pace.took(1, time.monotonic() - started)
    _hand_on(left, blocked)
    return Settled(merged=merged)


def _merge(
    connection: BaseDatabaseWrapper, customer: uuid.UUID, artist: uuid.UUID
) -> int:
    """… unless the artist is gone by now, or has another address."""
    with connection.cursor() as cursor:
        cursor.execute(sql.merge_lock(), {"customer": customer, "artist": artist})
        if cursor.fetchone() is None:
            return 0
        cursor.execute("SELECT rebuilt.repoint_user(%s, %s)", [customer, artist])
        cursor.execute("DELETE FROM @new.users WHERE id = %s", [customer])
        gone: int = cursor.rowcount
        return gone


def retry_held(
    connection: BaseDatabaseWrapper,
    entries: list[tuple[str, uuid.UUID]] | None = None,
    patience: float | None = None,
    governor: Ungoverned = reconciling.AT_ONCE,
) -> int:
    """Look again at rows in quarantine; returns how many entries have gone.

    ``entries`` are (legacy table, id); None means every held row whose reason may be gone.
    The others have been looked at when they were last written.
    """
    if entries is None:
        entries = [
            (lens.legacy, key)
            for lens in LENSES
            for (key,) in catalog.rows(connection, sql.to_retry(lens))
        ]
    before = Quarantine.objects.using(connection.alias).count()
    by_table: Mapping[str, list[uuid.UUID]] = defaultdict(list)
    for table, key in entries:
        by_table[table].append(key)
    for table, keys in by_table.items():
        reconciling.carry_over_all(
            connection, BY_LEGACY[table], keys, patience, governor
        )
    return before - Quarantine.objects.using(connection.alias).count()


def mark_repeats(connection: BaseDatabaseWrapper, patience: float | None = None) -> int:
    """Flag rows that share what no two should have, and unflag those that no longer do.

    Returns how many entries of the quarantine that has changed.
    """
    changed = 0
    for lens in LENSES:
        for number, repeat in enumerate(lens.repeats):
            changed += locks.run_briefly(
                connection,
                partial(_mark, connection, lens, number, repeat.code),
                what=f"Flagging repeated ids of {lens.legacy}",
                tables=catalog.new(connection, "legacy_quarantine"),
                limit=patience,
            )
    return changed


def _mark(connection: BaseDatabaseWrapper, lens: Lens, number: int, reason: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            sql.mark_repeats(lens, sql.legacy_table(lens.legacy), number),
            {"table": lens.legacy, "reason": reason},
        )
        changed: int = cursor.rowcount
    return changed


def carry_over_again(connection: BaseDatabaseWrapper) -> int:
    """Derive functions and triggers anew, and make every new row agree with its legacy row.

    For after somebody has disabled a trigger or changed a function.  Returns how many
    rows differed.
    """
    engine.derive(connection)
    for lens in LENSES:
        engine.keep_in_step(connection, lens)
    changed = 0
    with governed(connection, STEP) as governor:
        for lens in LENSES:
            changed += reconciling.reconcile(connection, lens, governor)
            changed += reconciling.carry_over_missing(connection, lens, governor)
    return changed
