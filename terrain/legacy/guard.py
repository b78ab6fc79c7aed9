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
from terrain.legacy import catalog, cleanup, engine, ledger, preflight, prepare
from terrain.legacy.models import Run

Plan = list[tuple[Migration, bool]]

#: The ledger's name for going back.
ROLLBACK = "rollback"
#: The migration with which the copies begin.
STOOD_ASIDE = ("legacy", "0002_stand_aside")

#: Each makes a table that is called as a legacy one.
_MAKE_TABLES_OF_LEGACY_NAMES = {
    ("catalogue", "0001_initial"),
    ("orders", "0001_initial"),
}

#: Whether migrate only writes down what it is asked to do (--fake).
_pretends = False

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
        elif any(backwards for _, backwards in ours):
            _before_going_back(connection, ours)
        elif "public" in catalog.legacy_tables(connection).values():
            if verbosity > 0:
                print(
                    "  Preflight: proving every row before anything is changed …",
                    flush=True,
                )
            _before_moving(connection)
    except BaseException:
        _held.close()
        raise


def after_migrate(sender: AppConfig, using: str, **_: Any) -> None:
    """Let others at the database again."""
    _held.close()


def _before_moving(connection: Any) -> None:
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
    if not catalog.table_exists(connection, "public", "legacy_run"):
        return False
    run = ledger.last(ROLLBACK, connection.alias)
    if run is None or run.state == Run.State.DONE:
        return False
    schemas = set(catalog.legacy_tables(connection).values())
    if catalog.LEGACY in schemas:
        return not engine.stands_beside(connection)
    # All are back, and Django has not written that down yet.
    return bool(schemas) and STOOD_ASIDE in catalog.applied(connection)


def _before_pretending(connection: Any, plan: Plan) -> None:
    """What was pretended may be taken back, as long as it was no more than that."""
    tables = catalog.legacy_tables(connection)
    if not tables:
        return
    if catalog.LEGACY in tables.values() or not all(back for _, back in plan):
        raise Stopped(
            "Whether the legacy tables are moved and copied is not for --fake to say."
            " Nothing was changed. Run it without: python manage.py migrate"
        )


def _before_going_back(connection: Any, plan: Plan) -> None:
    unapplied = {
        (migration.app_label, migration.name)
        for migration, backwards in plan
        if backwards
    }
    moved = bool(catalog.legacy_tables(connection))
    if not moved and cleanup.is_cleaned_up(connection):
        raise Stopped(
            "The legacy tables have been cleaned up, so there is nothing to go back to, and"
            " unapplying these migrations would drop the only copy of the shop's data."
            " To go back, restore a backup: python manage.py restore_database PATH"
        )
    if ("legacy", "0003_keep_in_step") in unapplied:
        for sentence in prepare.others_on_rebuilt(connection):
            raise Stopped(f"{sentence} Nothing has been changed.")
    in_public = "public" in catalog.legacy_tables(connection).values()
    if in_public and unapplied & _MAKE_TABLES_OF_LEGACY_NAMES:
        raise Stopped(
            "Unapplying these migrations would drop the legacy tables, which are in public:"
            " the migrations were never really applied. Nothing has been changed. Take"
            " back what was recorded: python manage.py migrate --fake legacy 0001_initial"
        )
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
