"""The old application's own statements, through a role that owns nothing.

The same script runs before the migration and after it, on connections opened before it,
and has to get the same answers; what it writes the new side sees, and the other way round.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from django.db import connection

from catalogue.models import Model, Table
from orders.models import Order, OrderItem, Payment
from terrain.legacy import settling, sql
from terrain.legacy.mapping import LENSES
from terrain.models import User
from tests import dumps
from tests.conftest import Database, Result, pointed_at
from tests.legacy import THEN, ids, insert, key, order, table

pytestmark = pytest.mark.migration

Connection = psycopg.Connection[Any]
Manage = Callable[..., Result]

A = "'00000000-0000-4000-8000-0000000000a1'"
B = "'00000000-0000-4000-8000-0000000000b1'"

#: Statements in the order in which a day of the shop brings them.
SCRIPT = (
    # reading
    "SELECT a.*, r.name AS artist FROM assets a JOIN artists r ON r.id = a.artist_id"
    " WHERE a.status = 'published' AND a.tags && '{tag1,tag2}' ORDER BY a.id LIMIT 5",
    "SELECT a.*, count(x.id), sum(x.base_price) FROM artists a"
    " LEFT JOIN assets x ON x.artist_id = a.id GROUP BY a.id ORDER BY a.id",
    "SELECT a.name, sum((i ->> 'quantity')::int) FROM orders o"
    " CROSS JOIN jsonb_array_elements(o.items) i JOIN assets a ON a.id ="
    " (i ->> 'asset_id')::uuid GROUP BY a.id ORDER BY 2 DESC, a.id LIMIT 7",
    "SELECT count(*) FROM orders WHERE items @> (SELECT jsonb_build_array(jsonb_build_object("
    "'asset_id', id)) FROM assets ORDER BY id LIMIT 1)",
    "SELECT t.status, sum(t.amount) FROM stripe_transfers t JOIN orders o"
    " ON o.id = t.order_id GROUP BY 1 ORDER BY 1",
    "SELECT share_token, layout_data -> 'models' FROM user_tables WHERE is_public"
    " ORDER BY id LIMIT 3",
    "SELECT * FROM example_tables ORDER BY view_count DESC, id LIMIT 3 FOR UPDATE",
    "SELECT 'artists'::regclass::oid = to_regclass('artists')::oid",
    # artists
    f"INSERT INTO artists (id, email, password_hash, name) VALUES ({A}, 'a@b.example',"
    " '$2b$12$x', 'A') RETURNING id, email, status, role, commission_rate",
    "INSERT INTO artists (email, password_hash, name) VALUES ('a@b.example', 'h', 'Again')"
    " ON CONFLICT (email) DO UPDATE SET name = excluded.name, bio = artists.email"
    " RETURNING id, name, bio, (xmax <> 0) AS updated",
    "INSERT INTO artists (email, password_hash, name) VALUES ('a@b.example', 'h', 'Not')"
    " ON CONFLICT ON CONSTRAINT artists_email_key DO NOTHING RETURNING id",
    "INSERT INTO artists (email, password_hash, name) VALUES ('a@b.example', 'h', 'Not')",
    "INSERT INTO artists (email, password_hash, name, status)"
    " VALUES ('c@b.example', 'h', 'C', 'odd')",
    f"UPDATE artists SET commission_rate = 0.75 WHERE id = {A} RETURNING *",
    f"WITH a AS (INSERT INTO artists (id, email, password_hash, name) VALUES ({B},"
    " 'b@b.example', 'h', 'B') RETURNING id) INSERT INTO assets (id, artist_id, name,"
    f" base_price, file_paths) SELECT {B}, id, 'Made with its artist', 4.20, '{{}}' FROM a"
    " RETURNING artist_id, name, status, tags",
    # assets
    f"UPDATE assets SET view_count = view_count + 1, tags = tags || 'new'::text"
    f" WHERE id = {B} RETURNING view_count, tags",
    f"UPDATE assets SET artist_id = {A} WHERE id = {B} RETURNING artist_id",
    "INSERT INTO assets (artist_id, name, file_paths) VALUES (gen_random_uuid(), 'X', '{}')",
    # tables
    f"INSERT INTO user_tables (id, user_email, name, table_config, layout_data, share_token)"
    f" VALUES ({A}, 'Who@b.example', 'T', '{{\"width\": 900.0}}', '{{}}', 'tok')"
    " RETURNING id, table_config, share_token",
    "INSERT INTO user_tables (name, table_config, layout_data, share_token)"
    " VALUES ('T2', '[]', '{}', 'tok') ON CONFLICT (share_token) DO UPDATE"
    " SET table_config = user_tables.table_config || '{\"depth\": 1}' RETURNING *",
    "INSERT INTO user_tables (name, table_config, layout_data) VALUES ('Odd', '[1]', '2')"
    " RETURNING name, table_config, layout_data, user_email",
    f"INSERT INTO example_tables (id, artist_id, name, table_config, layout_data)"
    f" VALUES ({B}, {A}, 'E', '{{}}', '{{}}') RETURNING is_featured, view_count",
    f"UPDATE example_tables SET view_count = view_count + 1 WHERE id = {B}"
    " RETURNING view_count",
    # orders
    f"INSERT INTO orders (id, order_number, user_email, user_name, shipping_address, items,"
    f" pricing, created_at) VALUES ({A}, 'ON-1', 'who@b.example', 'Who', '{{}}',"
    f" jsonb_build_array(jsonb_build_object('asset_id', {B}, 'quantity', 2)),"
    " '{\"total\": 8.4, \"model_subtotal\": 8.40}', '2024-01-01') RETURNING *",
    f"UPDATE orders SET items = items || '[{{\"quantity\": 0}}]', status = 'paid'"
    f" WHERE id = {A} RETURNING items, status",
    f"UPDATE orders SET items = items - 1 WHERE id = {A} RETURNING items",
    f"INSERT INTO stripe_transfers (id, order_id, artist_id, stripe_transfer_id, amount)"
    f" VALUES ({A}, {A}, {A}, 'tr_1', 6.72) RETURNING status",
    f"DELETE FROM orders WHERE id = {A}",
    f"DELETE FROM artists WHERE id = {A}",
    # deleting
    f"DELETE FROM stripe_transfers WHERE id = {A} RETURNING amount",
    f"DELETE FROM artists WHERE id = {A} RETURNING name",
    f"SELECT count(*) FROM assets WHERE id = {B}",
    f"SELECT count(*) FROM example_tables WHERE id = {B}",
    f"DELETE FROM orders WHERE id = {A} RETURNING order_number",
    "DELETE FROM user_tables WHERE share_token = 'tok' RETURNING name",
    "TRUNCATE stripe_transfers",
    "TRUNCATE orders",
    "TRUNCATE orders CASCADE",
    "SELECT count(*) FROM stripe_transfers",
)


def answers(old: Connection, script: tuple[str, ...] = SCRIPT) -> list[Any]:
    """What each statement returns, its tag and its columns; of an error its state and text."""
    given = []
    for statement in script:
        try:
            cursor = old.execute(statement)  # type: ignore[arg-type]
        except psycopg.Error as error:
            given.append((statement, error.sqlstate, error.diag.message_primary))
            continue
        columns = [(c.name, c.type_code) for c in cursor.description or ()]
        rows = cursor.fetchall() if columns else []
        given.append((statement, cursor.statusmessage, columns, timeless(rows)))
    return given


def timeless(rows: list[Any]) -> list[Any]:
    """Rows without what is the time of the test."""
    recent = datetime.datetime.now() - datetime.timedelta(days=1)

    def plain(value: Any) -> Any:
        return "now" if type(value) is datetime.datetime and value > recent else value

    return [tuple(map(plain, row)) for row in rows]


def assert_in_step() -> None:
    for lens in LENSES:
        with connection.cursor() as cursor:
            cursor.execute(sql.differences(lens), {"after": None, "upto": None})
            assert cursor.fetchall() == [], lens.legacy


def test_the_same_answers_before_and_after(
    shop: Database, clone: Callable[[str], Database], manage: Manage
) -> None:
    """Before, on a connection held open across the migration, and on one opened since.

    The role has no search path of its own, nor has the database, and nobody gives it one.
    """
    template = shop.name
    held_open_at, opened_since_at = clone(template), clone(template)
    expected = answers(shop.old())
    assert manage("migrate", "-v0").code == 0
    assert answers(opened_since_at.old()) == expected
    assert_in_step()
    with pointed_at(held_open_at.name):
        held_open = held_open_at.old()
        held_open.execute("SELECT 1")
        assert manage("migrate", "-v0").code == 0
        path = held_open.execute("SHOW search_path").fetchone()
        assert path == ('"$user", public',)
        assert answers(held_open) == expected
        assert_in_step()


def test_the_same_answers_after_a_cut_over_and_its_undoing(
    shop: Database, clone: Callable[[str], Database], manage: Manage
) -> None:
    """On a connection that was open all the time, and rested in between."""
    migrated = clone(shop.name)
    expected = answers(shop.old())
    assert manage("migrate", "-v0").code == 0
    held_open = migrated.old()
    held_open.execute("SELECT FROM artists, orders")
    assert manage("cut_over", "--yes", "--ignore-activity").code == 0
    assert manage("cut_over", "--undo", "--yes").code == 0
    assert answers(held_open) == expected
    assert_in_step()


def test_the_same_answers_after_a_cut_over_with_the_path_of_prepare_database(
    shop: Database, clone: Callable[[str], Database], manage: Manage
) -> None:
    """Statements go on; what else such an application does is listed by that command."""
    migrated = clone(shop.name)
    expected = answers(shop.old())
    assert manage("migrate", "-v0").code == 0
    assert manage("cut_over", "--yes").code == 0
    assert manage("prepare_database").code == 0
    assert answers(migrated.old()) == expected
    assert_in_step()


def test_one_transaction_gives_the_same_answers(
    shop: Database, clone: Callable[[str], Database], manage: Manage
) -> None:
    """All of it in a single transaction, each failure undone by a savepoint; rolled back."""
    migrated = clone(shop.name)
    expected = in_one_transaction(shop.old())
    assert manage("migrate", "-v0").code == 0
    before = dumps.contents(migrated)
    assert in_one_transaction(migrated.old()) == expected
    assert dumps.contents(migrated) == before


def in_one_transaction(old: Connection) -> list[Any]:
    given = []
    with old.transaction(force_rollback=True):
        for statement in SCRIPT:
            try:
                with old.transaction():
                    cursor = old.execute(statement)  # type: ignore[arg-type]
                    rows = timeless(cursor.fetchall() if cursor.description else [])
                    given.append((statement, cursor.statusmessage, rows))
            except psycopg.Error as error:
                given.append((statement, error.sqlstate, error.diag.message_primary))
    return given


PREPARED = {
    "by_email (text)": "SELECT * FROM artists WHERE email = $1",
    "star": "SELECT * FROM assets ORDER BY id LIMIT 2",
    "grouped": "SELECT a.*, count(*) FROM artists a JOIN assets x ON x.artist_id = a.id"
    " GROUP BY a.id ORDER BY a.id LIMIT 2",
    "view (uuid)": "UPDATE assets SET view_count = view_count WHERE id = $1 RETURNING *",
    "lines": "SELECT o.id, i FROM orders o, jsonb_array_elements(o.items) i"
    " ORDER BY o.id, i LIMIT 3",
    "upsert (text)": "INSERT INTO user_tables (name, table_config, layout_data, share_token)"
    " VALUES ('P', '{}', '{}', $1) ON CONFLICT (share_token) DO UPDATE SET name = 'Q'"
    " RETURNING name, share_token",
    "paid": "SELECT * FROM stripe_transfers ORDER BY id LIMIT 2",
    "shown": "SELECT * FROM example_tables ORDER BY id LIMIT 2",
}
ARGUMENTS = {
    "by_email (text)": "('artist1@example.com')",
    "view (uuid)": f"({A})",
    "upsert (text)": "('prepared')",
}


def test_prepared_statements_live_through_migration_and_rollback(
    shop: Database, manage: Manage
) -> None:
    """Generic plans and custom ones, on a connection held open all the time."""
    old = shop.old()
    for name, statement in PREPARED.items():
        old.execute(f"PREPARE {name} AS {statement}")  # type: ignore[arg-type]

    def executed() -> list[Any]:
        found = []
        for name in PREPARED:
            call = f"EXECUTE {name.split()[0]} {ARGUMENTS.get(name, '')}"
            for mode in ("force_generic_plan", "force_custom_plan"):
                old.execute(f"SET plan_cache_mode = {mode}")
                found.append(old.execute(call).fetchall())  # type: ignore[arg-type]
        return found

    executed()  # the upsert has inserted; from here on it updates
    expected = executed()
    there = ("cut_over", "--yes", "--ignore-activity")
    for command in (
        ("migrate", "-v0"),
        ("rollback_migration", "--yes"),
        ("migrate", "-v0"),
        there,
        ("cut_over", "--undo", "--yes"),
        there,
        ("rollback_migration", "--yes"),
    ):
        done = manage(*command)
        assert (done.code, done.err) == (0, ""), command
        # What it needs while its tables are there, and only then.
        old.execute(
            f"SET search_path = {'legacy, public' if command == there else 'public'}"
        )
        assert executed() == expected, command


def test_a_cursor_that_is_open_while_its_rows_change(migrated: Database) -> None:
    old = migrated.old()
    with old.transaction():
        with old.cursor("scroll") as cursor:
            cursor.execute("SELECT * FROM orders ORDER BY id")
            first = cursor.fetchone()
            old.execute("UPDATE orders SET notes = 'seen' WHERE id = %s", [first[0]])
            assert len(cursor.fetchall()) > 100
    assert Order.objects.get(pk=first[0]).notes == "seen"


def test_copy_in_and_out(migrated: Database) -> None:
    old = migrated.old()
    with old.cursor().copy(
        "COPY artists (id, email, password_hash, name) FROM STDIN"
    ) as into:
        for number in range(50):
            into.write_row((key(f"#c{number}"), f"c{number}@copy.example", "h", "C"))
    with old.cursor().copy(
        "COPY (SELECT name FROM artists WHERE name = 'C') TO STDOUT"
    ) as out:
        assert sum(1 for _ in out.rows()) == 50
    assert User.objects.filter(display_name="C", role="artist").count() == 50
    assert_in_step()


@pytest.mark.parametrize(
    "truncated, gone",
    [
        (
            "artists CASCADE",
            ("artists", "assets", "example_tables", "stripe_transfers"),
        ),
        ("orders, stripe_transfers", ("orders", "stripe_transfers")),
        ("user_tables", ("user_tables",)),
        ("stripe_transfers", ("stripe_transfers",)),
    ],
)
def test_truncate(migrated: Database, truncated: str, gone: tuple[str, ...]) -> None:
    """Whoever bought or saved something stays, as a customer."""
    migrated.old().execute(f"TRUNCATE {truncated}")
    for lens in LENSES:
        left = migrated.value(
            f"SELECT count(*) FROM terrain.{lens.new} n WHERE {lens.own}"
        )
        assert (left == 0) == (lens.legacy in gone), lens.legacy
    assert_in_step()
    assert migrated.value("SELECT count(*) FROM users WHERE role = 'customer'") > 0


# --- each table, each way --------------------------------------------------------------------


def test_what_the_old_application_writes_the_new_one_reads(migrated: Database) -> None:
    old = migrated.old()
    answers(old, SCRIPT[:-12])
    artist = User.objects.get(pk=A.strip("'"))
    assert (artist.display_name, artist.bio, str(artist.commission_rate)) == (
        "Again",
        "a@b.example",
        "0.750",
    )
    made = Model.objects.get(pk=B.strip("'"))
    assert (made.artist, made.view_count, made.tags) == (artist, 1, ["new"])
    saved = Table.objects.get(share_code="tok")
    assert (saved.kind, saved.width, saved.depth, saved.config) == (
        "user",
        900,
        1,
        {"width": 900.0},
    )
    assert Table.objects.get(pk=B.strip("'")).view_count == 1
    placed = Order.objects.get(pk=A.strip("'"))
    assert placed.status == "paid"
    assert [
        (i.model, i.artist, i.quantity, str(i.total_price)) for i in placed.items.all()
    ] == [(made, artist, 2, "8.40")]
    assert str(Payment.objects.get(pk=A.strip("'")).amount) == "6.72"
    answers(old, SCRIPT[-12:])
    for gone in (
        User.objects.filter(pk=artist.pk),
        Model.objects.filter(pk=made.pk),
        Table.objects.filter(pk__in=[saved.pk, made.pk]),
        Order.objects.all(),
        OrderItem.objects.all(),
        Payment.objects.all(),
    ):
        assert not gone.exists()
    assert_in_step()


def test_what_the_new_application_writes_the_old_one_reads(migrated: Database) -> None:
    old = migrated.old()

    def seen(query: str, *params: Any) -> list[Any]:
        return old.execute(query, params or None).fetchall()  # type: ignore[arg-type]

    ann = User.objects.create_user("Ann@new.example", "pw", role="artist", bio="b")
    assert seen("SELECT email, name, role, bio FROM artists WHERE id = %s", ann.pk) == [
        ("Ann@new.example", "", "artist", "b")
    ]
    buyer = User.objects.create_user("Buyer@new.example")
    assert seen("SELECT 1 FROM artists WHERE id = %s", buyer.pk) == []
    made = Model.objects.create(
        artist=ann, name="M", base_price="1.50", file_paths={}, tags=["a"]
    )
    assert seen(
        "SELECT artist_id, name, base_price::text, tags FROM assets WHERE id = %s",
        made.pk,
    ) == [(ann.pk, "M", "1.50", ["a"])]
    saved = Table.objects.create(
        user=buyer, name="T", contact_email=buyer.email, width=900, config={"grid": 1}
    )
    shown = Table.objects.create(kind="example", user=ann, name="E", is_featured=True)
    assert seen(
        "SELECT user_email, table_config FROM user_tables WHERE id = %s", saved.pk
    ) == [("buyer@new.example", {"grid": 1, "width": 900})]
    assert seen(
        "SELECT artist_id, is_featured FROM example_tables WHERE id = %s", shown.pk
    ) == [(ann.pk, True)]
    placed = Order.objects.create(
        order_number="N-1",
        user=buyer,
        customer_email=buyer.email,
        customer_name="Buyer",
        shipping_address={},
        pricing={},
    )
    line = placed.items.create(
        position=1,
        asset_ref=str(made.pk),
        quantity=2,
        unit_price="1.50",
        total_price="3",
    )
    placed.items.create(
        position=2, quantity=1, print_color="Red", price_source="unknown"
    )
    items = [
        {"asset_id": str(made.pk), "quantity": 2, "unit_price": 1.5},
        {"quantity": 1, "printOptions": {"color": "Red"}},
    ]
    assert seen("SELECT user_email, items FROM orders WHERE id = %s", placed.pk) == [
        ("buyer@new.example", items)
    ]
    paid = Payment.objects.create(
        order=placed, artist=ann, stripe_transfer_id="tr", amount="2.40"
    )
    assert seen(
        "SELECT order_id, amount::text FROM stripe_transfers WHERE id = %s", paid.pk
    ) == [(placed.pk, "2.40")]

    line.quantity = 3
    line.save()
    placed.status = "shipped"
    placed.save()
    saved.width = None
    saved.save()
    Model.objects.filter(pk=made.pk).update(view_count=5)
    ann.display_name = "Ann"
    ann.save()
    items[0]["quantity"] = 3
    assert seen("SELECT status, items FROM orders WHERE id = %s", placed.pk) == [
        ("shipped", items)
    ]
    assert seen("SELECT table_config FROM user_tables WHERE id = %s", saved.pk) == [
        ({"grid": 1},)
    ]
    assert seen("SELECT view_count FROM assets WHERE id = %s", made.pk) == [(5,)]
    assert seen("SELECT name FROM artists WHERE id = %s", ann.pk) == [("Ann",)]

    for row in (line, paid, placed, saved, shown, made, ann):
        row.delete()
    for table_ in (
        "orders",
        "stripe_transfers",
        "user_tables",
        "example_tables",
        "assets",
    ):
        gone = [placed.pk, paid.pk, saved.pk, shown.pk, made.pk]
        assert seen(f"SELECT 1 FROM {table_} WHERE id = ANY (%s)", gone) == []
    assert seen("SELECT 1 FROM artists WHERE id = %s", ann.pk) == []
    assert_in_step()


def test_a_table_changes_kind(migrated: Database) -> None:
    """The new application shows a visitor's table as an example, and takes that back."""
    old = migrated.old()
    insert(old, table("#den", "sits@at.example", {"width": 5}, share_token="s"))
    artist = User.objects.filter(role="artist").first()
    Table.objects.filter(pk=key("#den")).update(kind="example", user=artist)
    assert (
        old.execute("SELECT 1 FROM user_tables WHERE id = %s", [key("#den")]).fetchall()
        == []
    )
    assert old.execute(
        "SELECT name, table_config FROM example_tables WHERE id = %s", [key("#den")]
    ).fetchall() == [("Den", {"width": 5})]
    Table.objects.filter(pk=key("#den")).update(kind="user")
    assert old.execute(
        "SELECT user_email, share_token FROM user_tables WHERE id = %s", [key("#den")]
    ).fetchall() == [("sits@at.example", "s")]
    assert_in_step()


