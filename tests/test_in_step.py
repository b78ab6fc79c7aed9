"""Keeping in step: each known trap, and the rules of who gives way (section 3)."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection
from django.db import transaction as django_transaction

from catalogue.models import AssetSet, Model, Table
from orders.models import Order, OrderItem
from terrain.exceptions import Refused, TryAgain
from terrain.legacy import settling, sql
from terrain.legacy.mapping import BY_NEW, LENSES
from terrain.models import User
from tests.conftest import Database, Result, pointed_at
from tests.legacy import (
    artist,
    example,
    ids,
    insert,
    key,
    legacy_schema,
    model,
    named,
    order,
    table,
    transfer,
)

pytestmark = pytest.mark.migration

Connection = psycopg.Connection[Any]


@dataclass
class Both:
    """The two applications, at one database."""

    database: Database
    old: Connection
    new: Connection

    def does(self, statement: str, *params: Any) -> psycopg.Cursor[Any]:
        """The old application runs a statement."""
        return self.old.execute(ids(statement), params or None)  # type: ignore[arg-type]

    def newly(self, statement: str, *params: Any) -> psycopg.Cursor[Any]:
        """The new application runs a statement."""
        return self.new.execute(ids(statement), params or None)  # type: ignore[arg-type]

    def sees(self, query: str) -> list[Any]:
        """What the old application sees, ids by name."""
        return [tuple(map(named, row)) for row in self.does(query).fetchall()]

    def has(self, query: str) -> list[Any]:
        """What the new application sees, ids by name."""
        return [tuple(map(named, row)) for row in self.newly(query).fetchall()]

    def held(self) -> list[Any]:
        return self.has(
            "SELECT legacy_table, legacy_id, reason FROM legacy_quarantine"
            " WHERE kind = 'held' ORDER BY 1, 2, 3"
        )


@pytest.fixture(scope="module")
def stocked(
    cluster: Any,
    create_database: Callable[..., str],
    drop_database: Callable[[str], None],
    administrator: Connection,
    django_db_blocker: Any,
) -> Iterator[str]:
    """A migrated shop with a few rows of known names, and no others."""
    database = Database(cluster, create_database())
    with database.connect("terrain", "public") as owner:
        legacy_schema(owner)
        insert(
            owner,
            artist("#ann"),
            artist("#bob"),
            model("#tower", "#ann", "3.33"),
            model("#bridge", "#bob", "10.00"),
            table("#den", "sits@at.example", {"width": 1200}),
            example("#show", "#ann"),
            order("#ord", ({"asset_id": "#tower", "quantity": 2},), "6.66"),
            transfer("#pay", "#ord", "#ann"),
        )
    with django_db_blocker.unblock(), pointed_at(database.name):
        call_command("migrate", verbosity=0)
    yield database.name
    drop_database(database.name)


@pytest.fixture
def both(stocked: str, clone: Callable[[str], Database]) -> Iterator[Both]:
    """Both applications at a shop of the test's own; in step when the test ends."""
    database = clone(stocked)
    here = Both(database, database.old(), database.connect("terrain", "public"))
    yield here
    here.new.close()
    here.old.close()
    assert_in_step(here)


def assert_in_step(both: Both) -> None:
    """Law 2, row for row."""
    for lens in LENSES:
        with connection.cursor() as cursor:
            cursor.execute(sql.differences(lens), {"after": None, "upto": None})
            assert cursor.fetchall() == [], lens.legacy


# --- the old application is never in the way of itself --------------------------------------


def test_owner_links_wait_for_settle(both: Both) -> None:
    insert(
        both.old,
        order("#later", email="Late@r.example"),
        table("#later_table", "late@r.example"),
        table("#later_anon", ""),
    )
    waiting = (
        "SELECT o.user_id, t.user_id, t.session_id, a.user_id, a.session_id"
        "  FROM orders o, tables t, tables a"
        " WHERE o.id = '#later' AND t.id = '#later_table' AND a.id = '#later_anon'"
    )
    assert both.has(waiting) == [(None,) * 5]
    settling.settle_queue(connection)
    customer, same, none, nobody, session = both.has(waiting)[0]
    assert customer == same is not None and none is nobody is None
    assert both.has(f"SELECT email, role FROM users WHERE id = '{customer}'") == [
        ("late@r.example", "customer")
    ]
    assert session is not None


def test_two_old_clients_with_one_new_address_do_not_wait_for_each_other(
    both: Both,
) -> None:
    """An account is unique; who made it in the trigger would make the other wait."""
    other = both.database.old()
    with both.old.transaction(), other.transaction():
        other.execute("SET lock_timeout = '50ms'")
        insert(both.old, order("#one", email="same@new.example"))
        insert(other, order("#two", email="Same@new.example"))
    settling.settle_queue(connection)
    assert both.has(
        "SELECT count(*), count(DISTINCT user_id) FROM orders WHERE id IN ('#one', '#two')"
    ) == [(2, 1)]


def test_an_address_that_changes_is_settled_anew(both: Both) -> None:
    both.does("UPDATE orders SET user_email = 'ann@artists.example' WHERE id = '#ord'")
    assert both.has("SELECT user_id FROM orders WHERE id = '#ord'") == [(None,)]
    both.does("UPDATE user_tables SET user_email = NULL WHERE id = '#den'")
    settling.settle(connection)
    assert both.has("SELECT user_id FROM orders WHERE id = '#ord'") == [("#ann",)]
    assert both.has(
        "SELECT t.user_id, s.table_limit FROM tables t"
        " JOIN anonymous_sessions s ON s.id = t.session_id WHERE t.id = '#den'"
    ) == [(None, 3)]
    both.does(
        "UPDATE user_tables SET user_email = 'bob@artists.example' WHERE id = '#den'"
    )
    settling.settle(connection)
    assert both.has("SELECT user_id, session_id FROM tables WHERE id = '#den'") == [
        ("#bob", None)
    ]


