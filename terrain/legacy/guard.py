"""What stands before ``migrate``: preflight, and the refusal of what would lose data.

Django asks before it changes anything (``pre_migrate``), with the plan at hand.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.db import connections
from django.db.migrations import Migration

from terrain.exceptions import Stopped
from terrain.legacy import catalog, cleanup, cut_over, engine, ledger, preflight
from terrain.legacy.models import Run

Plan = list[tuple[Migration, bool]]

#: The ledger's name for going back.
ROLLBACK = "rollback"
#: Whether migrate only writes down what it is asked to do (--fake).
_pretends = False

#: Whether every row has just been proven, before the schema of the new tables was made.
_is_proven = False

#: Whether it is a rollback that unapplies the migrations: there may be none that was written down.
_goes_back = False

_held = contextlib.ExitStack()


@contextlib.contextmanager
def going_back() -> Iterator[None]:
    """Let the guard know that a rollback is at work, and not somebody who goes forward."""
    global _goes_back
    _goes_back = True
    try:
        yield
    finally:
        _goes_back = False


@contextlib.contextmanager
def pretending(fake: bool) -> Iterator[None]:
    """Let the guard know of --fake, which the signal does not tell."""
    global _pretends
    _pretends = fake
    try:
        yield
    finally:
        _pretends = False


@contextlib.contextmanager
def begun(connection: Any, verbosity: int) -> Iterator[None]:
    """Make the schema of the new tables before Django looks which migrations are applied.

    In a legacy database nothing of it is there yet, so preflight comes before that.  Raises
    :class:`Stopped`.
    """
    global _is_proven
    if cut_over.is_marked(connection) or catalog.where(connection).is_cut_over:
        yield
        return
    try:
        with ledger.exclusive(connection):
            if catalog.has_legacy_tables(connection):
                _prove(connection, verbosity)
            cut_over.begin(connection)
    except ledger.Busy as error:
        raise Stopped(str(error), code=2) from error
    _is_proven = True
    try:
        yield
    finally:
        _is_proven = False


def before_migrate(
    sender: AppConfig, using: str, plan: Plan, verbosity: int = 1, **_: Any
) -> None:
    """Stop what must not begin; raises :class:`Stopped`."""
    if not _goes_back and not any(backwards for _, backwards in plan):
        _finish_going_back_first(connections[using])
    ours = [
        (migration, backwards)
        for migration, backwards in plan
        if migration.app_label in (*catalog.NEW_APPS, "legacy")
    ]
    if not ours:
        return
    connection = connections[using]
    _held.close()
    try:
        _held.enter_context(ledger.exclusive(connection))
    except ledger.Busy as error:
        raise Stopped(str(error), code=2) from error
    try:
        if _pretends:
            _before_pretending(connection, ours)
        elif _is_pretended(connection):
            raise Stopped(
                "Migrations were recorded as applied and never were: nothing of the new schema"
                " is there. Nothing has been changed. Take back what was recorded:"
                " python manage.py migrate --fake legacy 0001_initial"
            )
        elif any(backwards for _, backwards in ours):
            _before_going_back(connection, ours)
        elif (
            not _is_proven
            and catalog.has_legacy_tables(connection)
            and not catalog.is_begun(connection)
        ):
            _prove(connection, verbosity)
    except BaseException:
        _held.close()
        raise


def after_migrate(sender: AppConfig, using: str, **_: Any) -> None:
    """Let others at the database again."""
    _held.close()


def _prove(connection: Any, verbosity: int) -> None:
    if verbosity > 0:
        print("  Preflight: proving every row before anything is changed …", flush=True)
    report = preflight.run(connection, accept=settings.PREFLIGHT_ACCEPT)
    if report.blockers:
        first = report.blockers[0]
        more = (
            f" (Findings that block: {len(report.blockers)}.)"
            if len(report.blockers) > 1
            else ""
        )
        raise Stopped(
            f"{first.sentence} {first.remedy}{more} Nothing has been changed;"
            " see all of it with: python manage.py preflight"
        )


def _finish_going_back_first(connection: Any) -> None:
    """Forward again from half-way back, the tables would stay out of step, or be in the way."""
    if is_half_way_back(connection):
        raise Stopped(
            "A rollback was begun and has not ended, so the new tables are out of step or"
            " parked. Finish it with: python manage.py rollback_migration; then run migrate"
            " again."
        )


def is_half_way_back(connection: Any) -> bool:
    """Whether a rollback was interrupted after it had changed something."""
    if not catalog.new_table_exists(connection, "legacy_run"):
        return False
    run = ledger.last(ROLLBACK, connection.alias)
    if run is None or run.state == Run.State.DONE:
        return False
    if catalog.IN_STEP in catalog.applied(connection):
        return not engine.stands_beside(connection)
    # The triggers are off, and Django has not unapplied everything yet.
    return catalog.is_begun(connection)


def _is_pretended(connection: Any) -> bool:
    """Whether the move is recorded as begun and was not: the first thing it makes is not there."""
    return (
        catalog.has_legacy_tables(connection)
        and catalog.is_begun(connection)
        and not catalog.schema_exists(connection, catalog.REBUILT)
        and not catalog.schema_exists(connection, catalog.PARKED)
    )


def _before_pretending(connection: Any, plan: Plan) -> None:
    """What was pretended may be taken back, as long as it was no more than that."""
    if not catalog.has_legacy_tables(connection):
        return
    is_begun = catalog.is_begun(connection) and not _is_pretended(connection)
    if is_begun or not all(back for _, back in plan):
        raise Stopped(
            "Whether the legacy tables are copied is not for --fake to say."
            " Nothing was changed. Run it without: python manage.py migrate"
        )


def _before_going_back(connection: Any, plan: Plan) -> None:
    unapplied = {
        (migration.app_label, migration.name)
        for migration, backwards in plan
        if backwards
    }
    moved = catalog.has_legacy_tables(connection)
    # What changes no table that was moved may be taken back and put there again.
    is_the_move = any(
        label == "legacy" or name == "0001_initial" for label, name in unapplied
    )
    if moved and is_the_move and catalog.where(connection).is_cut_over:
        raise Stopped(
            "The names have changed places (cut_over), so the way back begins with its undoing."
            " Nothing has been changed. Run: python manage.py rollback_migration"
        )
    if not moved and cleanup.is_cleaned_up(connection):
        raise Stopped(
            "The legacy tables have been cleaned up, so there is nothing to go back to, and"
            " unapplying these migrations would drop the only copy of the shop's data."
            " To go back, restore a backup: python manage.py restore_database PATH"
        )
    if ("legacy", "0003_keep_in_step") in unapplied:
        for sentence in engine.others_on_rebuilt(connection):
            raise Stopped(f"{sentence} Nothing has been changed.")
    parked = catalog.schema_exists(connection, catalog.PARKED)
    if moved and ("terrain", "0001_initial") in unapplied:
        raise Stopped(
            "terrain.0001_initial makes the accounts, which are parked when the shop goes"
            " back. To go back, run: python manage.py rollback_migration"
        )
    if (moved or parked) and ("legacy", "0001_initial") in unapplied:
        raise Stopped(
            "legacy.0001_initial makes the quarantine, which knows things of held rows that"
            " nothing else does. To go back, run: python manage.py rollback_migration"
        )
