"""The limits when two sessions come to them at once, stepped by hand."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from django.db import connection

from terrain.legacy import cut_over, search_path
from tests.conftest import Database

pytestmark = [pytest.mark.migration, pytest.mark.both_places]


@pytest.fixture
def migrated(migrated: Database, is_cut_over: bool) -> Database:
    """Before the names have changed places, and after it."""
    if is_cut_over:
        cut_over.cut_over(connection)
        search_path.extend(connection)
    return migrated


@pytest.fixture
def visitor(migrated: Database) -> uuid.UUID:
    """A session with two of its three tables."""
    key: uuid.UUID = migrated.value(
        "INSERT INTO anonymous_sessions (session_token) VALUES ('t') RETURNING id"
    )
    for _ in range(2):
        migrated.execute(INSERT_TABLE, key)
    return key


INSERT_TABLE = "INSERT INTO tables (name, session_id) VALUES ('T', %s)"


def waits_for_lock(database: Database, pid: int) -> bool:
    return bool(
        database.value(
            "SELECT coalesce(wait_event_type = 'Lock', false) FROM pg_stat_activity"
            " WHERE pid = %s",
            pid,
        )
    )


def second_insert(
    database: Database, second: psycopg.Connection[Any], statement: str, *params: Any
) -> Callable[[], BaseException | None]:
    """Start a statement that has to wait; returns what waits for its outcome."""
    outcome: list[BaseException | None] = []

    def run() -> None:
        try:
            second.execute(statement, params)  # type: ignore[arg-type]
            outcome.append(None)
        except psycopg.Error as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    pid = second.info.backend_pid
    while thread.is_alive() and not waits_for_lock(database, pid):
        thread.join(0.01)

    def finish() -> BaseException | None:
        thread.join()
        return outcome[0]

    return finish


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
@pytest.mark.parametrize("ends", ["COMMIT", "ROLLBACK"])
def test_two_tables_at_once(
    migrated: Database, visitor: uuid.UUID, isolation: str, ends: str
) -> None:
    """One place is left: whoever is second waits, and gets it only if the first gives up."""
    first, second = migrated.new(), migrated.new()
    for each in (first, second):
        each.execute(
            f"SET default_transaction_isolation = '{isolation}'"  # type: ignore[arg-type]
        )
        each.execute("BEGIN")
        each.execute("SELECT count(*) FROM tables")
    first.execute(INSERT_TABLE, [visitor])
    finish = second_insert(migrated, second, INSERT_TABLE, visitor)
    first.execute(ends)  # type: ignore[arg-type]
    error = finish()
    second.execute("COMMIT")
    if ends == "ROLLBACK":
        assert error is None
    elif isolation == "read committed":
        assert isinstance(error, psycopg.Error) and error.sqlstate == "TB001"
    else:
        assert isinstance(error, psycopg.errors.SerializationFailure)
    there = "SELECT count(*) FROM tables WHERE session_id = %s"
    assert migrated.value(there, visitor) == 3


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
def test_two_assets_at_once(migrated: Database, isolation: str) -> None:
    assets = migrated.rows(
        "INSERT INTO @new.assets (artist_id, name, file_ref) SELECT id, 'A', 'a.stl'"
        " FROM @new.users WHERE role <> 'customer' LIMIT 2 RETURNING id"
    )
    table = migrated.value(
        "INSERT INTO tables (name, max_assets) VALUES ('T', 1) RETURNING id"
    )
    insert = "INSERT INTO table_assets (table_id, asset_id) VALUES (%s, %s)"
    first, second = migrated.new(), migrated.new()
    for each in (first, second):
        each.execute(
            f"SET default_transaction_isolation = '{isolation}'"  # type: ignore[arg-type]
        )
        each.execute("BEGIN")
        each.execute("SELECT count(*) FROM table_assets")
    first.execute(insert, [table, assets[0][0]])
    finish = second_insert(migrated, second, insert, table, assets[1][0])
    if isolation == "read committed":
        # The old application saves the same table meanwhile, and does not wait for either.
        old = migrated.old()
        old.execute("SET lock_timeout = '100ms'")
        old.execute("UPDATE user_tables SET name = 'Saved' WHERE id = %s", [table])
    first.execute("COMMIT")
    error = finish()
    assert isinstance(error, psycopg.Error)
    assert error.sqlstate == ("TB001" if isolation == "read committed" else "40001")
    second.execute("ROLLBACK")
    assert (
        migrated.value("SELECT count(*) FROM table_assets WHERE table_id = %s", table)
        == 1
    )
