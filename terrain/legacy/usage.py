"""Whether the old application is really gone: who has used the legacy tables lately.

Nothing is added to the tables, so it is put together from three things, each of which says
what it can and no more.

*Sessions.*  Who is connected now, is not this project, and has rights on a legacy table,
may be the old application.

*Writes.*  The triggers that keep both sides in step note who wrote, once a minute and
session (``rebuilt.used``).  They know a client's own statement from what is carried over.

*Reads.*  PostgreSQL counts the scans of each table and index, and not whose they are.
This project reads the legacy tables too, so its commands look at the counters before they
begin and again when they have ended (:func:`ours`): what has grown in between is somebody
else's.  Of that, scans by primary key are not counted, because the triggers of the new side
make those, and neither is what the new side may have caused otherwise: anything while it
deletes rows, and sequential scans of tables so small that the planner prefers them.  So a
use may be missed here, but what is reported is one.
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.db import DatabaseError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from terrain.legacy import catalog, ledger, search_path, sql
from terrain.legacy.catalog import REBUILT
from terrain.legacy.mapping import LENSES
from terrain.legacy.models import Run
from terrain.words import counted

#: Hours for which nobody may have used the tables before cleanup thinks them unused.
LATELY = 24.0

#: Under this name the ledger has what the counters were, and what was seen.
STEP = "use of the legacy tables"

#: Pages from which on the planner does not read a whole table to find one key.
LARGE = 50

_within = 0


@dataclass(frozen=True)
class Counters:
    """What PostgreSQL has counted of one legacy table.

    ``scans`` are those that nothing of ours makes from key to key: by name of the index, or
    ``sequential``.
    """

    scans: dict[str, int]
    pages: int = 0


@dataclass
class Note:
    """What the counters were when a command of ours last ended, and what was seen till then.

    ``seen`` is table -> {after, before, scans}.  While a command is ``reading``, what grows
    may be its own.
    """

    at: datetime.datetime
    counters: dict[str, dict[str, int]] = field(default_factory=dict)
    new_side: tuple[int, int] = (0, 0)
    seen: dict[str, dict[str, Any]] = field(default_factory=dict)
    reading: bool = False
    since: str = ""


@dataclass(frozen=True)
class Use:
    """A sign that a legacy table was used: which, how, when, and as far as is known by whom.

    ``is_known`` when it is a role's that is neither ours nor an operator's: where the shop
    itself connects as the owner of its tables, the two cannot be told apart.
    """

    table: str
    kind: str
    sentence: str
    is_known: bool = False


# --- what is said --------------------------------------------------------------------------


def lately(connection: BaseDatabaseWrapper, hours: float = LATELY) -> Iterator[Use]:
    """Every sign that somebody else uses the legacy tables, or did within so many hours."""
    with ours(connection):
        pass  # look at the counters
    yield from _connected(connection)
    since = timezone.now() - datetime.timedelta(hours=hours)
    yield from written(connection, since)
    yield from _read(connection, since)


def watched_since(connection: BaseDatabaseWrapper) -> datetime.datetime | None:
    """Since when reads have been looked at; None if they have not been."""
    note = _load(connection)
    return datetime.datetime.fromisoformat(note.since) if note and note.since else None


def _connected(connection: BaseDatabaseWrapper) -> Iterator[Use]:
    """Sessions of roles with rights on the tables; of superusers only if at it just now."""
    at_it = dict(
        catalog.rows(connection, sql.query("sessions_at_legacy"), _ours(connection))
    )
    entitled = set(search_path.roles_with_rights(connection))
    operators = _operators(connection)
    for session in search_path.other_sessions(connection):
        tables = at_it.get(session.pid)
        if tables:
            yield Use(tables, "session", f"{session} is using {tables} now.", True)
        elif session.role in entitled:
            yield Use(
                "",
                "session",
                f"{session} is connected and may use the legacy tables.",
                session.role not in operators,
            )


def written(connection: BaseDatabaseWrapper, since: datetime.datetime) -> Iterator[Use]:
    """Who has written to a legacy table by a statement of their own since then."""
    if not catalog.table_exists(connection, REBUILT, "used"):
        return
    operators, schema = _operators(connection), catalog.where(connection).legacy
    for table, role, application, at in catalog.rows(
        connection, sql.query("written_lately"), {"since": since}
    ):
        yield Use(
            table,
            "write",
            f"{schema}.{table} was last written to at {at:%Y-%m-%d %H:%M} UTC by the role"
            f" {role} ({application or 'unnamed'}).",
            role not in operators,
        )


def _operators(connection: BaseDatabaseWrapper) -> set[str]:
    """Roles that an operator uses, and perhaps the shop too."""
    found = catalog.rows(connection, sql.query("operators"), _ours(connection))
    return {role for (role,) in found}


def _read(connection: BaseDatabaseWrapper, since: datetime.datetime) -> Iterator[Use]:
    note, schema = _load(connection), catalog.where(connection).legacy
    for table, seen in sorted(note.seen.items() if note else ()):
        before = datetime.datetime.fromisoformat(seen["before"])
        if before < since:
            continue
        after = datetime.datetime.fromisoformat(seen["after"])
        scans = ", ".join(
            (
                f"{counted(number, 'sequential scan')}"
                if name == "sequential"
                else f"{counted(number, 'scan')} of {name}"
            )
            for name, number in sorted(seen["scans"].items())
        )
        yield Use(
            table,
            "read",
            f"{schema}.{table} was read by somebody else between {after:%Y-%m-%d %H:%M} and"
            f" {before:%Y-%m-%d %H:%M} UTC ({scans}).",
        )


def forget(connection: BaseDatabaseWrapper) -> None:
    """Begin to watch anew: what migrate reads is its own."""
    Run.objects.using(connection.alias).filter(step=STEP).delete()


def trim(connection: BaseDatabaseWrapper) -> None:
    """Keep the last write of each role and application; called by settle."""
    if catalog.table_exists(connection, REBUILT, "used"):
        with connection.cursor() as cursor:
            cursor.execute(sql.query("trim_used"))


# --- what is looked at ---------------------------------------------------------------------


@contextmanager
def ours(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """What reads the legacy tables within the block is this project.

    Where nothing can be written down (a standby, a role that may only read) nothing is.
    Nested, the outermost counts.
    """
    global _within
    if _within or not _is_possible(connection):
        yield
        return
    _within += 1
    try:
        _quietly(connection, _look)
        yield
    finally:
        _within -= 1
        if connection.connection is not None and connection.is_usable():
            if _is_possible(connection):
                _flush(connection)
                _quietly(connection, _note)


def _is_possible(connection: BaseDatabaseWrapper) -> bool:
    return (
        not connection.in_atomic_block
        and catalog.has_legacy_tables(connection)
        and catalog.new_table_exists(connection, "legacy_run")
    )


def _flush(connection: BaseDatabaseWrapper) -> None:
    """Have what this session has counted added up: a server does it when it is idle.

    When the statement that asks for it has ended, so not within a transaction.
    """
    if connection.pg_version >= 150000:  # type: ignore[attr-defined]
        catalog.value(connection, "SELECT pg_stat_force_next_flush()")
    else:
        time.sleep(1)  # at most every half second, and to another process


def _quietly(connection: BaseDatabaseWrapper, action: Any) -> None:
    try:
        with transaction.atomic(using=connection.alias):
            action(connection)
    except DatabaseError:
        return


def _look(connection: BaseDatabaseWrapper) -> None:
    """Before a command of ours reads: what has grown since the last is somebody else's."""
    note = _load(connection) or Note(timezone.now())
    now, new_side = _counted(connection)
    if note.counters and not note.reading:
        for table, grown in _grown(note, now, new_side).items():
            note.seen[table] = {
                "after": note.at.isoformat(),
                "before": timezone.now().isoformat(),
                "scans": grown,
            }
    note.reading = True
    _save(connection, note)