def test_an_artist_who_takes_a_customers_address_is_merged_with_them(
    both: Both,
) -> None:
    both.newly(
        "INSERT INTO asset_sets (name, owner_id) SELECT 'Mine', id FROM users"
        " WHERE email = 'buyer@shop.example'"
    )
    insert(both.old, artist("#cy", "Buyer@Shop.example"))
    settling.settle(connection)
    assert both.has(
        "SELECT id FROM users WHERE lower(email) = 'buyer@shop.example'"
    ) == [("#cy",)]
    assert both.has("SELECT user_id FROM orders WHERE id = '#ord'") == [("#cy",)]
    assert both.has("SELECT owner_id FROM asset_sets WHERE name = 'Mine'") == [("#cy",)]


def test_two_artists_who_differ_by_case_may_both_take_a_customers_address(
    both: Both,
) -> None:
    insert(both.old, artist("#cy", "BUYER@shop.example"))
    insert(both.old, artist("#di", "Buyer@shop.example", created_at="2020-01-01"))
    settling.settle(connection)
    assert both.has("SELECT user_id FROM orders WHERE id = '#ord'") == [("#di",)]


ODD_ADDRESSES = (
    "İ@x.example",
    "i\u0307@x.example",
    "ß@x.example",
    "SS@x.example",
    "ΑΣ@x.example",
    "ας@x.example",
    "\u00a0nbsp@x.example\u3000",
    "\ufeffbom@x.example",
    "a@" + "İ" * 200,
    "b@" + "x" * 253,
    "quote'\"\\@x.example",
    "%s@x.example",
    "@",
    "",
    " ",
)


def test_odd_addresses_are_settled_once_and_for_all(both: Both) -> None:
    """Whatever the server's idea of lower case; the sign-in has the same idea."""
    insert(
        both.old,
        *(order(f"#odd{n}", email=odd) for n, odd in enumerate(ODD_ADDRESSES)),
        *(table(f"#sits{n}", odd) for n, odd in enumerate(ODD_ADDRESSES)),
    )
    settling.settle(connection)
    assert settling.settle(connection).nothing
    for odd, user in both.has(
        "SELECT customer_email, user_id FROM orders WHERE order_number LIKE 'odd%%'"
    ):
        if user is None:
            assert odd.strip() in ("", "@")
        else:
            assert User.objects.get_by_natural_key(odd).pk == user
    assert (
        both.has(
            "SELECT t.contact_email FROM tables t JOIN orders o"
            "    ON o.customer_email = t.contact_email"
            " WHERE o.user_id IS DISTINCT FROM t.user_id"
            "    OR (t.user_id IS NULL) <> (t.session_id IS NOT NULL)"
        )
        == []
    )
    assert (
        both.has(
            "SELECT lower(email) FROM users WHERE role = 'customer' GROUP BY 1"
            " HAVING count(*) > 1"
        )
        == []
    )


# --- loops, and triggers of the shop's own ---------------------------------------------------


def test_the_loop_guard_names_the_table_and_the_key(both: Both) -> None:
    """A trigger of the shop's writes another row of the same table: carried over as well."""
    both.database.execute(
        "CREATE FUNCTION public.promote() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " UPDATE artists SET bio = 'was ' || NEW.name WHERE name = 'Bob'"
        "    AND NEW.name <> 'Bob'; RETURN NULL; END $$;"
        " CREATE TRIGGER a_promote AFTER UPDATE ON artists FOR EACH ROW"
        " EXECUTE FUNCTION public.promote()"
    )
    both.does("UPDATE artists SET name = 'Anna' WHERE id = '#ann'")
    assert both.has("SELECT bio FROM users WHERE id = '#bob'") == [("was Anna",)]
    both.newly("UPDATE users SET display_name = 'Annie' WHERE id = '#ann'")
    assert both.sees("SELECT bio FROM artists WHERE id = '#bob'") == [("was Annie",)]
    assert both.has("SELECT bio FROM users WHERE id = '#bob'") == [("was Annie",)]


def test_a_trigger_of_the_shops_that_writes_the_same_row_again(both: Both) -> None:
    both.database.execute(
        "CREATE FUNCTION public.stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " NEW.updated_at := '2030-01-01'; RETURN NEW; END $$;"
        " CREATE FUNCTION public.again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " UPDATE artists SET bio = 'seen' WHERE id = NEW.id AND bio IS NULL;"
        " RETURN NULL; END $$;"
        " CREATE TRIGGER stamp BEFORE UPDATE ON artists FOR EACH ROW"
        " EXECUTE FUNCTION public.stamp();"
        " CREATE TRIGGER zzz_again AFTER UPDATE ON artists FOR EACH ROW"
        " EXECUTE FUNCTION public.again()"
    )
    both.newly("UPDATE users SET display_name = 'Annie' WHERE id = '#ann'")
    assert both.has(
        "SELECT display_name, bio, updated_at AT TIME ZONE 'UTC' = '2030-01-01'"
        " FROM users WHERE id = '#ann'"
    ) == [("Annie", "seen", True)]