def test_counters_of_both_applications_add_up(migrated: Database) -> None:
    """Each adds one to a column the other adds one to: neither is lost."""
    old = migrated.old()
    made = Model.objects.order_by("id").first()
    assert made is not None
    before = made.view_count
    for _ in range(5):
        old.execute(
            "UPDATE assets SET view_count = view_count + 1 WHERE id = %s", [made.pk]
        )
        made.description = f"{made.description}!"
        made.save()  # read before the other counted
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE models SET view_count = view_count + 1 WHERE id = %s", [made.pk]
            )
    assert old.execute(
        "SELECT view_count FROM assets WHERE id = %s", [made.pk]
    ).fetchall() == [(before + 10,)]


def test_a_trigger_of_the_shops_own(shop: Database, manage: Manage) -> None:
    """One that changes NEW and one that writes another table, there before the migration."""
    shop.execute(
        "CREATE FUNCTION public.counts() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        "  UPDATE assets SET purchase_count = purchase_count + 1 WHERE id IN"
        "   (SELECT (e ->> 'asset_id')::uuid FROM jsonb_array_elements(NEW.items) e);"
        "  RETURN NULL; END $$;"
        "CREATE FUNCTION public.touches() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        "  NEW.updated_at := '2031-01-01'; NEW.notes := upper(NEW.notes); RETURN NEW; END $$;"
        "CREATE TRIGGER counts AFTER INSERT ON orders FOR EACH ROW"
        " EXECUTE FUNCTION public.counts();"
        "CREATE TRIGGER touches BEFORE INSERT OR UPDATE ON orders FOR EACH ROW"
        " EXECUTE FUNCTION public.touches()"
    )
    assert manage("migrate", "-v0").code == 0
    old = shop.old()
    made = Model.objects.order_by("id").first()
    assert made is not None
    line = {"asset_id": str(made.pk), "quantity": 1}
    insert(old, order("#mine", (line,), notes="quiet"))
    written = Order.objects.get(pk=key("#mine"))
    assert (written.notes, written.updated_at.year) == ("QUIET", 2031)
    placed = Order.objects.create(
        id=key("#theirs"),
        order_number="theirs",
        customer_email="x@y.example",
        customer_name="X",
        shipping_address={},
        pricing={},
        notes="new side",
    )
    placed.refresh_from_db()
    assert (placed.notes, placed.updated_at.year) == ("NEW SIDE", 2031)
    assert Model.objects.get(pk=made.pk).purchase_count == made.purchase_count + 1
    assert_in_step()