def _grown(
    note: Note, now: dict[str, Counters], new_side: tuple[int, int]
) -> dict[str, dict[str, int]]:
    """Table -> name of index or ``sequential`` -> scans that were not ours."""
    written, deleted = (a - b for a, b in zip(new_side, note.new_side, strict=True))
    found: dict[str, dict[str, int]] = {}
    for table, counters in now.items():
        before = note.counters.get(table, {})
        grown = {
            name: number - before[name]
            for name, number in counters.scans.items()
            if number > before.get(name, number)
        }
        if written and (deleted or counters.pages < LARGE):
            continue
        if grown:
            found[table] = grown
    return found


def _note(connection: BaseDatabaseWrapper) -> None:
    """After a command of ours has read: what is counted from now on is not its own."""
    note = _load(connection) or Note(timezone.now())
    note.at = timezone.now()
    note.since = note.since or note.at.isoformat()
    note.reading = False
    now, note.new_side = _counted(connection)
    note.counters = {table: counters.scans for table, counters in now.items()}
    _save(connection, note)


def _counted(
    connection: BaseDatabaseWrapper,
) -> tuple[dict[str, Counters], tuple[int, int]]:
    """Legacy table -> its counters; rows written and rows deleted on the new side."""
    catalog.value(connection, "SELECT pg_stat_clear_snapshot()")
    found = catalog.rows(connection, sql.query("scans_of_legacy"), _ours(connection))
    written, deleted = catalog.rows(
        connection,
        sql.query("writes_of_new"),
        {
            "tables": list(catalog.NEW_TABLES),
            "schemas": list(catalog.where(connection).own),
        },
    )[0]
    return (
        {table: Counters(json.loads(scans), pages) for table, scans, pages in found},
        (int(written), int(deleted)),
    )


def _ours(connection: BaseDatabaseWrapper) -> dict[str, Any]:
    schema = catalog.where(connection).legacy
    return {"ours": [lens.legacy for lens in LENSES], "schema": schema}


def _load(connection: BaseDatabaseWrapper) -> Note | None:
    run = ledger.last(STEP, connection.alias)
    if run is None:
        return None
    return Note(
        datetime.datetime.fromisoformat(run.detail["at"]),
        run.detail["counters"],
        tuple(run.detail["new_side"]),
        run.detail["seen"],
        run.detail["reading"],
        run.detail["since"],
    )


def _save(connection: BaseDatabaseWrapper, note: Note) -> None:
    run = ledger.last(STEP, connection.alias) or Run(step=STEP, state=Run.State.DONE)
    run.finished_at = note.at
    run.detail = {
        "at": note.at.isoformat(),
        "counters": note.counters,
        "new_side": list(note.new_side),
        "seen": note.seen,
        "reading": note.reading,
        "since": note.since,
    }
    run.save(using=connection.alias)
