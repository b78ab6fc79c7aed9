"""Doing without the legacy tables for good, after the cut-over.

All of it is one transaction: triggers, views, functions, tables and their schemas go
together or not at all.  With the triggers of one side gone and those of the other still
there the two would part, and no second run could tell which of them is right.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from django.db import DatabaseError
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import errors

from terrain import locks
from terrain.blockers import Mode
from terrain.legacy import (
    backup,
    catalog,
    checks,
    engine,
    ledger,
    search_path,
    settling,
    sql,
    usage,
)
from terrain.legacy.catalog import LEGACY
from terrain.legacy.mapping import BY_NEW, LENSES
from terrain.legacy.models import Quarantine, Run
from terrain.postgresql.schemas import SCHEMA
from terrain.waiting import Say
from terrain.words import counted

#: The ledger's name for it.
CLEANUP = "cleanup"

#: How often what is written in the last moment is settled before giving up.
ATTEMPTS = 20


class Objection(Exception):
    """It may not be done; the sentence says why and what to do.  Nothing was changed."""


class _NotSettled(Exception):
    """Somebody has written since the last settle."""


@dataclass(frozen=True)
class Drop:
    """A table that goes, its rows, and its size in bytes with indexes and all."""

    name: str
    rows: int
    size: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def last_cleanup(connection: BaseDatabaseWrapper) -> Run | None:
    """The cleanup that came to its end, if one did."""
    if not catalog.new_table_exists(connection, "legacy_run"):
        return None
    run = ledger.last(CLEANUP, connection.alias)
    return run if run is not None and run.state == Run.State.DONE else None


def is_cleaned_up(connection: BaseDatabaseWrapper) -> bool:
    """Whether cleanup has been here, and nothing legacy is left."""
    return last_cleanup(connection) is not None and not catalog.legacy_tables(
        connection
    )


# --- before --------------------------------------------------------------------------------


def what_goes(connection: BaseDatabaseWrapper) -> list[Drop]:
    """The legacy tables that are there, with what they hold and occupy."""
    with usage.ours(connection):
        return [
            Drop(
                table,
                *catalog.rows(
                    connection,
                    "SELECT (SELECT count(*) FROM {0}), pg_total_relation_size('{0}')".format(
                        table
                    ),
                )[0],
            )
            for table in _legacy(connection)
        ]


def what_goes_along(connection: BaseDatabaseWrapper) -> list[str]:
    """What goes besides the tables, a line each."""
    views, functions = catalog.rows(
        connection,
        "SELECT (SELECT count(*) FROM pg_class WHERE relkind = 'v'"
        "         AND relnamespace = to_regnamespace('rebuilt')),"
        "       (SELECT count(*) FROM pg_proc"
        "         WHERE pronamespace = to_regnamespace('rebuilt'))",
    )[0]
    triggers = catalog.value(
        connection,
        "SELECT count(*) FROM pg_trigger WHERE starts_with(tgname, %s)",
        [sql.TRIGGER_PREFIX],
    )
    return [
        f"the schema rebuilt with {counted(views, 'view')} and"
        f" {counted(functions, 'function')}",
        f"{counted(triggers, 'trigger')} that keep both sides in step",
        "the schemas legacy and terrain (which stays if it has tables of ours in it)",
    ]


def objections(
    connection: BaseDatabaseWrapper, backups: Path, *, despite_use: bool = False
) -> Iterator[str]:
    """Why the legacy tables may not go now, a sentence each."""
    since = catalog.migrated_at(connection)
    if since is None:
        yield "The migration is half-way. Run: python manage.py migrate"
        return
    if not catalog.where(connection).is_cut_over:
        yield (
            "The names have not changed places yet: the legacy tables are in public. When the"
            " old application has been stopped, run: python manage.py cut_over"
        )
        return
    # Before anything of ours reads the tables.
    used = [] if despite_use else list(_in_use(connection))
    yield from _others(connection)
    yield from _undecided(connection)
    yield from _without_backup(connection, backups, since)
    yield from used
    result = checks.verify(connection)
    if result.failures:
        failed = ", ".join(each.name for each in result.failures)
        yield f"Verification fails ({failed}). Run: python manage.py verify_migration"


def _in_use(connection: BaseDatabaseWrapper) -> Iterator[str]:
    found = [each for each in usage.lately(connection) if each.is_known]
    yield from (each.sentence for each in found)
    if found:
        yield (
            "So the old application may still be there. Stop it and wait until it has not"
            f" been seen for {usage.LATELY:.0f} hours; or, if these are not its doing, add"
            " --despite-use."
        )


def hints(connection: BaseDatabaseWrapper) -> list[str]:
    """Signs of use that may be an operator's own doing; a sentence each."""
    if catalog.migrated_at(connection) is None:
        return []  # half-way there is nothing to watch yet
    return [each.sentence for each in usage.lately(connection) if not each.is_known]


def _others(connection: BaseDatabaseWrapper) -> Iterator[str]:
    """What other people have put into ``legacy``, or hung on its tables or views."""
    yield from engine.others_on_rebuilt(connection)
    ours = [lens.legacy for lens in LENSES]
    for kind, name in catalog.rows(
        connection, sql.query("others_in_legacy"), {"ours": ours}
    ):
        yield f"The {kind} {name} is in the schema legacy. Move it elsewhere or drop it."
    for kind, name, table in catalog.rows(
        connection,
        sql.query("others_on_legacy"),
        {"schema": catalog.LEGACY, "ours": ours},
    ):
        yield f"The {kind} {name} depends on {table}. Let it use the new tables, or drop it."


