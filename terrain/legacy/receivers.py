"""What the move adds to commands that will outlive it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from catalogue.assets import Held
from terrain.legacy import catalog, closing, ledger, privileges, settling, sql


def settle_first(sender: Any, connection: BaseDatabaseWrapper, **_: Any) -> None:
    """Before models become assets: what the old application wrote is settled."""
    settling.settle(connection)


def quarantine_models(
    sender: Any, connection: BaseDatabaseWrapper, held: Iterable[Held], **_: Any
) -> None:
    """Make the quarantine's entries for models exactly those that were held."""
    if not catalog.new_table_exists(connection, "legacy_quarantine"):
        return
    models = list(held)
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        cursor.execute(
            sql.query("quarantine_models"),
            {
                "ids": [model.id for model in models],
                "reasons": [model.reason for model in models],
                "details": [model.sentence for model in models],
                "rows": [model.row for model in models],
            },
        )


def close_what_is_made(
    sender: Any, connection: BaseDatabaseWrapper, table: str, **_: Any
) -> None:
    """Leave a new table to its owner, and block the new application until ``migrate`` ends."""
    if not catalog.has_legacy_tables(connection):
        return
    privileges.close_table(connection, *catalog.new(connection, table))
    if table in catalog.NEW_TABLES and closing.is_under_way(connection):
        closing.close(connection, table)


def remember_how_long(
    sender: Any,
    connection: BaseDatabaseWrapper,
    what: str,
    seconds: float,
    waited: float,
    attempts: int,
    **_: Any,
) -> None:
    """Note what a lock cost, for the next forecast."""
    if not catalog.new_table_exists(connection, "legacy_run"):
        # It may have been for a cut-over, after which the ledger is elsewhere.
        connection.follow_tables()  # type: ignore[attr-defined]
    if catalog.has_legacy_tables(connection) and catalog.new_table_exists(
        connection, "legacy_run"
    ):
        ledger.note_lock(connection.alias, what, seconds, waited, attempts)
