"""Verification: a planted fault for every check, which that check finds and no other.

A fault in a value that has a legacy counterpart is seen by the derived check of its
table as well; ``fooled`` puts in place of its rebuilt view what a declaration that is
wrong both ways would make: a view that says whatever the legacy table says.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import DataError, connection, transaction

from terrain.exceptions import Refused
from terrain.legacy import checks, settling
from terrain.legacy.findings import Finding, Severity
from terrain.legacy.mapping import LENSES
from tests import hostile, test_laws
from tests.conftest import Database

pytestmark = pytest.mark.migration

Manage = Callable[..., Any]


@dataclass(frozen=True)
class Fault:
    """Statements that plant it, unseen by the triggers of the table ``echo``."""

    statements: tuple[str, ...]
    echo: str = ""
    fooled: str = ""


def fault(*statements: str, echo: str = "", fooled: str = "") -> Fault:
    return Fault(statements, echo, fooled)


def disowned(table: str, condition: str, *columns: str) -> str:
    """Rows lose their owner, and settle, which looks for such rows, cannot give it back."""
    forget = " ".join(f"NEW.{column} := NULL;" for column in columns)
    return (
        f"CREATE FUNCTION public.disown() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN {forget} RETURN NEW; END $$;"
        f" CREATE TRIGGER disown BEFORE UPDATE ON terrain.{table} FOR EACH ROW"
        f" WHEN ({condition}) EXECUTE FUNCTION public.disown();"
        f" UPDATE terrain.{table} SET {columns[0]} = NULL"
        f" WHERE {condition.replace('NEW.', '')}"
    )


FAULTS: dict[str, Fault] = {
    **{
        f"in_step_{table}": fault(
            f"UPDATE public.{table} SET {column} = 'changed' WHERE id ="
            f" (SELECT min(id::text)::uuid FROM public.{table})",
            echo=f"legacy.{table}",
        )
        for table, column in (
            ("artists", "name"),
            ("assets", "name"),
            ("user_tables", "name"),
            ("example_tables", "name"),
            ("orders", "notes"),
            ("stripe_transfers", "stripe_transfer_id"),
        )
    },
    "triggers": fault("ALTER TABLE public.orders DISABLE TRIGGER zz_terrain_sync_row"),
    "settled": fault("SELECT 1"),  # see hold_queue
    "public_schema": fault("ALTER TABLE terrain.models ADD COLUMN colour text"),
    "money_of_orders": fault(
        "UPDATE terrain.order_items SET total_price = total_price + 0.01 WHERE id ="
        " (SELECT id FROM terrain.order_items ORDER BY id LIMIT 1)",
        echo="orders",
    ),
    "money_by_status": fault(
        "UPDATE terrain.orders SET pricing = pricing || '{\"total\": 0.01}'"
        " WHERE order_number = 'AA-0000001'",
        echo="orders",
        fooled="orders",
    ),
    "money_of_artists": fault(
        "UPDATE terrain.payments SET amount = amount + 0.01 WHERE id ="
        " (SELECT id FROM terrain.payments ORDER BY id LIMIT 1)",
        echo="payments",
        fooled="stripe_transfers",
    ),
    "money_of_models": fault(
        "UPDATE terrain.models SET base_price = base_price + 0.01 WHERE name LIKE '%% 2'",
        echo="models",
        fooled="assets",
    ),
    "lines_of_orders": fault(
        "UPDATE terrain.order_items SET quantity = quantity + 1 WHERE id ="
        " (SELECT id FROM terrain.order_items ORDER BY id LIMIT 1)",
        echo="orders",
        fooled="orders",
    ),
    "lines_know_their_model": fault(
        "UPDATE terrain.order_items i SET model_id = (SELECT m.id FROM terrain.models m"
        "  WHERE m.id <> i.model_id ORDER BY m.id LIMIT 1)"
        " WHERE i.id = (SELECT id FROM terrain.order_items ORDER BY id LIMIT 1)",
        echo="orders",
    ),
    "passwords": fault(
        "UPDATE terrain.users SET password_hash = 'x' WHERE email = 'artist2@example.com'",
        echo="users",
        fooled="artists",
    ),
    "accounts": fault(
        "UPDATE terrain.users SET status = 'suspended' WHERE email = 'artist2@example.com'",
        echo="users",
        fooled="artists",
    ),
    "customers": fault(
        "UPDATE terrain.users SET email = upper(email) WHERE id ="
        " (SELECT id FROM terrain.users WHERE role = 'customer' ORDER BY id LIMIT 1)"
    ),
    # What has no owner is given one by settle, unless somebody's trigger is against it.
    "orders_have_an_owner": fault(
        disowned("orders", "NEW.order_number = 'AA-0000001'", "user_id")
    ),
    "orders_of_their_owner": fault(
        "UPDATE terrain.orders o SET user_id = (SELECT u.id FROM terrain.users u"
        "  WHERE u.role = 'customer' AND u.id <> o.user_id ORDER BY u.id LIMIT 1)"
        " WHERE o.order_number = 'AA-0000001'"
    ),
    "tables_have_an_owner": fault(
        disowned("tables", "NEW.name = 'Table 2'", "user_id", "session_id"),
        echo="tables",
    ),
    "examples_have_their_artist": fault(
        "UPDATE terrain.tables t SET user_id = (SELECT u.id FROM terrain.users u"
        "  WHERE u.role = 'artist' AND u.id <> t.user_id ORDER BY u.id LIMIT 1)"
        " WHERE t.kind = 'example' AND t.name = 'Showcase 2'",
        echo="tables",
        fooled="example_tables",
    ),
    "measures": fault(
        "UPDATE terrain.tables SET width = width + 1 WHERE name = 'Table 2'",
        echo="tables",
        fooled="user_tables",
    ),
    "held_rows_stay_behind": fault(
        "UPDATE public.user_tables SET table_config = '[]' WHERE name = 'Table 2'",
        "CREATE OR REPLACE FUNCTION rebuilt.user_tables_gone(_key uuid) RETURNS boolean"
        " LANGUAGE sql AS 'SELECT true'",
        "SELECT set_config('terrain.echo', 'tables:*@0', true)",
        "INSERT INTO terrain.tables (id, kind, name, user_id, config, layout)"
        " SELECT l.id, 'user', l.name, u.id, '{}', '{}' FROM public.user_tables l,"
        " (SELECT id FROM terrain.users LIMIT 1) u WHERE l.name = 'Table 2'",
    ),
    "assets_of_models": fault(
        "INSERT INTO terrain.assets (id, model_id, artist_id, name, file_ref, copied)"
        " SELECT id, id, artist_id, name, '', '{}' FROM terrain.models WHERE name LIKE '%% 2'"
    ),
    "asset_counters": fault(
        "INSERT INTO terrain.assets (id, model_id, artist_id, name, file_ref, add_count)"
        " SELECT id, id, artist_id, name, 'a.stl', 7 FROM terrain.models"
        " WHERE name LIKE '%% 2'"
    ),
}


#: Other ways to be wrong that a check claims to see.
VARIANTS: dict[str, tuple[str, Fault]] = {
    "a measure that is gone": (
        "measures",
        fault(
            "UPDATE terrain.tables SET width = NULL WHERE name = 'Table 2'",
            echo="tables",
            fooled="user_tables",
        ),
    ),
    "a measure from nowhere": (
        "measures",
        fault(
            "UPDATE public.example_tables SET table_config = '{}' WHERE name = 'Showcase 2'",
            echo="legacy.example_tables",
            fooled="example_tables",
        ),
    ),
    "a line that is gone, its price with another": (
        "lines_of_orders",
        fault(
            "WITH gone AS (DELETE FROM terrain.order_items i USING terrain.orders o"
            "  WHERE o.id = i.order_id AND i.position = 2 AND o.order_number ="
            "   (SELECT min(order_number) FROM terrain.orders WHERE id IN"
            "      (SELECT order_id FROM terrain.order_items WHERE position = 2))"
            "  RETURNING i.order_id, i.total_price)"
            " UPDATE terrain.order_items i SET total_price = i.total_price + g.total_price"
            "  FROM gone g WHERE i.order_id = g.order_id AND i.position = 1",
            echo="orders",
            fooled="orders",
        ),
    ),
    "an order whose lines are held and there": (
        "held_rows_stay_behind",
        fault(
            "UPDATE public.orders SET items = '{}' WHERE order_number = 'AA-0000001'",
            "CREATE OR REPLACE FUNCTION rebuilt.orders_to_new(_key uuid, _part boolean"
            " DEFAULT true) RETURNS void LANGUAGE sql AS ''",
            "SELECT set_config('terrain.echo', 'orders:*@0', true)",
            "INSERT INTO terrain.order_items (id, order_id, position, quantity)"
            " SELECT gen_random_uuid(), id, 1, 1 FROM terrain.orders"
            " WHERE order_number = 'AA-0000001'",
        ),
    ),
    "an artist without an account": (
        "accounts",
        fault(
            "UPDATE terrain.users SET email = 'other@example.com'"
            " WHERE email = 'artist2@example.com'",
            echo="users",
            fooled="artists",
        ),
    ),
    "an order of another status": (
        "money_by_status",
        fault(
            "UPDATE terrain.orders SET status = 'lost' WHERE order_number = 'AA-0000001'",
            echo="orders",
            fooled="orders",
        ),
    ),
}


def plant(planted: Fault) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        if planted.fooled:
            cursor.execute(
                f"CREATE OR REPLACE VIEW rebuilt.{planted.fooled} AS"
                f" SELECT * FROM public.{planted.fooled}"
            )
        if planted.echo:
            cursor.execute(
                "SELECT set_config('terrain.echo', %s, true)", [f"{planted.echo}:*@0"]
            )
        for statement in planted.statements:
            cursor.execute(statement, [])


def odd(result: checks.Verification) -> list[Finding]:
    return [each for each in result.findings if each.severity != Severity.PASSES]


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_by_its_check_alone(
    migrated: Database, name: str
) -> None:
    plant(FAULTS[name])
    if name == "settled":
        hold_queue(migrated)
    result = checks.verify(connection, every_row=True)
    assert [each.name for each in odd(result)] == [name], odd(result)
    found = odd(result)[0]
    assert found.count >= 1
    assert name == "settled" or len(found.rows) == found.count
    assert found.remedy


@pytest.mark.parametrize("what", VARIANTS)
def test_every_way_to_be_wrong_is_found(migrated: Database, what: str) -> None:
    name, planted = VARIANTS[what]
    plant(planted)
    result = checks.verify(connection)
    assert [each.name for each in odd(result)] == [name], odd(result)


def hold_queue(database: Database) -> None:
    """Somebody else is settling the one row that waits."""
    other = database.connect()
    other.execute(
        "INSERT INTO rebuilt.queue (legacy_table, key) SELECT 'orders', id"
        " FROM public.orders LIMIT 1"
    )
    other.execute("BEGIN")
    other.execute("SELECT FROM rebuilt.queue FOR UPDATE")


def test_what_was_written_since_the_last_settle_is_no_failure(
    migrated: Database,
) -> None:
    """A shop that is open has always some."""
    old = migrated.old()
    old.execute(
        "INSERT INTO orders (order_number, user_email, user_name, shipping_address, pricing)"
        " VALUES ('N-1', 'new@since.example', 'N', '{}', '{}')"
    )
    old.execute(
        "INSERT INTO user_tables (name, table_config, layout_data) VALUES ('N', '{}', '{}')"
    )
    old.execute(
        "INSERT INTO artists (email, password_hash, name)"
        " VALUES ((SELECT lower(user_email) FROM orders LIMIT 1), 'h', 'A buyer')"
    )
    findings = [checks.ask(connection, check) for check in checks.by_hand()]
    findings.append(checks.settled(connection))
    (found,) = odd(checks.Verification(tuple(findings), ()))
    assert (found.name, found.sentence) == (
        "settled",
        "Rows that wait to be settled: 3.",
    )
    assert odd(checks.verify(connection)) == []


def test_every_check_has_a_planted_fault(migrated: Database) -> None:
    result = checks.verify(connection)
    assert odd(result) == []
    assert {each.name for each in result.findings} == set(FAULTS)


def test_a_trigger_that_does_not_always_fire_is_found(migrated: Database) -> None:
    plant(
        fault(
            "ALTER TABLE public.orders ENABLE TRIGGER zz_terrain_sync_row",
            "DROP TRIGGER zz_terrain_sync_truncate ON terrain.users",
        )
    )
    (found,) = odd(checks.verify(connection))
    assert found.rows == (
        {"table": "public.orders", "trigger": "zz_terrain_sync_row"},
        {"table": "terrain.users", "trigger": "zz_terrain_sync_truncate"},
    )


#: Legacy columns whose values occur once.
UNIQUE = ("email", "share_token", "order_number")


@pytest.mark.parametrize("lens", LENSES, ids=lambda lens: lens.legacy)
def test_a_row_that_is_missing_on_either_side_is_found(
    migrated: Database, lens: Any
) -> None:
    """Beyond the last key as well."""
    key = "ffffffff-ffff-4fff-bfff-ffffffffffff"
    own = [column.name for column in lens.mapped if column.name in UNIQUE]
    same = [c.name for c in lens.mapped if c.name not in ("id", *UNIQUE)]
    into = ", ".join(["id", *own, *same])
    values = ", ".join([f"'{key}'", *("'new'" for _ in own), *same])
    plant(
        fault(
            f"INSERT INTO public.{lens.legacy} ({into})"
            f" SELECT {values} FROM public.{lens.legacy} LIMIT 1",
            echo=f"legacy.{lens.legacy}",
        )
    )
    found = checks.in_step(connection, lens)
    assert found.count == 1
    assert str(found.rows[0]["id"]) == key
    assert found.rows[0]["rebuilt"] is None


def test_verify_as_a_command(migrated: Database, manage: Manage) -> None:
    plant(FAULTS["passwords"])
    plant(FAULTS["orders_of_their_owner"])
    result = manage("verify_migration")
    assert (result.code, result.err) == (1, "")
    assert "✗ passwords: An artist's password is another than before.\n" in result.out
    assert (
        "! orders_of_their_owner: An order belongs to an account with another address.\n"
        in result.out
    )
    assert result.out.endswith(f"1 of {len(FAULTS)} checks failed.\n")
    document = json.loads(manage("verify_migration", "--json").out)
    assert document["passed"] is False
    assert [
        each["name"] for each in document["checks"] if each["severity"] == "fails"
    ] == ["passwords"]


def test_json_has_every_row(migrated: Database, manage: Manage) -> None:
    plant(fault(disowned("orders", "true", "user_id")))
    result = manage("verify_migration", "--json")
    assert (result.code, result.err) == (1, "")
    (found,) = (
        each for each in json.loads(result.out)["checks"] if each["severity"] == "fails"
    )
    assert found["count"] == len(found["rows"]) == 500


def test_no_check_cries_wolf_over_hostile_rows(shop: Database, manage: Manage) -> None:
    """Before the migration and after it; what is held or flagged is no failure."""
    hostile.fill(shop)
    assert manage("migrate", "-v", "0").code == 0
    result = checks.verify(connection, every_row=True)
    assert odd(result) == []
    assert result.quarantined


def test_no_check_cries_wolf_over_rows_written_since(migrated: Database) -> None:
    hostile.fill(migrated)
    assert odd(checks.verify(connection, every_row=True)) == []


def test_no_check_cries_wolf_over_what_the_new_application_writes(
    migrated: Database,
) -> None:
    hostile.fill(migrated)
    values = {
        "number": 7,
        "positive": 3,
        "text": "Ünïcode\t'",
        "object": '{"width": 2.0, "quantity": 4, "unit_price": "1.10", "x": [1.50]}',
        "price": "2.35",
    }
    refused = 0
    for statement in test_laws.WRITES.elements:
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement, values)
        except (Refused, DataError):  # one of them counts beyond integer
            refused += 1
    assert 0 < refused < len(test_laws.WRITES.elements)
    assert odd(checks.verify(connection, every_row=True)) == []


def order_of_the_old_application(database: Database, number: int) -> None:
    database.execute(
        "INSERT INTO orders (order_number, user_email, user_name, shipping_address, items,"
        " pricing) VALUES (%s, %s, 'N', '{}', '[]', '{\"model_subtotal\": 0}')",
        f"LIVE-{number}",
        f"live{number}@x.org",
    )
    database.execute(
        "INSERT INTO user_tables (user_email, name, table_config, layout_data)"
        " VALUES (NULL, %s, '{}', '{}')",
        f"Live {number}",
    )


def test_no_check_cries_wolf_over_what_comes_while_it_is_asked(
    migrated: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old application writes after every settling; it is not said to be at fault."""
    settle, settled = settling.settle, []

    def busy(*arguments: Any) -> Any:
        done = settle(*arguments)
        settled.append(done)
        order_of_the_old_application(migrated, len(settled))
        return done

    monkeypatch.setattr(settling, "settle", busy)
    result = checks.verify(connection, every_row=True)
    assert len(settled) == 1
    assert [each.name for each in odd(result)] == ["settled"]
    assert not result.failures


def test_no_check_cries_wolf_over_what_somebody_else_is_settling(
    migrated: Database,
) -> None:
    order_of_the_old_application(migrated, 1)
    other = migrated.connect()
    other.execute("BEGIN")
    other.execute("SELECT FROM rebuilt.queue FOR UPDATE")
    result = checks.verify(connection, every_row=True)
    assert [each.name for each in odd(result)] == ["settled"]


@pytest.mark.parametrize(
    "odd_width", ["[900]", '["x", 4]', "{}", '"900"', "1.5", "null"]
)
def test_what_is_no_number_is_no_measure(migrated: Database, odd_width: str) -> None:
    migrated.execute(
        "UPDATE user_tables SET table_config = jsonb_build_object('width', %s::jsonb)",
        odd_width,
    )
    assert odd(checks.verify(connection, every_row=True)) == []
