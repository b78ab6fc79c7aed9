"""The two ways the move ends: going back, and doing without the legacy tables for good."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.recorder import MigrationRecorder

from terrain import locks
from terrain.legacy import backup, catalog, checks, engine, guard, ledger, prepare, sql
from terrain.legacy.catalog import LEGACY, PARKED
from terrain.legacy.mapping import LENSES
from terrain.legacy.models import Quarantine, Run

Say = Callable[[str], None]

#: The ledger's name for going back.
ROLLBACK = "rollback"
#: The legacy app as it is before anything was moved: its ledger, and nothing else.
BEFORE = ("legacy", "0001_initial")


class Objection(Exception):
    """It may not be done; the sentence says why and what to do."""


# --- back ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class RolledBack:
    """Which legacy tables are back in ``public``, and what is parked: table -> rows."""

    tables: tuple[str, ...]
    parked: dict[str, int]


def is_rolled_back(connection: BaseDatabaseWrapper) -> bool:
    """Whether the legacy tables are where they were, or were never moved."""
    return LEGACY not in catalog.legacy_tables(connection).values()


def roll_back(
    connection: BaseDatabaseWrapper, say: Say | None = None
) -> RolledBack | None:
    """Give the legacy database back as it would be had the migration never run.

    The new tables are parked.  None if there was nothing to do.  Raises
    :class:`Objection` after cleanup, and if what is others' would be lost.
    """
    if is_rolled_back(connection):
        cleaned = _last_cleanup(connection)
        if cleaned is not None and not catalog.legacy_tables(connection):
            raise Objection(
                "The legacy tables were dropped by cleanup_legacy, so there is nothing to go"
                " back to. Restore a backup: python manage.py restore_database PATH"
            )
        return None
    others = prepare.others_on_rebuilt(connection)
    if others:
        raise Objection("\n".join([*others, "Nothing has been changed."]))
    with ledger.exclusive(connection), ledger.recorded(ROLLBACK, connection.alias):
        _let_go_of_unfinished(connection, say)
        call_command("migrate", *BEFORE, database=connection.alias, verbosity=0)
        moved = [
            lens.legacy
            for lens in LENSES
            if engine.move_back(connection, lens.legacy, say)
        ]
    return RolledBack(
        tuple(moved or (lens.legacy for lens in LENSES)), _parked_rows(connection)
    )


def _let_go_of_unfinished(connection: BaseDatabaseWrapper, say: Say | None) -> None:
    """Undo by hand what a migration did that was killed before Django wrote it down."""
    applied = MigrationRecorder(connection).applied_migrations()
    if ("legacy", "0003_keep_in_step") in applied:
        return
    for lens in LENSES:
        engine.let_go(connection, lens, say)
    prepare.drop_rebuilt(connection)
    if ("orders", "0001_initial") in applied:
        engine.park(connection, say)


def _parked_rows(connection: BaseDatabaseWrapper) -> dict[str, int]:
    return {
        table: catalog.value(
            connection, f"SELECT count(*) FROM {sql.ident(PARKED, table)}"
        )
        for table in catalog.NEW_TABLES
        if catalog.table_exists(connection, PARKED, table)
    }


# --- for good ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drop:
    """Something cleanup drops, and its size in bytes."""

    name: str
    size: int


def _last_cleanup(connection: BaseDatabaseWrapper) -> Run | None:
    if not catalog.table_exists(connection, "public", "legacy_run"):
        return None
    run = ledger.last(guard.CLEANUP, connection.alias)
    return run if run is not None and run.state == Run.State.DONE else None


def is_cleaned_up(connection: BaseDatabaseWrapper) -> bool:
    """Whether cleanup has been here, and nothing legacy is left."""
    return _last_cleanup(connection) is not None and not catalog.legacy_tables(
        connection
    )


def what_goes(connection: BaseDatabaseWrapper) -> list[Drop]:
    """The legacy tables that are there, with what they occupy."""
    return [
        Drop(
            f"legacy.{table}",
            catalog.value(
                connection, "SELECT pg_total_relation_size(%s)", [f"legacy.{table}"]
            ),
        )
        for table, schema in catalog.legacy_tables(connection).items()
        if schema == LEGACY
    ]


def objections(connection: BaseDatabaseWrapper, backups: Path) -> Iterator[str]:
    """Why the legacy tables may not go now, a sentence each."""
    since = migrated_at(connection)
    if since is None:
        yield "The migration is half-way. Run: python manage.py migrate"
        return
    yield from _others(connection)
    held = Quarantine.objects.using(connection.alias).filter(
        kind="held", decided_at=None, legacy_table__in=[lens.legacy for lens in LENSES]
    )
    if held.exists():
        yield (
            f"{held.count():,} rows are held in quarantine and are nowhere but in their legacy"
            " tables. Repair them and run settle, or accept each in the admin."
        )
    database = connection.settings_dict["NAME"]
    proven = backup.latest_proven(backups, database, catalog.system(connection))
    if proven is None or proven.taken_at < since:
        yield (
            f"There is no proven backup of {database} in {backups} that was taken since the"
            " migration. Run: python manage.py backup_database"
        )
    result = checks.verify(connection)
    if result.failures:
        failed = ", ".join(each.name for each in result.failures)
        yield f"Verification fails ({failed}). Run: python manage.py verify_migration"


def migrated_at(connection: BaseDatabaseWrapper) -> datetime.datetime | None:
    """When the last migration of the move was applied."""
    applied = MigrationRecorder(connection).applied_migrations()
    last = applied.get(("legacy", "0009_settle"))
    moment: datetime.datetime | None = last.applied if last is not None else None
    return moment


def _others(connection: BaseDatabaseWrapper) -> Iterator[str]:
    """What other people have put into ``legacy``, or hung on its tables or views."""
    yield from prepare.others_on_rebuilt(connection)
    ours = [lens.legacy for lens in LENSES]
    for kind, name in catalog.rows(
        connection, sql.query("others_in_legacy"), {"ours": ours}
    ):
        yield f"The {kind} {name} is in the schema legacy. Move it elsewhere or drop it."
    for kind, name, table in catalog.rows(
        connection, sql.query("others_on_legacy"), {"ours": ours}
    ):
        yield f"The {kind} {name} depends on {table}. Let it use the new tables, or drop it."


def clean_up(connection: BaseDatabaseWrapper, say: Say | None = None) -> list[str]:
    """Drop triggers, views and the legacy tables, and reset the search path.

    Each table by itself, under a short lock; killed, it goes on where it was.  Nothing
    that others depend on can go: the drops are RESTRICT.
    """
    dropped = []
    with ledger.exclusive(connection), ledger.recorded(guard.CLEANUP, connection.alias):
        for lens in LENSES:
            engine.let_go(connection, lens, say)
        engine.take_back_grants(connection)
        prepare.drop_rebuilt(connection)
        for lens in reversed(LENSES):
            if catalog.table_exists(connection, LEGACY, lens.legacy):
                _drop(connection, lens.legacy, say)
                dropped.append(f"legacy.{lens.legacy}")
        engine.drop_schema_if_empty(connection, LEGACY)
        prepare.undo(connection)
    return dropped


def _drop(connection: BaseDatabaseWrapper, table: str, say: Say | None) -> None:
    def drop() -> Any:
        with connection.cursor() as cursor:
            cursor.execute(f"DROP TABLE {sql.ident(LEGACY, table)}")

    locks.run_briefly(
        connection,
        drop,
        what=f"Dropping legacy.{table}",
        tables=(f"legacy.{table}",),
        say=say,
    )
