"""Keeping in step: each known trap, and what is held or refused (section 3)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from django.db import connection
from psycopg import errors

from catalogue.models import Model, Table
from orders.models import Order, OrderItem
from terrain.embedded import OWNER
from terrain.exceptions import Refused
from terrain.legacy import cut_over, settling
from terrain.legacy.mapping import BY_NEW, LENSES
from terrain.models import User
from tests.both import Both
from tests.conftest import Result
from tests.legacy import artist, example, ids, insert, key, named, order, table

pytestmark = [pytest.mark.migration, pytest.mark.both_places]


def test_verification_passes_whichever_side_has_written(
    both: Both, manage: Callable[..., Result]
) -> None:
    """Rows, cascades, a truncation, a held row, and what settle makes of them."""
    insert(
        both.old,
        order("#more", ({"asset_id": "#tower", "quantity": 1},), email="new@r.example"),
        table("#gone", None),
    )
    both.does("TRUNCATE stripe_transfers, example_tables")
    both.does("UPDATE user_tables SET table_config = '[]' WHERE id = '#den'")
    both.does("DELETE FROM user_tables WHERE id = '#gone'")
    both.does("DELETE FROM artists WHERE id = '#bob'")
    both.newly("UPDATE orders SET status = 'paid' WHERE id = '#ord'")
    both.newly("UPDATE order_items SET quantity = 4 WHERE order_id = '#ord'")
    both.newly("UPDATE models SET name = 'Keep' WHERE id = '#tower'")
    done = manage("settle")
    assert (done.code, done.err) == (0, "")
    verified = manage("verify_migration")
    assert (verified.code, verified.err) == (0, ""), verified.out
    assert both.sees("SELECT name FROM assets") == [("Keep",)]
    assert both.sees(
        "SELECT id, status, items -> 0 -> 'quantity' FROM orders ORDER BY order_number"
    ) == [("#more", "pending_payment", 1), ("#ord", "paid", 4)]
    assert both.has(
        "SELECT (SELECT count(*) FROM payments), (SELECT count(*) FROM tables),"
        " (SELECT count(*) FROM users WHERE role <> 'customer'),"
        " (SELECT user_id IS NOT NULL FROM orders WHERE id = '#more')"
    ) == [(0, 0, 1, True)]
    assert both.held() == [("user_tables", "#den", "table_config_not_object")]


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
        both.newly("UPDATE @legacy.artists SET name = '2' WHERE id = '#ann'")
        both.newly("UPDATE users SET bio = '3' WHERE id = '#ann'")
        both.newly("UPDATE @legacy.artists SET bio = '4' WHERE id = '#ann'")
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
    # The old application's, as the shop's own triggers beneath expect.
    path = "legacy, public, pg_temp" if both.place.is_cut_over else "public, pg_temp"
    odd = both.has(
        "SELECT p.oid::regprocedure::text FROM pg_proc p"
        " WHERE p.pronamespace = 'rebuilt'::regnamespace AND NOT (p.prosecdef"
        f"   AND pg_get_userbyid(p.proowner) = '{OWNER}'"
        "   AND NOT has_function_privilege('shop_app', p.oid, 'EXECUTE')"
        f"   AND p.proconfig @> '{{\"search_path={path}\"}}')"
    )
    assert odd == []
    assert both.has(
        "SELECT count(*) > 30 FROM pg_proc WHERE pronamespace = 'rebuilt'::regnamespace"
    ) == [(True,)]


DERIVED = (
    "SELECT p.oid::regprocedure::text, p.prosrc, p.proconfig, p.proacl::text, p.proowner"
    "  FROM pg_proc p WHERE p.pronamespace = 'rebuilt'::regnamespace"
    " UNION ALL SELECT c.relname, pg_get_viewdef(c.oid), NULL, c.relacl::text, c.relowner"
    "  FROM pg_class c WHERE c.relnamespace = 'rebuilt'::regnamespace AND c.relkind = 'v'"
    " ORDER BY 1"
)


def test_what_is_derived_anew_is_what_was_there(
    both: Both, manage: Callable[..., Result]
) -> None:
    """Also where a cut-over has made it, and not migrate."""
    before = both.database.superuser.execute(DERIVED).fetchall()
    done = manage("settle", "--again")
    assert (done.code, done.err) == (0, "")
    assert both.database.superuser.execute(DERIVED).fetchall() == before


def test_a_cut_over_and_its_undoing_leave_no_trace(both: Both) -> None:
    """Whichever comes first."""
    before = both.database.superuser.execute(DERIVED).fetchall()
    changes = [cut_over.cut_over, cut_over.undo]
    if both.place.is_cut_over:
        changes.reverse()
    changes[0](connection)
    between = both.database.superuser.execute(DERIVED).fetchall()
    changes[1](connection)
    assert both.database.superuser.execute(DERIVED).fetchall() == before != between


def test_triggers_fire_always_row_by_row_and_for_truncate(both: Both) -> None:
    """Not even a session in replication role writes past them."""
    found = both.has(
        "SELECT (SELECT c.relnamespace::regnamespace || '.' || c.relname FROM pg_class c"
        "         WHERE c.oid = tgrelid), tgenabled,"
        "       sum(tgtype & 28) FILTER (WHERE tgtype & 1 = 1),"
        "       count(*) FILTER (WHERE tgname = 'zz_terrain_sync_truncate' AND tgtype & 1 = 0)"
        "  FROM pg_trigger WHERE tgname LIKE 'zz_terrain_sync%' AND NOT tgisinternal"
        "   AND tgname <> 'zz_terrain_sync_columns' GROUP BY 1, 2"
    )
    tables = {
        *(both.place.name(f"@legacy.{lens.legacy}") for lens in LENSES),
        *(both.place.name(f"@new.{new}") for new in (*BY_NEW, "order_items")),
    }
    # Each of insertion, deletion and update (4, 8, 16) once; and each truncation.
    assert {tuple(row) for row in found} == {(one, "A", 28, 1) for one in tables}
    replica = both.database.connect("postgres", both.place.legacy)
    replica.execute("SET session_replication_role = replica")
    replica.execute(ids("UPDATE artists SET name = 'Replica' WHERE id = '#ann'"))
    assert both.has("SELECT display_name FROM users WHERE id = '#ann'") == [
        ("Replica",)
    ]


def test_no_column_that_is_carried_over_can_be_dropped(both: Both) -> None:
    for lens, column in ((lens, column) for lens in LENSES for column in lens.mapped):
        with pytest.raises(errors.DependentObjectsStillExist) as error:
            both.database.execute(
                f"ALTER TABLE @legacy.{lens.legacy} DROP COLUMN {column.name}"
            )
        assert "trigger zz_terrain_sync_columns on table " in (
            error.value.diag.message_detail or ""
        )


def test_nor_can_its_type_be_changed(both: Both) -> None:
    with pytest.raises(errors.FeatureNotSupported, match="in a trigger definition"):
        both.database.execute("ALTER TABLE @legacy.assets ALTER view_count TYPE bigint")


def test_a_column_dropped_all_the_same_is_no_matter_to_the_old_application(
    both: Both,
) -> None:
    """Its statement succeeds, and the row is late until the column is back."""
    both.database.execute("ALTER TABLE @legacy.artists DROP COLUMN bio CASCADE")
    both.does("UPDATE artists SET name = 'Without' WHERE id = '#ann'")
    assert both.sees("SELECT name FROM artists WHERE id = '#ann'") == [("Without",)]
    late = "SELECT legacy_table, key FROM rebuilt.queue WHERE late"
    assert both.has(late) == [("artists", "#ann")]
    both.database.execute("ALTER TABLE @legacy.artists ADD COLUMN bio text")
    settling.settle_queue(connection)
    assert both.has("SELECT display_name FROM users WHERE id = '#ann'") == [
        ("Without",)
    ]
    assert both.has(late) == []


def test_a_temporary_table_of_the_same_name_fools_nobody(both: Both) -> None:
    both.database.superuser.execute(
        f"GRANT TEMP ON DATABASE {both.database.name} TO shop_app"
    )
    both.does("CREATE TEMP TABLE users (id uuid, role text, email text)")
    both.does("CREATE TEMP TABLE legacy_quarantine (id int)")
    both.does("UPDATE @legacy.artists SET name = 'Real' WHERE id = '#ann'")
    assert both.has("SELECT display_name FROM users WHERE id = '#ann'") == [("Real",)]


def test_what_the_old_application_can_see_has_nothing_added(both: Both) -> None:
    columns = both.sees(
        "SELECT count(*) FROM pg_attribute WHERE attrelid = '@legacy.artists'::regclass"
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
    assert str(refused.value) == both.fill(
        "The items of @legacy.orders #ord are held (items_not_array) and have no"
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
    assert str(refused.value) == both.fill(
        "@new.tables #den has the id of a row of @legacy.example_tables that is" " held"
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


def test_unique_values_that_go_round(both: Both) -> None:
    """All at once, where the shop has made the key deferrable."""
    both.database.execute(
        "ALTER TABLE @legacy.user_tables DROP CONSTRAINT user_tables_share_token_key,"
        " ADD UNIQUE (share_token) DEFERRABLE"
    )
    insert(
        both.old,
        table("#t1", None, share_token="a"),
        table("#t2", None, share_token="b"),
        table("#t3", None, share_token="c"),
    )
    both.does(
        "UPDATE user_tables SET share_token = CASE share_token WHEN 'a' THEN 'b'"
        " WHEN 'b' THEN 'c' ELSE 'a' END WHERE share_token IN ('a', 'b', 'c')"
    )
    assert both.has(
        "SELECT id, share_code FROM tables WHERE share_code IS NOT NULL ORDER BY 2"
    ) == [("#t3", "a"), ("#t1", "b"), ("#t2", "c")]
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
        both.place.fill(
            "@new.users #ann cannot be kept in step with @legacy.artists: new row for"
            ' relation "artists" violates check constraint "artists_status_check"'
        ),
        FITS,
    )
    assert refusal(
        lambda: Model.objects.filter(pk=key("#tower")).update(status="gone")
    ) == (
        both.place.fill(
            "@new.models #tower cannot be kept in step with @legacy.assets: new row for"
            ' relation "assets" violates check constraint "assets_status_check"'
        ),
        FITS,
    )
    assert both.has("SELECT status FROM users WHERE id = '#ann'") == [("active",)]


def test_an_id_is_not_for_the_new_application_to_change(both: Both) -> None:
    assert refusal(
        lambda: Model.objects.filter(pk=key("#tower")).update(id=key("#other"))
    ) == (
        both.place.fill(
            "The id of @new.models #tower cannot be changed while the old application uses it"
        ),
        "Wait until cleanup_legacy.",
    )


@pytest.mark.parametrize("new", [*BY_NEW, "order_items"])
def test_truncating_a_new_table_is_refused(both: Both, new: str) -> None:
    with pytest.raises(psycopg.DatabaseError) as refused:
        both.newly(f"TRUNCATE {new} CASCADE")
    assert refused.value.sqlstate == "TB002"
    assert re.match(
        both.place.own[0]
        + r"\.\w+ cannot be truncated while the old application uses its"
        " legacy table",
        str(refused.value),
    )


# --- before the copy has come by -------------------------------------------------------------


@pytest.mark.parametrize(
    "changed, held",
    [
        ("status = 'paid'", ""),
        ("user_email = 'other@r.example'", ""),
        ("items = items || items", ""),
        ("status = 'paid'", """[{"quantity": 0}]"""),
    ],
)
def test_an_order_that_changes_before_it_is_copied_keeps_its_items(
    both: Both, changed: str, held: str
) -> None:
    """The triggers are there already, the new row and its lines are not."""
    with both.old.transaction():
        both.does("SELECT set_config('terrain.echo', 'legacy.orders:*@0', true)")
        insert(both.old, order("#early", ({"asset_id": "#tower", "quantity": 2},)))
        if held:
            both.does("UPDATE orders SET items = %s WHERE id = '#early'", held)
    assert both.has("SELECT id FROM orders WHERE id = '#early'") == []
    before = both.sees("SELECT items FROM orders WHERE id = '#early'")
    both.does(f"UPDATE orders SET {changed} WHERE id = '#early'")
    after = both.sees("SELECT items FROM orders WHERE id = '#early'")
    assert after == before or changed.startswith("items")
    lines = both.has("SELECT count(*) FROM order_items WHERE order_id = '#early'")
    assert lines == [(0 if held else len(after[0][0]),)]
    assert both.held() == ([("orders", "#early", "quantity_below_one")] if held else [])