def test_a_rule_of_the_shops_that_vetoes_reaches_the_new_application(
    both: Both,
) -> None:
    both.database.execute(
        "CREATE FUNCTION public.veto() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION 'no such name'; END $$;"
        " CREATE TRIGGER veto BEFORE UPDATE OF name ON artists FOR EACH ROW"
        " EXECUTE FUNCTION public.veto()"
    )
    with pytest.raises(psycopg.errors.RaiseException, match="no such name"):
        both.newly("UPDATE users SET display_name = 'X' WHERE id = '#ann'")
    both.newly("UPDATE users SET bio = 'another column' WHERE id = '#ann'")


def test_a_flag_for_the_whole_transaction_would_swallow_this(both: Both) -> None:
    """New side and old tables written in one transaction, the same rows, in turn."""
    with both.new.transaction():
        both.newly("UPDATE users SET display_name = '1' WHERE id = '#ann'")
        both.newly("UPDATE legacy.artists SET name = '2' WHERE id = '#ann'")
        both.newly("UPDATE users SET bio = '3' WHERE id = '#ann'")
        both.newly("UPDATE legacy.artists SET bio = '4' WHERE id = '#ann'")
    assert both.has("SELECT display_name, bio FROM users WHERE id = '#ann'") == [
        ("2", "4")
    ]


@pytest.mark.parametrize("outcome", ["ROLLBACK TO s", "RELEASE s"])
def test_savepoints(both: Both, outcome: str) -> None:
    both.does("BEGIN")
    both.does("SAVEPOINT s")
    both.does("UPDATE artists SET name = 'Other' WHERE id = '#ann'")
    both.does(outcome)
    both.does("UPDATE artists SET bio = 'kept' WHERE id = '#ann'")
    both.does("COMMIT")
    name = "Ann" if outcome.startswith("ROLLBACK") else "Other"
    assert both.has("SELECT display_name, bio FROM users WHERE id = '#ann'") == [
        (name, "kept")
    ]


# --- the triggers themselves ----------------------------------------------------------------


def test_functions_run_as_the_owner_and_are_nobody_elses_to_call(both: Both) -> None:
    odd = both.has(
        "SELECT p.oid::regprocedure::text FROM pg_proc p"
        " WHERE p.pronamespace = 'rebuilt'::regnamespace AND NOT (p.prosecdef"
        "   AND pg_get_userbyid(p.proowner) = 'terrain'"
        "   AND NOT has_function_privilege('shop_app', p.oid, 'EXECUTE')"
        "   AND p.proconfig @> '{\"search_path=legacy, public, pg_temp\"}')"
    )
    assert odd == []
    assert both.has(
        "SELECT count(*) > 30 FROM pg_proc WHERE pronamespace = 'rebuilt'::regnamespace"
    ) == [(True,)]


def test_triggers_fire_always_row_by_row_and_for_truncate(both: Both) -> None:
    """Not even a session in replication role writes past them."""
    found = both.has(
        "SELECT tgrelid::regclass::text, tgname, tgenabled, tgtype & 1 = 1 FROM pg_trigger"
        " WHERE tgname LIKE 'zz_terrain_sync%' AND NOT tgisinternal"
    )
    assert {enabled for _, _, enabled, _ in found} == {"A"}
    by_row = {name for table, name, _, row in found if row}
    assert by_row == {f"zz_terrain_sync_{event}" for event in sql.EVENTS}
    tables = {table for table, *_ in found}
    assert tables == {
        *(f"legacy.{lens.legacy}" for lens in LENSES),
        *(new if new != "orders" else "orders" for new in BY_NEW),
        "order_items",
    }
    for one in tables:
        assert (one, "zz_terrain_sync_truncate", "A", False) in found
    replica = both.database.connect("postgres", "legacy,public")
    replica.execute("SET session_replication_role = replica")
    replica.execute(ids("UPDATE artists SET name = 'Replica' WHERE id = '#ann'"))
    assert both.has("SELECT display_name FROM users WHERE id = '#ann'") == [
        ("Replica",)
    ]


def test_a_temporary_table_of_the_same_name_fools_nobody(both: Both) -> None:
    both.database.superuser.execute(
        f"GRANT TEMP ON DATABASE {both.database.name} TO shop_app"
    )
    both.does("CREATE TEMP TABLE users (id uuid, role text, email text)")
    both.does("CREATE TEMP TABLE legacy_quarantine (id int)")
    both.does("UPDATE legacy.artists SET name = 'Real' WHERE id = '#ann'")
    assert both.has("SELECT display_name FROM users WHERE id = '#ann'") == [("Real",)]


def test_what_the_old_application_can_see_has_nothing_added(both: Both) -> None:
    columns = both.sees(
        "SELECT count(*) FROM pg_attribute WHERE attrelid = 'legacy.artists'::regclass"
        " AND attnum > 0"
    )
    assert columns == [(15,)]


