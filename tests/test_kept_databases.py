"""Databases that an earlier version moved go on: see tests/kept/migrated-before-cut-over."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from terrain.embedded import OWNER
from tests import dumps
from tests.conftest import Database, Result

pytestmark = pytest.mark.migration

Manage = Callable[..., Result]

#: Legacy table -> rows.
ROWS = {
    "artists": 4,
    "assets": 50,
    "user_tables": 200,
    "example_tables": 5,
    "orders": 503,
    "stripe_transfers": 350,
}


def quarantine(database: Database) -> list[Any]:
    return database.rows(
        "SELECT legacy_table, right(legacy_id::text, 1), kind, reason"
        "  FROM legacy_quarantine ORDER BY 2"
    )


def test_a_migrated_database_goes_on_as_one_that_is_cut_over(
    empty: Database, manage: Manage
) -> None:
    dumps.restore(empty, "migrated")
    migrated = manage("migrate")
    assert migrated.code == 0, migrated.err
    assert manage("settle").code == 0
    verified = manage("verify_migration")
    assert verified.code == 0, verified.out
    status = json.loads(manage("migration_status", "--json").out)
    states = {each["name"]: each["state"] for each in status["steps"]}
    assert {name for name, state in states.items() if state != "done"} == {
        "backup",
        "cleanup",
    }
    # The two applications are in step as they were, the old one by the path that it was given.
    with empty.connect("shop_app") as old:
        old.execute("UPDATE orders SET items = '[]' WHERE order_number = 'KEPT-2'")
        assert old.execute(
            "SELECT status FROM orders WHERE order_number = 'AA-0000001'"
        ).fetchall() == [("shipped",)]
    kept = "SELECT count(*) FROM public.orders WHERE order_number LIKE 'KEPT-%'"
    assert empty.value(kept) == 3
    assert quarantine(empty) == [
        ("orders", "2", "flagged", "subtotal_missing"),
        ("orders", "3", "flagged", "amount_zero"),
    ]
    for table, rows in ROWS.items():
        assert empty.value(f"SELECT count(*) FROM legacy.{table}") == rows


def test_its_cut_over_is_undone_and_done_again(empty: Database, manage: Manage) -> None:
    dumps.restore(empty, "migrated")
    assert manage("migrate").code == 0
    before = dumps.contents(empty)

    undone = manage("cut_over", "--undo", "--yes")
    assert undone.code == 0, undone.err
    for table, rows in ROWS.items():
        assert empty.value(f"SELECT count(*) FROM public.{table}") == rows
    assert dumps.contents(empty) == before
    # The limits follow their tables.
    with empty.connect(OWNER) as owner, pytest.raises(
        psycopg.Error, match="may keep 3"
    ):
        owner.execute(
            "INSERT INTO terrain.tables (id, session_id, kind, name, config, layout)"
            " SELECT gen_random_uuid(), s.id, 'user', 'one too many', '{}', '{}'"
            "   FROM (SELECT id FROM terrain.anonymous_sessions LIMIT 1) s,"
            "        generate_series(1, 4)"
        )
    with empty.connect("shop_app") as old:
        old.execute("UPDATE orders SET status = 'paid' WHERE order_number = 'KEPT-3'")
    verified = manage("verify_migration")
    assert verified.code == 0, verified.out
    again = manage("cut_over", "--yes", "--ignore-activity")
    assert again.code == 0, again.err
    assert manage("verify_migration").code == 0
    assert manage("rollback_migration", "--yes").code == 0
    for table, rows in ROWS.items():
        assert empty.value(f"SELECT count(*) FROM public.{table}") == rows


def test_a_database_that_was_rolled_back_is_migrated_again(
    empty: Database, manage: Manage
) -> None:
    dumps.restore(empty, "rolled-back")
    for table, rows in ROWS.items():
        assert empty.value(f"SELECT count(*) FROM public.{table}") == rows
    assert "legacy_parked" in dumps.schemas(empty)
    migrated = manage("migrate")
    assert migrated.code == 0, migrated.err
    assert manage("settle").code == 0
    verified = manage("verify_migration")
    assert verified.code == 0, verified.out
    assert quarantine(empty) == [
        ("orders", "2", "held", "items_not_array"),
        ("orders", "3", "flagged", "amount_zero"),
    ]
    # What only the new schema knows came back with the parked tables, and Django's own moved.
    assert empty.value("SELECT count(*) FROM terrain.table_assets") == 994
    assert empty.value("SELECT to_regclass('public.django_migrations')") is None