def test_a_role_that_owns_nothing_has_no_rights_on_the_new_tables(
    migrated: Database,
) -> None:
    """And needs none: everything it may do on the legacy tables works all the same."""
    old = migrated.old()
    for new in (
        "users",
        "models",
        "tables",
        "order_items",
        "payments",
        "legacy_quarantine",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            old.execute(f"SELECT FROM terrain.{new}")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        old.execute("SELECT rebuilt.artists_to_new(gen_random_uuid())")
    old.execute(ids("UPDATE artists SET bio = 'fine'"))
    assert_in_step()


def test_a_read_only_role_reads_on(
    shop: Database, manage: Manage, administrator: Any
) -> None:
    """USAGE goes to every role with any right, on a single column even."""
    administrator.execute(
        "DO $$ BEGIN CREATE ROLE shop_reports LOGIN;"
        " EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
    )
    shop.execute("GRANT SELECT (id, order_number) ON orders TO shop_reports")
    assert manage("migrate", "-v0").code == 0
    reports = shop.connect("shop_reports")
    assert reports.execute("SELECT count(order_number) FROM orders").fetchone() != (0,)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reports.execute("SELECT user_email FROM orders")
    assert manage("cut_over", "--yes", "--ignore-activity").code == 0
    assert reports.execute(
        "SELECT count(order_number) FROM legacy.orders"
    ).fetchone() != (0,)
    for orders in ("legacy.orders", "public.orders"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reports.execute(f"SELECT * FROM {orders}")  # type: ignore[arg-type]


def test_settling_changes_nothing_the_old_application_reads(migrated: Database) -> None:
    old = migrated.old()
    insert(old, order("#later", email="Late@r.example"), table("#t", "late@r.example"))
    before = {
        lens.legacy: dumps.rows(migrated, f"public.{lens.legacy}") for lens in LENSES
    }
    done = settling.settle(connection)
    assert (done.customers, done.linked) == (1, 2)
    assert before == {
        lens.legacy: dumps.rows(migrated, f"public.{lens.legacy}") for lens in LENSES
    }
    customer = User.objects.get(email="late@r.example")
    assert customer.created_at.isoformat()[:19] == THEN.replace(" ", "T")
