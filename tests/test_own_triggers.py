"""Triggers and foreign keys of the shop's own on the new tables: law 2 knows of none of them."""

from __future__ import annotations

import json

import pytest
from django.db import connection

from terrain.legacy import settling
from tests.both import Both
from tests.legacy import ids, insert, order

pytestmark = [pytest.mark.migration, pytest.mark.both_places]


def items(*lines: tuple[str, int]) -> str:
    return json.dumps([{"asset_id": asset, "quantity": n} for asset, n in lines])


def trigger(both: Both, table: str, when: str, body: str, name: str = "a_shop") -> None:
    both.database.execute(
        ids(
            f"CREATE FUNCTION public.{name}() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN {body} END $$;"
            f" CREATE TRIGGER {name} {when} ON {table} FOR EACH ROW"
            f" EXECUTE FUNCTION public.{name}()"
        )
    )


# --- what a foreign key does beneath a row that is being carried over -----------------------


def test_a_line_that_takes_another_of_its_order_along(both: Both) -> None:
    both.database.execute(
        "ALTER TABLE @new.order_items ADD COLUMN goes_with uuid"
        " REFERENCES @new.order_items (id) ON DELETE CASCADE"
    )
    three = items(("#tower", 2), ("#bridge", 1), ("#tower", 1))
    both.does(f"UPDATE orders SET items = '{three}' WHERE id = '#ord'")
    both.newly(
        "UPDATE order_items SET goes_with = (SELECT id FROM order_items WHERE position = 3)"
        " WHERE position = 1"
    )
    two = items(("#tower", 2), ("#bridge", 1))
    both.does(f"UPDATE orders SET items = '{two}' WHERE id = '#ord'")
    assert both.has("SELECT position FROM order_items") == [(2,)]
    assert both.sees("SELECT items::text FROM orders") == [
        ('[{"asset_id": "#bridge", "quantity": 1}]',)
    ]


def test_a_column_that_follows_another_of_its_row(both: Both) -> None:
    both.database.execute("ALTER TABLE @new.users ADD UNIQUE (email)")
    both.does("UPDATE artists SET stripe_account_id = email WHERE id = '#ann'")
    both.database.execute(
        "UPDATE @new.users SET stripe_account_id = NULL WHERE stripe_account_id <> email;"
        " ALTER TABLE @new.users ADD FOREIGN KEY (stripe_account_id)"
        " REFERENCES @new.users (email) ON UPDATE CASCADE"
    )
    both.does("UPDATE artists SET email = 'n@n.example' WHERE id = '#ann'")
    assert both.sees("SELECT stripe_account_id FROM artists WHERE id = '#ann'") == [
        ("n@n.example",)
    ]


def test_lines_that_follow_their_order_to_another_key_are_nobody_s_change(
    both: Both,
) -> None:
    both.does("DELETE FROM stripe_transfers")
    seven = items(("#bridge", 7))
    both.does(f"UPDATE orders SET id = '#o9', items = '{seven}' WHERE id = '#ord'")
    assert both.sees("SELECT id, items -> 0 -> 'quantity' FROM orders") == [("#o9", 7)]
    assert both.has("SELECT order_id, quantity FROM order_items") == [("#o9", 7)]


# --- the old application's change is not overwritten by what was there before ---------------


def test_a_trigger_that_changes_a_new_order_before_its_lines_are_there(
    both: Both,
) -> None:
    trigger(
        both,
        "@new.orders",
        "AFTER INSERT",
        "UPDATE @new.orders SET notes = 'welcome' WHERE id = NEW.id; RETURN NULL;",
    )
    insert(both.old, order("#o9", ({"asset_id": "#tower", "quantity": 2},), "6.66"))
    assert both.sees("SELECT notes, items::text FROM orders WHERE id = '#o9'") == [
        ("welcome", '[{"asset_id": "#tower", "quantity": 2}]')
    ]


