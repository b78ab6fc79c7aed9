"""Going back: the legacy database as it would be had the migration never run."""

from __future__ import annotations

from dataclasses import dataclass

from django.core.management import call_command
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.recorder import MigrationRecorder

from terrain.legacy import catalog, cleanup, cut_over, engine, guard, ledger, sql
from terrain.legacy.catalog import PARKED
from terrain.legacy.mapping import LENSES
from terrain.legacy.models import Run
from terrain.waiting import Say

#: The legacy app as it is before anything was moved: its ledger, and nothing else.
BEFORE = ("legacy", "0001_initial")


class Objection(Exception):
    """It may not be done; the sentence says why and what to do."""


# --- back ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class RolledBack:
    """What is parked, table -> rows; and whether a cut-over had to be undone first."""

    parked: dict[str, int]
    was_cut_over: bool = False


def is_rolled_back(connection: BaseDatabaseWrapper) -> bool:
    """Whether nothing has begun, or all of it has been taken back."""
    return not catalog.has_legacy_tables(connection) or not (
        catalog.is_begun(connection) or cut_over.is_done(connection)
    )


def roll_back(
    connection: BaseDatabaseWrapper, say: Say | None = None
) -> RolledBack | None:
    """Give the legacy database back as it would be had the migration never run.

    The new tables are parked.  A cut-over is undone first.  None if there was nothing to do.
    Raises :class:`Objection` after cleanup, and if what is others' would be lost.
    """
    if is_rolled_back(connection) and not guard.is_half_way_back(connection):
        if cleanup.is_cleaned_up(connection):
            raise Objection(
                "The legacy tables were dropped by cleanup_legacy, so there is nothing to go"
                " back to. Restore a backup: python manage.py restore_database PATH"
            )
        _end_what_was_killed_at_its_end(connection)
        return None
    others = engine.others_on_rebuilt(connection)
    if others:
        raise Objection("\n".join([*others, "Nothing has been changed."]))
    was_cut_over = cut_over.is_done(connection)
    if was_cut_over:
        try:
            cut_over.undo(connection, say)
        except cut_over.Objection as error:
            raise Objection(str(error)) from error
    with ledger.exclusive(connection), ledger.recorded(
        guard.ROLLBACK, connection.alias
    ):
        _withdraw(connection, say)
        with guard.going_back():
            call_command("migrate", *BEFORE, database=connection.alias, verbosity=0)
    return RolledBack(_parked_rows(connection), was_cut_over)


def _end_what_was_killed_at_its_end(connection: BaseDatabaseWrapper) -> None:
    """All is done but for the note that it is, which the next one would be taken for."""
    if catalog.new_table_exists(connection, "legacy_run"):
        run = ledger.last(guard.ROLLBACK, connection.alias)
        if run is not None and run.state != Run.State.DONE:
            ledger.finish(run)


def _withdraw(connection: BaseDatabaseWrapper, say: Say | None) -> None:
    """Take the new tables away from both applications, before anything is undone on them.

    Unapplying the migrations one by one would come to this last, and until then lock each
    table for each foreign key and index, with the old application's writes behind it.
    What a migration did that was killed before Django wrote it down goes along.
    """
    for lens in LENSES:
        engine.let_go(connection, lens, say, close=True)
    engine.park_functions(connection, say)
    engine.drop_rebuilt(connection, say)
    applied = MigrationRecorder(connection).applied_migrations()
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