def _undecided(connection: BaseDatabaseWrapper) -> Iterator[str]:
    waiting = Quarantine.objects.using(connection.alias).filter(
        decided_at=None, legacy_table__in=[lens.legacy for lens in LENSES]
    )
    held = waiting.filter(kind="held").count()
    if held:
        yield (
            "Held in quarantine, undecided, and nowhere but in the legacy tables:"
            f" {counted(held, 'row')}. Repair, then run settle; or accept each in the admin."
        )
    flagged = waiting.filter(kind="flagged").count()
    if flagged:
        yield (
            f"Flagged in quarantine, and nobody has decided: {counted(flagged, 'row')}."
            " Correct or accept each in the admin."
        )


def _without_backup(
    connection: BaseDatabaseWrapper, backups: Path, since: datetime.datetime
) -> Iterator[str]:
    database = connection.settings_dict["NAME"]
    proven = backup.latest_proven(backups, database, catalog.system(connection))
    if proven is None or proven.taken_at < since:
        yield (
            f"There is no proven backup of {database} in {backups} that was taken since the"
            " migration. Run: python manage.py backup_database"
        )


# --- for good ------------------------------------------------------------------------------


def clean_up(connection: BaseDatabaseWrapper, say: Say | None = None) -> list[str]:
    """Drop triggers, views and the legacy tables, and reset the search path.

    One transaction, which waits 100 ms at most for its locks and is tried again for a
    minute; killed, nothing has been changed.  Raises :class:`Objection` for what has come
    up in the last moment: nothing that others depend on can go, the drops are RESTRICT.
    """
    with ledger.exclusive(connection), ledger.recorded(
        CLEANUP, connection.alias
    ) as run:
        for _ in range(ATTEMPTS):
            settling.settle(connection)
            try:
                return _drop_briefly(connection, run, say)
            except _NotSettled:
                continue
        raise Objection(
            "Somebody keeps writing to the legacy tables. Stop the old application, then run"
            " cleanup_legacy again. Nothing has been dropped."
        )


def _drop_briefly(
    connection: BaseDatabaseWrapper, run: Run, say: Say | None
) -> list[str]:
    try:
        return locks.run_briefly(
            connection,
            partial(_drop, connection, run),
            what="Dropping the legacy tables",
            # Those in use come last, when the others are locked.
            tables=(*_legacy(connection), "rebuilt.queue", *_new(connection)),
            mode=Mode.ACCESS_EXCLUSIVE,
            say=say,
        )
    except DatabaseError as error:
        if not isinstance(error.__cause__, errors.DependentObjectsStillExist):
            raise
        detail = error.__cause__.diag.message_detail or str(error)
        raise Objection(
            f"Something depends on the legacy tables: {' '.join(detail.split())}. Let it use"
            " the new tables, or drop it. Nothing has been dropped."
        ) from error


def _drop(connection: BaseDatabaseWrapper, run: Run) -> list[str]:
    """The transaction, which has locked all that it takes."""
    going = _legacy(connection)
    _check_last_moment(connection)
    with connection.cursor() as cursor:
        for table in _with_triggers(connection):
            triggers = engine.our_triggers(connection, table)
            for statement in sql.drop_triggers(table, sorted(triggers)):
                cursor.execute(statement)
        engine.take_back_grants(connection)
        engine.drop_rebuilt(connection)
        cursor.execute(f"DROP TABLE {', '.join(going)}")
        for schema in (LEGACY, catalog.PARKED, SCHEMA):
            engine.drop_schema_if_empty(connection, schema)
        search_path.undo(connection)
        ledger.finish(run)  # with it, or what is done would not look done
    return going


def _check_last_moment(connection: BaseDatabaseWrapper) -> None:
    """What may have come since the objections were asked for; nothing more can come now."""
    if catalog.table_exists(connection, "rebuilt", "queue") and catalog.value(
        connection, "SELECT count(*) FROM rebuilt.queue"
    ):
        raise _NotSettled
    for sentence in _undecided(connection):
        raise Objection(f"{sentence} Nothing has been dropped.")


def _legacy(connection: BaseDatabaseWrapper) -> list[str]:
    return [
        f"{schema}.{sql.plain(table)}"
        for table, schema in catalog.legacy_tables(connection).items()
    ]


def _with_triggers(connection: BaseDatabaseWrapper) -> list[str]:
    """Legacy tables and ours that have triggers of the sync."""
    legacy = [f"@legacy.{table}" for table in catalog.legacy_tables(connection)]
    parts = [lens.part.table for lens in LENSES if lens.part is not None]
    return [*legacy, *(f"@new.{table}" for table in (*BY_NEW, *parts))]


def _new(connection: BaseDatabaseWrapper) -> tuple[str, ...]:
    """Our tables that have triggers of the sync."""
    parts = [lens.part.table for lens in LENSES if lens.part is not None]
    return catalog.new(connection, *BY_NEW, *parts)