def test_a_trigger_that_changes_other_rows_before_they_are_carried_over(
    both: Both,
) -> None:
    trigger(
        both,
        "@new.models",
        "AFTER UPDATE",
        "UPDATE @new.models SET genre = 'g' WHERE id <> NEW.id"
        " AND genre IS DISTINCT FROM 'g'; RETURN NULL;",
    )
    both.does("UPDATE assets SET base_price = 77")
    assert both.sees("SELECT DISTINCT base_price::int, genre FROM assets") == [
        (77, "g")
    ]


def test_two_triggers_that_each_change_the_row_on_their_side(both: Both) -> None:
    trigger(
        both,
        "@legacy.orders",
        "AFTER UPDATE OF items",
        "UPDATE @legacy.orders SET tracking_number = 't' WHERE id = NEW.id; RETURN NULL;",
    )
    trigger(
        both,
        "@new.orders",
        "BEFORE UPDATE",
        "NEW.notes := 'stored'; RETURN NEW;",
        "b_shop",
    )
    seven = items(("#bridge", 7))
    both.does(f"UPDATE orders SET items = '{seven}' WHERE id = '#ord'")
    assert both.sees(
        "SELECT tracking_number, notes, items -> 0 -> 'quantity' FROM orders"
    ) == [("t", "stored", 7)]


def test_what_a_trigger_makes_of_lines_that_were_kept_from_going(both: Both) -> None:
    """The order is inserted again, and its new row is there already."""
    trigger(both, "@new.orders", "BEFORE DELETE", "RETURN NULL;")
    trigger(
        both,
        "@new.order_items",
        "BEFORE INSERT OR UPDATE",
        "NEW.special_instructions := 'si'; RETURN NEW;",
        "b_shop",
    )
    both.does("DELETE FROM stripe_transfers")
    both.does("CREATE TEMP TABLE kept AS SELECT * FROM orders WHERE id = '#ord'")
    both.does("DELETE FROM orders WHERE id = '#ord'")
    both.does("INSERT INTO orders SELECT * FROM kept")
    assert both.sees("SELECT items -> 0 -> 'printOptions' ->> 'notes' FROM orders") == [
        ("si",)
    ]


def test_triggers_that_never_agree_hold_the_row_and_stop_no_other(both: Both) -> None:
    trigger(
        both,
        "@legacy.artists",
        "BEFORE UPDATE",
        "NEW.name := upper(NEW.name); RETURN NEW;",
    )
    trigger(
        both,
        "@new.users",
        "AFTER UPDATE OF display_name",
        "UPDATE @new.users SET display_name = 'n' || NEW.display_name WHERE id = NEW.id"
        " AND length(display_name) < 200; RETURN NULL;",
        "b_shop",
    )
    both.does("UPDATE artists SET name = 'x' WHERE id = '#ann'")
    both.does("UPDATE assets SET name = 'y' WHERE id = '#tower'")
    settling.settle(connection)
    assert [(table, id_) for table, id_, _why in both.held()] == [("artists", "#ann")]
    both.database.execute("DROP TRIGGER b_shop ON @new.users")
    both.database.execute("DROP TRIGGER a_shop ON @legacy.artists")
    both.does("UPDATE artists SET name = 'z' WHERE id = '#ann'")
    assert both.held() == []


def test_triggers_that_each_insist_hold_the_row(both: Both) -> None:
    """The legacy row is the same at every level, and held all the same."""
    trigger(
        both,
        "@legacy.artists",
        "BEFORE UPDATE",
        "NEW.name := 'a'; RETURN NEW;",
    )
    trigger(
        both,
        "@new.users",
        "AFTER UPDATE OF display_name",
        "UPDATE @new.users SET display_name = 'b' WHERE id = NEW.id"
        " AND display_name <> 'b'; RETURN NULL;",
        "b_shop",
    )
    both.does("UPDATE artists SET name = 'x' WHERE id = '#ann'")
    assert [(table, id_) for table, id_, _why in both.held()] == [("artists", "#ann")]


# --- beneath a row that is being carried over, its legacy row changes -----------------------