# --- rows that do not fit -------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement, reason",
    [
        (
            "UPDATE user_tables SET table_config = '[]' WHERE id = '#den'",
            "table_config",
        ),
        ("UPDATE user_tables SET layout_data = '5' WHERE id = '#den'", "layout_data"),
    ],
)
def test_a_row_that_no_longer_fits_is_held_and_returns_whole(
    both: Both, statement: str, reason: str
) -> None:
    """The old statement succeeds; what only the new schema knew is parked meanwhile."""
    both.newly(
        "UPDATE tables SET max_assets = 7, plan = 'pro', status = 'archived' WHERE id = '#den'"
    )
    both.newly(
        "WITH a AS (INSERT INTO assets (artist_id, name, file_ref)"
        " VALUES ('#ann', 'A', 'f') RETURNING id)"
        " INSERT INTO table_assets (table_id, asset_id, quantity) SELECT '#den', id, 4 FROM a"
    )
    user = both.has("SELECT user_id FROM tables WHERE id = '#den'")
    assert both.does(statement).rowcount == 1
    assert both.held() == [("user_tables", "#den", f"{reason}_not_object")]
    assert both.has("SELECT id FROM tables WHERE id = '#den'") == []
    both.does(
        "UPDATE user_tables SET table_config = '{}', layout_data = '{}' WHERE id = '#den'"
    )
    settling.settle(connection)
    assert both.held() == []
    assert both.has(
        "SELECT max_assets, plan, status FROM tables WHERE id = '#den'"
    ) == [(7, "pro", "archived")]
    assert both.has("SELECT quantity FROM table_assets WHERE table_id = '#den'") == [
        (4,)
    ]
    assert both.has("SELECT user_id FROM tables WHERE id = '#den'") == user


def test_a_held_row_that_goes_leaves_the_quarantine(both: Both) -> None:
    both.does("UPDATE user_tables SET table_config = '[]' WHERE id = '#den'")
    both.does("DELETE FROM user_tables WHERE id = '#den'")
    assert both.held() == []


def test_items_are_held_all_together_and_come_back_as_they_were(both: Both) -> None:
    both.newly(
        "UPDATE order_items SET total_price = 5, price_source = 'apportioned'"
        " WHERE order_id = '#ord'"
    )
    line = both.has("SELECT * FROM order_items WHERE order_id = '#ord'")
    before = both.sees("SELECT items FROM orders WHERE id = '#ord'")
    both.does(
        "UPDATE orders SET items = items || '[{\"quantity\": 0}]' WHERE id = '#ord'"
    )
    assert both.held() == [("orders", "#ord", "quantity_below_one")]
    assert both.has("SELECT count(*) FROM order_items WHERE order_id = '#ord'") == [
        (0,)
    ]
    both.does("UPDATE orders SET status = 'paid' WHERE id = '#ord'")
    assert both.has("SELECT status FROM orders WHERE id = '#ord'") == [("paid",)]
    both.does("UPDATE orders SET items = items - 1 WHERE id = '#ord'")
    assert both.held() == []
    assert both.sees("SELECT items FROM orders WHERE id = '#ord'") == before
    assert both.has("SELECT * FROM order_items WHERE order_id = '#ord'") == line


def test_held_items_have_no_lines_to_change(both: Both) -> None:
    both.does("UPDATE orders SET items = '{}' WHERE id = '#ord'")
    with pytest.raises(Refused) as refused:
        OrderItem.objects.create(order_id=key("#ord"), position=1, quantity=1)
    assert str(refused.value) == (
        f"The items of legacy.orders {key('#ord')} are held (items_not_array) and have no"
        " lines to change"
    )
    assert refused.value.hint == (
        "Correct them in the old application, then run settle."
    )
    Order.objects.filter(pk=key("#ord")).update(status="paid")
    assert both.sees("SELECT status, items FROM orders WHERE id = '#ord'") == [
        ("paid", {})
    ]


def test_two_tables_of_one_id_the_second_is_held(both: Both) -> None:
    insert(both.old, example("#den", "#ann"))
    assert both.held() == [("example_tables", "#den", "id_taken")]
    both.does("DELETE FROM user_tables WHERE id = '#den'")
    settling.settle(connection)
    assert both.held() == []
    assert both.has("SELECT kind, user_id FROM tables WHERE id = '#den'") == [
        ("example", "#ann")
    ]


def test_a_new_row_does_not_overwrite_a_held_one(both: Both) -> None:
    """The new application makes an example of the table whose id a held example has."""
    insert(both.old, example("#den", "#bob", description="Held, and not lost"))
    with pytest.raises(Refused) as refused:
        Table.objects.filter(pk=key("#den")).update(kind="example", user=key("#ann"))
    assert str(refused.value) == (
        f"public.tables {key('#den')} has the id of a row of legacy.example_tables that is"
        " held"
    )
    assert both.sees("SELECT description FROM example_tables WHERE id = '#den'") == [
        ("Held, and not lost",)
    ]


def test_a_share_code_that_the_new_schema_has_elsewhere_holds_the_row(
    both: Both,
) -> None:
    both.newly("UPDATE tables SET share_code = 'abc' WHERE id = '#show'")
    both.does("UPDATE user_tables SET share_token = 'abc' WHERE id = '#den'")
    assert both.held() == [("user_tables", "#den", "refused")]
    assert both.sees("SELECT share_token FROM user_tables WHERE id = '#den'") == [
        ("abc",)
    ]
    both.newly("UPDATE tables SET share_code = NULL WHERE id = '#show'")
    settling.settle(connection)
    assert both.held() == []
    assert both.has("SELECT share_code FROM tables WHERE id = '#den'") == [("abc",)]


def test_unique_values_that_change_hands_in_one_statement(both: Both) -> None:
    insert(
        both.old,
        table("#t1", None, share_token="a"),
        table("#t2", None, share_token="b"),
    )
    both.does("BEGIN")
    both.does("UPDATE user_tables SET share_token = NULL WHERE id = '#t1'")
    both.does("UPDATE user_tables SET share_token = 'a' WHERE id = '#t2'")
    both.does("UPDATE user_tables SET share_token = 'b' WHERE id = '#t1'")
    both.does("COMMIT")
    both.does(
        "WITH x AS (DELETE FROM artists WHERE id = '#nobody' RETURNING 1)"
        " UPDATE artists SET email = CASE id WHEN '#ann' THEN 'x' ELSE 'y' END"
        " WHERE id IN ('#ann', '#bob')"
    )
    assert both.has(
        "SELECT share_code FROM tables WHERE id IN ('#t1', '#t2')"
        " ORDER BY share_code"
    ) == [("a",), ("b",)]
    assert both.held() == []


# --- what the legacy side cannot express -----------------------------------------------------


def refusal(call: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(Refused) as refused:
        call()
    return named(str(refused.value)), named(refused.value.hint)


FITS = (
    "The old application still uses that table. Change the row so that it fits there, or"
    " wait until cleanup_legacy."
)


def test_what_the_legacy_table_cannot_hold_is_refused_with_a_sentence(
    both: Both,
) -> None:
    def set_(**columns: Any) -> Callable[[], Any]:
        return lambda: User.objects.filter(pk=key("#ann")).update(**columns)

    assert refusal(set_(status="gone")) == (
        "public.users #ann cannot be kept in step with legacy.artists: new row for relation"
        ' "artists" violates check constraint "artists_status_check"',
        FITS,
    )
    assert refusal(
        lambda: Model.objects.filter(pk=key("#tower")).update(status="gone")
    ) == (
        "public.models #tower cannot be kept in step with legacy.assets: new row for"
        ' relation "assets" violates check constraint "assets_status_check"',
        FITS,
    )
    assert both.has("SELECT status FROM users WHERE id = '#ann'") == [("active",)]


def test_an_id_is_not_for_the_new_application_to_change(both: Both) -> None:
    assert refusal(
        lambda: Model.objects.filter(pk=key("#tower")).update(id=key("#other"))
    ) == (
        "The id of public.models #tower cannot be changed while the old application uses it",
        "Wait until cleanup_legacy.",
    )


@pytest.mark.parametrize("new", [*BY_NEW, "order_items"])
def test_truncating_a_new_table_is_refused(both: Both, new: str) -> None:
    with pytest.raises(psycopg.DatabaseError) as refused:
        both.newly(f"TRUNCATE {new} CASCADE")
    assert refused.value.sqlstate == "TB002"
    assert re.match(
        r"public\.\w+ cannot be truncated while the old application uses its legacy table",
        str(refused.value),
    )


# --- deletions are never widened -------------------------------------------------------------


def test_an_artist_deleted_on_the_old_side_who_bought_becomes_a_customer(
    both: Both,
) -> None:
    insert(both.old, artist("#cy", "Cy@Buys.example"))
    insert(both.old, order("#cys", email="cy@buys.example"))
    settling.settle(connection)
    both.does("DELETE FROM artists WHERE id = '#cy'")
    assert both.has("SELECT id, email, role FROM users WHERE id = '#cy'") == [
        ("#cy", "cy@buys.example", "customer")
    ]
    assert both.has("SELECT user_id FROM orders WHERE id = '#cys'") == [("#cy",)]


def test_an_artist_deleted_on_the_old_side_who_owns_a_set_becomes_a_customer(
    both: Both,
) -> None:
    owner = User.objects.get(pk=key("#bob"))
    AssetSet.objects.create(name="Hills", owner=owner)
    both.does("DELETE FROM artists WHERE id = '#bob'")
    assert both.has("SELECT role FROM users WHERE id = '#bob'") == [("customer",)]
    assert both.has("SELECT id FROM models WHERE id = '#bridge'") == []
    assert both.has("SELECT owner_id FROM asset_sets WHERE name = 'Hills'") == [
        ("#bob",)
    ]


def test_an_artist_who_becomes_a_customer_joins_the_one_with_that_address(
    both: Both,
) -> None:
    """Not yet settled: the customer of the same address is there still."""
    insert(both.old, artist("#cy", "BUYER@shop.example"))
    both.newly("INSERT INTO asset_sets (name, owner_id) VALUES ('Hills', '#cy')")
    both.does("DELETE FROM artists WHERE id = '#cy'")
    assert both.has(
        "SELECT u.email, u.role FROM asset_sets s JOIN users u ON u.id = s.owner_id"
        " WHERE s.name = 'Hills'"
    ) == [("buyer@shop.example", "customer")]


def test_an_artist_with_nothing_left_goes(both: Both) -> None:
    both.does("DELETE FROM artists WHERE id = '#bob'")
    assert both.has("SELECT id FROM users WHERE id = '#bob'") == []
    assert both.has("SELECT id FROM models WHERE id = '#bridge'") == []


def test_an_artist_made_again_is_an_artist_again(both: Both) -> None:
    insert(both.old, artist("#cy", "cy@buys.example"))
    insert(both.old, order("#cys", email="cy@buys.example"))
    settling.settle(connection)
    both.does("DELETE FROM artists WHERE id = '#cy'")
    insert(both.old, artist("#cy", "cy@buys.example"))
    assert both.has("SELECT role FROM users WHERE id = '#cy'") == [("artist",)]


@pytest.mark.parametrize(
    "change", ["DELETE FROM users", "UPDATE users SET role = 'customer'"]
)
@pytest.mark.parametrize(
    "owned, where",
    [
        (model("#only", "#cy"), "assets"),
        (example("#only", "#cy"), "example_tables"),
        (transfer("#only", "#ord", "#cy"), "stripe_transfers"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_artist_who_owns_anything_is_neither_deleted_nor_demoted_by_the_new_side(
    both: Both, change: str, owned: Any, where: str
) -> None:
    insert(both.old, artist("#cy"))
    insert(both.old, owned)
    with pytest.raises(psycopg.DatabaseError) as refused:
        both.newly(f"{change} WHERE id = '#cy'")
    assert refused.value.sqlstate == "TB002"
    assert named(str(refused.value)).startswith(
        "public.users #cy cannot be kept in step with legacy.artists:"
        f" legacy.artists #cy still has rows in {where}"
    )
    both.does(f"DELETE FROM {where} WHERE id = '#only'")
    both.newly(f"{change} WHERE id = '#cy'")
    assert both.sees("SELECT id FROM artists WHERE id = '#cy'") == []


def test_cascades_of_the_old_side_arrive(both: Both) -> None:
    both.does("DELETE FROM stripe_transfers WHERE id = '#pay'")
    both.does("DELETE FROM artists WHERE id = '#ann'")
    assert both.has("SELECT id FROM models WHERE id = '#tower'") == []
    assert both.has("SELECT id FROM tables WHERE id = '#show'") == []
    # What was sold stays sold.
    assert both.has(
        "SELECT asset_ref, model_id, artist_id, model_name, total_price::text"
        " FROM order_items WHERE order_id = '#ord'"
    ) == [("#tower", None, None, "Tower", "6.66")]
    assert both.sees(
        "SELECT items -> 0 ->> 'asset_id' FROM orders WHERE id = '#ord'"
    ) == [("#tower",)]


def test_a_key_that_changes_takes_everything_along(both: Both) -> None:
    """ON UPDATE, in the database: lines, libraries, owners."""
    insert(
        both.old,
        artist("#cy", "cy@buys.example"),
        order("#cys", email="cy@buys.example"),
    )
    settling.settle(connection)
    both.newly("UPDATE tables SET max_assets = 9 WHERE id = '#den'")
    both.newly("UPDATE order_items SET total_price = 1 WHERE order_id = '#ord'")
    both.does("DELETE FROM stripe_transfers WHERE id = '#pay'")
    both.does("UPDATE artists SET id = '#cy2' WHERE id = '#cy'")
    both.does("UPDATE orders SET id = '#ord2' WHERE id = '#ord'")
    both.does("UPDATE user_tables SET id = '#den2' WHERE id = '#den'")
    both.does("UPDATE assets SET id = '#tower2' WHERE id = '#tower'")
    assert both.has("SELECT user_id FROM orders WHERE id = '#cys'") == [("#cy2",)]
    assert both.has("SELECT max_assets FROM tables WHERE id = '#den2'") == [(9,)]
    assert both.has(
        "SELECT order_id, model_id, asset_ref, total_price::text FROM order_items"
        " WHERE order_id IN ('#ord', '#ord2')"
    ) == [("#ord2", "#tower2", "#tower", "1.00")]
    for gone in ("#cy", "#ord", "#den", "#tower"):
        assert (
            both.has(
                f"SELECT id FROM users WHERE id = '{gone}' UNION ALL SELECT id FROM orders"
                f" WHERE id = '{gone}' UNION ALL SELECT id FROM tables WHERE id = '{gone}'"
                f" UNION ALL SELECT id FROM models WHERE id = '{gone}'"
            )
            == []
        )


def test_keys_that_are_exchanged(both: Both) -> None:
    """Through a third one, in one transaction, deferred to nobody."""
    insert(both.old, table("#t1", None), table("#t2", None))
    both.does("BEGIN")
    for one, other in (("#t1", "#t3"), ("#t2", "#t1"), ("#t3", "#t2")):
        both.does(f"UPDATE user_tables SET id = '{other}' WHERE id = '{one}'")
    both.does("COMMIT")
    assert both.has(
        "SELECT id, name FROM tables WHERE id IN ('#t1', '#t2') ORDER BY 2"
    ) == [
        ("#t2", "T1"),
        ("#t1", "T2"),
    ]


# --- derived once ----------------------------------------------------------------------------


PRICED = (
    "SELECT asset_ref, quantity, unit_price::text, total_price::text, price_source"
    " FROM order_items WHERE order_id = '#ord' ORDER BY position"
)


def test_what_is_derived_once_stays(both: Both) -> None:
    both.does("UPDATE assets SET base_price = 99, name = 'Dearer' WHERE id = '#tower'")
    both.does("UPDATE orders SET notes = 'x' WHERE id = '#ord'")
    both.does("UPDATE orders SET pricing = '{\"model_subtotal\": 1}' WHERE id = '#ord'")
    both.does(
        "UPDATE orders SET items = jsonb_set(items, '{0,gift}', 'true') WHERE id = '#ord'"
    )
    assert both.has(PRICED) == [("#tower", 2, "3.33", "6.66", "catalogue")]
    assert both.has("SELECT model_name FROM order_items WHERE order_id = '#ord'") == [
        ("Tower",)
    ]


def test_a_line_of_another_quantity_is_priced_anew_the_others_stay(both: Both) -> None:
    both.does("UPDATE assets SET base_price = 4 WHERE id = '#tower'")
    both.does(
        "UPDATE orders SET items = items || jsonb_build_array(jsonb_build_object("
        "'asset_id', '#bridge', 'quantity', 1)), pricing = '{\"model_subtotal\": 16.66}'"
        " WHERE id = '#ord'"
    )
    assert both.has(PRICED) == [
        ("#tower", 2, "3.33", "6.66", "catalogue"),
        ("#bridge", 1, "10.00", "10.00", "catalogue"),
    ]
    both.does(
        "UPDATE orders SET items = jsonb_set(items, '{0,quantity}', '3'),"
        " pricing = '{\"model_subtotal\": 22}' WHERE id = '#ord'"
    )
    assert both.has(PRICED) == [
        ("#tower", 3, "4.00", "12.00", "catalogue"),
        ("#bridge", 1, "10.00", "10.00", "catalogue"),
    ]


def test_lines_that_change_places_take_along_what_was_derived(both: Both) -> None:
    both.does(
        "UPDATE orders SET items = jsonb_build_array(jsonb_build_object("
        "'asset_id', '#bridge', 'quantity', 1)) || items,"
        " pricing = '{\"model_subtotal\": 16.66}' WHERE id = '#ord'"
    )
    both.does("UPDATE assets SET base_price = 50")
    both.does(
        "UPDATE orders SET items = jsonb_build_array(items -> 1, items -> 0)"
        " WHERE id = '#ord'"
    )
    assert both.has(PRICED) == [
        ("#tower", 2, "3.33", "6.66", "catalogue"),
        ("#bridge", 1, "10.00", "10.00", "catalogue"),
    ]


def test_gaps_between_positions_are_none_of_the_old_sides_business(both: Both) -> None:
    both.newly("UPDATE order_items SET position = 40 WHERE order_id = '#ord'")
    OrderItem.objects.create(
        order_id=key("#ord"), position=7, quantity=1, asset_ref="x"
    )
    assert both.sees(
        "SELECT jsonb_agg(e -> 'asset_id') FROM orders o,"
        " jsonb_array_elements(o.items) e WHERE o.id = '#ord'"
    ) == [(["x", "#tower"],)]
    both.does(
        "UPDATE orders SET items = items || '[{\"quantity\": 5}]' WHERE id = '#ord'"
    )
    assert both.has(
        "SELECT position, quantity FROM order_items WHERE order_id = '#ord' ORDER BY 1"
    ) == [(7, 1), (40, 2), (41, 5)]


def test_an_order_with_thousands_of_items_is_carried_over_in_time(both: Both) -> None:
    """Each statement in a quarter of a second or so; a quadratic plan takes several."""
    items = "(SELECT jsonb_agg(jsonb_build_object('asset_id', gen_random_uuid(),"
    items += " 'quantity', 1)) FROM generate_series(1, 5000))"
    for change in (
        items,
        "jsonb_set(items, '{0,gift}', '1')",
        "items || items",
        "'[]'",
    ):
        started = time.monotonic()
        both.does(f"UPDATE orders SET items = {change} WHERE id = '#ord'")
        assert time.monotonic() - started < 2, change
        assert both.has(
            "SELECT count(i) = jsonb_array_length(l.items) FROM legacy.orders l"
            " LEFT JOIN order_items i ON i.order_id = l.id WHERE l.id = '#ord' GROUP BY l.id"
        ) == [(True,)]


# --- who gives way ----------------------------------------------------------------------------


def in_background(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Run something in a thread; its result or exception, and the seconds it took."""
    outcome: list[Any] = []

    def run() -> None:
        started = time.monotonic()
        try:
            outcome.append(call())
        except Exception as error:
            outcome.append(error)
        outcome.append(time.monotonic() - started)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def wait_for(condition: Callable[[], Any]) -> None:
    """Ask until it is so; ten seconds are a failure."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline


def wait_until_blocked(
    both: Both, blocked: Connection, thread: threading.Thread
) -> None:
    """Until the connection waits for a lock, or (80 ms are soon over) has done so."""
    pid = blocked.info.backend_pid
    asked = both.database.superuser
    wait_for(
        lambda: asked.execute(
            "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'",
            [pid],
        ).fetchone()
        or not thread.is_alive()
    )


def test_the_new_side_yields_to_a_row_lock_of_the_old(both: Both) -> None:
    both.does("BEGIN")
    both.does("UPDATE artists SET name = 'Old' WHERE id = '#ann'")
    started = time.monotonic()
    with pytest.raises(psycopg.errors.LockNotAvailable):
        both.newly("UPDATE users SET display_name = 'New' WHERE id = '#ann'")
    assert 0.07 < time.monotonic() - started < 1
    both.does("COMMIT")
    both.newly("UPDATE users SET bio = 'New' WHERE id = '#ann'")
    assert both.sees("SELECT name, bio FROM artists WHERE id = '#ann'") == [
        ("Old", "New")
    ]


def test_both_write_one_row_at_once_and_the_new_one_yields(both: Both) -> None:
    """Old has the legacy row and wants the new one, new the other way round."""
    both.does("BEGIN")
    both.does("SELECT FROM artists WHERE id = '#ann' FOR UPDATE")
    thread, outcome = in_background(
        lambda: both.newly("UPDATE users SET display_name = 'New' WHERE id = '#ann'")
    )
    wait_until_blocked(both, both.new, thread)
    started = time.monotonic()
    both.does("UPDATE artists SET name = 'Old' WHERE id = '#ann'")
    assert time.monotonic() - started < 0.25
    both.does("COMMIT")
    thread.join()
    assert isinstance(outcome[0], psycopg.errors.LockNotAvailable)
    assert named(str(outcome[0])).startswith(
        "legacy.artists #ann is being changed by the old application"
    )
    assert both.has("SELECT display_name FROM users WHERE id = '#ann'") == [("Old",)]


@pytest.mark.parametrize("first", ["old", "new"])
def test_an_old_statement_is_never_a_deadlocks_victim(both: Both, first: str) -> None:
    """Two rows, locked in opposite orders; whoever began to wait first, the new one yields."""
    both.does("BEGIN")
    both.newly("BEGIN")
    both.does("UPDATE artists SET bio = 'old' WHERE id = '#ann'")
    both.newly("UPDATE users SET bio = 'new' WHERE id = '#bob'")
    calls = {
        "old": lambda: both.does("UPDATE artists SET bio = 'old' WHERE id = '#bob'"),
        "new": lambda: both.newly("UPDATE users SET bio = 'new' WHERE id = '#ann'"),
    }
    second = "new" if first == "old" else "old"
    thread, outcome = in_background(calls[first])
    wait_until_blocked(both, both.old if first == "old" else both.new, thread)
    if second == "new":
        with pytest.raises(psycopg.errors.LockNotAvailable):
            calls["new"]()
        both.newly("ROLLBACK")
        thread.join()
        assert isinstance(outcome[0], psycopg.Cursor) and outcome[1] < 0.5
    else:
        other, waited = in_background(calls["old"])
        thread.join()
        assert isinstance(outcome[0], psycopg.errors.LockNotAvailable)
        both.newly("ROLLBACK")
        other.join()
        assert isinstance(waited[0], psycopg.Cursor) and waited[1] < 0.5
    both.does("COMMIT")
    assert (
        both.has("SELECT bio FROM users WHERE id IN ('#ann', '#bob')") == [("old",)] * 2
    )


def test_only_the_statement_waits_no_longer_not_the_session(both: Both) -> None:
    with both.new.transaction():
        both.newly("SET LOCAL lock_timeout = '7s'")
        both.newly("UPDATE users SET bio = 'x' WHERE id = '#ann'")
        both.newly(
            "INSERT INTO users (id, email, role) VALUES ('#ann', 'x', 'artist')"
            " ON CONFLICT (id) DO UPDATE SET bio = 'y'"
        )
        assert both.has("SHOW lock_timeout") == [("7s",)]
    assert both.has("SHOW lock_timeout") == [("0",)]


def test_the_orm_yields_with_a_clear_error_and_tries_again(both: Both) -> None:
    ann = User.objects.get(pk=key("#ann"))
    both.does("BEGIN")
    both.does("UPDATE artists SET name = 'Old' WHERE id = '#ann'")
    with pytest.raises(TryAgain) as refused, django_transaction.atomic():
        ann.bio = "new"
        ann.save()
    assert str(refused.value) == ("Somebody else is changing the same rows. Try again.")
    thread, outcome = in_background(lambda: save_bio(ann.pk, "newer"))
    wait_until_yielded(both)
    both.does("COMMIT")
    thread.join()
    assert outcome[0] is None, outcome
    assert both.sees("SELECT name, bio FROM artists WHERE id = '#ann'") == [
        ("Old", "newer")
    ]


def save_bio(pk: Any, bio: str) -> None:
    """In a thread, with a connection of its own."""
    try:
        user = User.objects.get(pk=pk)
        user.bio = bio
        user.save()
    finally:
        connection.close()


def wait_until_yielded(both: Both) -> None:
    """Until some session of Django's has waited in vain and rolled back."""
    asked = both.database.superuser
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event_type = 'Lock'"
    )
    for expected in (1, 0):
        wait_for(lambda: asked.execute(waiting).fetchone() == (expected,))  # noqa: B023


def test_settle_gives_way_to_the_old_application(both: Both) -> None:
    insert(both.old, order("#later", email="late@r.example"))
    both.does("BEGIN")
    both.does("UPDATE orders SET notes = 'x' WHERE id = '#later'")
    thread, outcome = in_background(lambda: settle_in_thread())
    wait_until_yielded(both)
    both.does("UPDATE orders SET notes = 'y' WHERE id = '#later'")
    both.does("COMMIT")
    thread.join()
    assert outcome[0].linked == 1
    assert both.has(
        "SELECT user_id IS NULL, notes FROM orders WHERE id = '#later'"
    ) == [(False, "y")]


def settle_in_thread() -> Any:
    try:
        return settling.settle(connection)
    finally:
        connection.close()


def test_a_delete_just_behind_the_cursor_stays_deleted(both: Both) -> None:
    """A deletion waits for the batch that has read its row; see copy_lock."""
    lens = LENSES[0]
    lock = sql.copy_lock(lens, 0)
    both.newly("BEGIN")
    both.newly(f"SELECT pg_advisory_xact_lock({lock})")
    thread, outcome = in_background(
        lambda: both.does("DELETE FROM artists WHERE id = '#bob'")
    )
    wait_until_blocked(both, both.old, thread)
    both.newly("COMMIT")
    thread.join()
    assert isinstance(outcome[0], psycopg.Cursor)
    assert both.has("SELECT id FROM users WHERE id = '#bob'") == []


def test_manage_settle_watch_is_not_needed_for_law_two(
    both: Both, manage: Callable[..., Result]
) -> None:
    insert(both.old, order("#unsettled", email="un@settled.example"))
    assert_in_step(both)
    done = manage("settle")
    assert (done.code, done.out) == (
        0,
        "1 customers made, 1 orders and tables linked, 0 sessions made, 0 customers merged,"
        " 0 rows released from quarantine.\n",
    )