def test_of_two_rows_that_are_spoilt_beneath_one_both_are_held(both: Both) -> None:
    both.does(
        "INSERT INTO user_tables (id, user_email, name, table_config, layout_data)"
        " VALUES ('#two', 'sits@at.example', 'T', '{}', '{}')"
    )
    spoils = "UPDATE @legacy.user_tables SET table_config = '[]' WHERE id = '{}';"
    trigger(
        both,
        "@new.tables",
        "AFTER UPDATE",
        f"IF NEW.name = 'boom' THEN {spoils.format('#den')} {spoils.format('#two')} END IF;"
        " RETURN NULL;",
    )
    both.does("UPDATE user_tables SET name = 'boom' WHERE id = '#den'")
    assert both.held() == [
        ("user_tables", "#den", "table_config_not_object"),
        ("user_tables", "#two", "table_config_not_object"),
    ]
    assert both.has("SELECT id FROM tables WHERE kind = 'user'") == []


def test_what_was_held_beneath_is_released_by_the_next_statement(both: Both) -> None:
    """Also by one of the same message."""
    trigger(
        both,
        "@new.tables",
        "AFTER UPDATE",
        "IF NEW.name = 'boom' THEN UPDATE @legacy.user_tables SET table_config = '[]'"
        " WHERE id = '#den'; END IF; RETURN NULL;",
    )
    both.does(
        "DO $$ BEGIN UPDATE user_tables SET name = 'boom' WHERE id = '#den';"
        " UPDATE user_tables SET table_config = '{}', name = 'good' WHERE id = '#den'; END $$"
    )
    assert both.held() == []
    assert both.has("SELECT name FROM tables WHERE id = '#den'") == [("good",)]


@pytest.mark.parametrize("quantity", [None, 9])
def test_lines_are_those_that_a_trigger_beneath_has_left(
    both: Both, quantity: int | None
) -> None:
    left = [{"asset_id": "#tower", **({"quantity": quantity} if quantity else {})}]
    trigger(
        both,
        "@new.orders",
        "AFTER UPDATE",
        f"IF NEW.status = 'x' THEN UPDATE @legacy.orders SET items = '{json.dumps(left)}'"
        " WHERE id = NEW.id; END IF; RETURN NULL;",
    )
    five = items(("#tower", 5))
    both.does(f"UPDATE orders SET status = 'x', items = '{five}' WHERE id = '#ord'")
    assert both.has("SELECT quantity FROM order_items") == (
        [(quantity,)] if quantity else []
    )
    assert both.held() == ([] if quantity else [("orders", "#ord", "quantity_missing")])


# --- notes in the quarantine ----------------------------------------------------------------


def test_a_flag_names_the_key_that_its_row_has_now(both: Both) -> None:
    both.does("UPDATE assets SET base_price = 0 WHERE id = '#bridge'")
    both.does("UPDATE assets SET id = '#b2' WHERE id = '#bridge'")
    assert both.has(
        "SELECT legacy_id, reason, starts_with(detail, 'assets ' || legacy_id || ' has'),"
        " \"row\" ->> 'id' FROM legacy_quarantine"
    ) == [("#b2", "amount_zero", True, "#b2")]


# --- a foreign key of somebody's to the lines -----------------------------------------------


def test_a_reference_to_a_line_does_not_keep_its_order_late(both: Both) -> None:
    both.database.execute(
        "CREATE TABLE public.remarks (line uuid REFERENCES @new.order_items (id));"
        " INSERT INTO public.remarks SELECT id FROM @new.order_items"
    )
    both.does("DELETE FROM stripe_transfers")
    both.does("UPDATE orders SET id = '#o9' WHERE id = '#ord'")
    assert both.has("SELECT count(*) FROM rebuilt.queue WHERE late") == [(0,)]
    assert both.has(
        "SELECT i.order_id FROM public.remarks r JOIN order_items i ON i.id = r.line"
    ) == [("#o9",)]
