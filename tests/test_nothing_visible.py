"""What the old application sees of its database is the same before, during and after.

Each test looks with the eyes of the old application: through its role, on a new connection
that has brought no search path along, at everything that ``visible`` knows to ask.  After
``migrate`` the only difference allowed are the triggers of the sync on the six tables; after
``rollback_migration`` there is none.  The comparison is itself tested: changes of each kind
are made and must be seen.  A second witness, PostgreSQL's own ``pg_dump``, knows nothing of
these queries.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from terrain.legacy.sql.triggers import GUARDING, TRIGGER_PREFIX
from tests import dumps
from tests.conftest import OLD_ROLE, Database, Result
from tests.visible import OURS, Snapshot, difference, visible, without_sync

pytestmark = pytest.mark.migration

Manage = Callable[..., Result]

TABLES = (
    "artists",
    "assets",
    "user_tables",
    "example_tables",
    "orders",
    "stripe_transfers",
)
#: What an operator runs while the old application lives, after ``migrate``.
MEANWHILE = (
    ("settle",),
    ("copy_models_to_assets",),
    ("verify_migration",),
    ("migration_status",),
    ("preflight",),
    ("migrate", "-v0"),
)


def seen(shop: Database, role: str = OLD_ROLE, **options: Any) -> Snapshot:
    """What the role sees on a connection of its own."""
    connection = shop.connect(role)
    try:
        return visible(connection, **options)
    finally:
        connection.close()


def succeed(done: Result) -> None:
    assert done.code == 0, done.out + done.err


# --- the comparison itself -------------------------------------------------------------------


def test_two_looks_at_the_same_database_are_the_same(shop: Database) -> None:
    found = seen(shop)
    assert difference(found, seen(shop)) == []
    assert {f"public.{table}" for table in TABLES} <= {*found["relations"]}
    assert found["session"]["path"]["current_schema"] == "public"
    assert found["rows"]["public.orders"]["rows"] > 0


#: section -> a change that it shows.
CHANGES = {
    "relations": "ALTER TABLE orders SET (fillfactor = 90)",
    "columns": "ALTER TABLE orders ALTER notes SET STATISTICS 10",
    "constraints": "CREATE TABLE rebuilt.pointing (o uuid REFERENCES orders)",
    "indexes": "CREATE INDEX by_notes ON orders (notes)",
    "rules": "CREATE RULE a_rule AS ON DELETE TO orders DO ALSO SELECT 1",
    "policies": "CREATE POLICY a_policy ON orders",
    "sequences": "CREATE SEQUENCE a_sequence",
    "functions": "CREATE FUNCTION a_function() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "types": "CREATE TYPE a_type AS ENUM ('a')",
    "statistics": "CREATE STATISTICS both_of ON notes, status FROM orders",
    "comments": "COMMENT ON COLUMN orders.notes IS 'A comment'",
    "default privileges": "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
    "publications": "CREATE PUBLICATION nothing",
    "published tables": "CREATE PUBLICATION one FOR TABLE orders",
    "published schemas": "CREATE PUBLICATION many FOR TABLES IN SCHEMA public",
    "schemas": "CREATE SCHEMA legacy",
    "rows": "UPDATE artists SET bio = bio",
    "database": "GRANT CREATE ON DATABASE {name} TO {role}",
    "settings": "ALTER DATABASE {name} SET work_mem = '5MB'",
    "settings of roles": "ALTER DATABASE {name} SET enable_sort = off",
    "extensions": "DROP EXTENSION plpgsql CASCADE",
    "languages": "CREATE EXTENSION plpgsql",
    "information_schema.tables": "GRANT SELECT ON rebuilt.pointing TO PUBLIC",
    "information_schema.columns": "CREATE TABLE rebuilt.a AS SELECT 1 n;"
    "GRANT ALL ON rebuilt.a TO {role}",
    "relations that it may use": "CREATE TABLE rebuilt.b (n int);"
    "GRANT SELECT (n) ON rebuilt.b TO PUBLIC",
    "schemas that it may use": "GRANT USAGE ON SCHEMA rebuilt TO {role}",
    "functions that it may use": "CREATE FUNCTION rebuilt.f() RETURNS int"
    " LANGUAGE sql AS 'SELECT 1'",
    "session": "ALTER DATABASE {name} SET search_path = legacy, public",
}


def test_a_change_of_each_kind_is_seen(shop: Database) -> None:
    superuser = shop.superuser
    superuser.execute("CREATE SCHEMA rebuilt")
    before = seen(shop)
    for section, change in CHANGES.items():
        superuser.execute(change.format(name=shop.name, role=OLD_ROLE))
        after = seen(shop)
        changed = difference(before, after)
        assert section in {line.lstrip("+- ").partition(": ")[0] for line in changed}
        before = after


def test_a_trigger_is_seen_unless_it_is_the_syncs(shop: Database) -> None:
    before = seen(shop)
    for name in ("another", f"{TRIGGER_PREFIX}_row"):
        shop.connect(path="public").execute(
            f"CREATE TRIGGER {name} BEFORE UPDATE ON orders FOR EACH ROW"
            " EXECUTE FUNCTION suppress_redundant_updates_trigger()"
        )
    after = seen(shop)
    one, other = difference(before, after)
    assert one.startswith("+ triggers: public.orders.another: ")
    assert other.startswith(f"+ triggers: public.orders.{TRIGGER_PREFIX}_row: ")
    assert difference(without_sync(before), without_sync(after)) == [one]


# --- the shop as it is found -----------------------------------------------------------------


def test_nothing_changes_but_triggers(shop: Database, manage: Manage) -> None:
    """After ``migrate`` and what follows it; and after the way back not even triggers."""
    before = seen(shop)
    succeed(manage("migrate", "-v0"))
    after = seen(shop)
    assert difference(without_sync(before), without_sync(after)) == []
    assert of_the_sync(before) == set()
    assert of_the_sync(after) == set(TABLES)
    for command in MEANWHILE:
        succeed(manage(*command))
        assert difference(after, seen(shop)) == [], command
    succeed(manage("rollback_migration", "--yes"))
    assert difference(before, seen(shop)) == []
    succeed(manage("migrate", "-v0"))
    assert difference(without_sync(before), without_sync(seen(shop))) == []


def test_nothing_changes_while_it_is_at_work(shop: Database, manage: Manage) -> None:
    """Looked at again and again, on new connections, while the commands run."""
    before = without_sync(seen(shop))
    ended, looks, wrong = threading.Event(), 0, []

    def look() -> None:
        nonlocal looks
        while not ended.is_set():
            try:
                wrong.extend(difference(before, without_sync(seen(shop))))
            except psycopg.errors.InternalError_:
                continue  # "cache lookup failed": what the query had found is gone since
            except BaseException as error:
                wrong.append(repr(error))
            looks += 1

    thread = threading.Thread(target=look)
    thread.start()
    try:
        succeed(manage("migrate", "-v0"))
        succeed(manage("rollback_migration", "--yes"))
        succeed(manage("migrate", "-v0"))
    finally:
        ended.set()
        thread.join()
    assert wrong == []
    assert looks > 5


def of_the_sync(found: Snapshot) -> set[str]:
    """The tables with triggers of the sync."""
    names = [name.split(".") for name in found["triggers"]]
    return {table for _, table, name in names if name.startswith(TRIGGER_PREFIX)}


def test_the_tables_owner_sees_the_same_in_its_schemas(
    shop: Database, manage: Manage
) -> None:
    """An old application that connects as the owner; a query that names no schema sees ours."""
    owner = shop.connect().info.user
    before = seen(shop, owner, rights=False)
    succeed(manage("migrate", "-v0"))
    after = seen(shop, owner, rights=False)
    assert difference(without_sync(before), without_sync(after)) == []
    succeed(manage("rollback_migration", "--yes"))
    assert difference(before, seen(shop, owner, rights=False)) == []


def test_a_dump_of_its_schema_is_the_same_but_for_triggers(
    shop: Database, manage: Manage
) -> None:
    before = dumps.schema(shop, "--schema=public")
    succeed(manage("migrate", "-v0"))
    after = dumps.schema(shop, "--schema=public")
    added = re.compile(
        rf"CREATE TRIGGER {TRIGGER_PREFIX}\w* .* ON public\.\w+ .*;"
        rf"|ALTER TABLE public\.\w+ (ENABLE ALWAYS|DISABLE) TRIGGER {TRIGGER_PREFIX}\w*;"
        rf"|COMMENT ON TRIGGER {TRIGGER_PREFIX}\w* ON public\.\w+ IS .*;"
    )
    assert [line for line in after if not added.fullmatch(line)] == before
    assert len(after) > len(before)
    succeed(manage("rollback_migration", "--yes"))
    assert dumps.schema(shop, "--schema=public") == before


def dependents(shop: Database, on: str) -> list[tuple[str, str]]:
    """What of ours depends on a legacy table (``pg_class``) or on its type of rows (``pg_type``).

    One trigger does so on purpose, for the columns that the functions read: see ``GUARDING``.
    """
    return shop.superuser.execute(
        """
        SELECT DISTINCT pg_describe_object(d.classid, d.objid, d.objsubid),
               pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid)
          FROM pg_depend d
          LEFT JOIN pg_trigger t ON d.classid = 'pg_trigger'::regclass AND t.oid = d.objid
          JOIN pg_class c ON c.relnamespace = 'public'::regnamespace
           AND d.refobjid IN (c.oid, c.reltype),
               pg_identify_object(d.classid, d.objid, d.objsubid) i
         WHERE d.refclassid = %s::regclass AND c.relname = ANY (%s) AND (
               i.schema = ANY (%s) OR t.tgname LIKE %s AND d.refobjsubid > 0 AND t.tgname <> %s
               OR d.classid = 'pg_rewrite'::regclass AND i.identity ~ %s)
         ORDER BY 1, 2""",
        [
            on,
            list(TABLES),
            list(OURS),
            f"{TRIGGER_PREFIX}%",
            f"{TRIGGER_PREFIX}_{GUARDING}",
            f" on ({'|'.join(OURS)})\\.",
        ],
    ).fetchall()


def test_no_view_or_key_of_ours_is_in_the_way_of_its_own_changes(
    shop: Database, manage: Manage
) -> None:
    """One that depended on a legacy table would have an ALTER or a DROP of it refused."""
    succeed(manage("migrate", "-v0"))
    assert dependents(shop, "pg_class") == []


def test_its_owner_can_drop_a_table_as_before(shop: Database, manage: Manage) -> None:
    succeed(manage("migrate", "-v0"))
    assert dependents(shop, "pg_type") == []
    shop.connect(path="public").execute("DROP TABLE stripe_transfers")


# --- a shop that has lived -------------------------------------------------------------------

#: What others have made in the shop's database.
EXTRAS = """
    CREATE TABLE session (sid varchar PRIMARY KEY, sess json NOT NULL, expire timestamp NOT NULL);
    INSERT INTO session VALUES ('s', '{}', 'infinity');
    CREATE VIEW open_orders AS SELECT id, status FROM orders WHERE status <> 'delivered';
    CREATE FUNCTION orders_of(address text) RETURNS bigint LANGUAGE sql STABLE
        AS 'SELECT count(*) FROM orders WHERE user_email = address';
    CREATE FUNCTION public.revenue() RETURNS numeric LANGUAGE plpgsql STABLE AS
        'BEGIN RETURN (SELECT sum((pricing ->> ''total'')::numeric) FROM public.orders); END';
    CREATE TABLE django_migrations (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        app varchar(255) NOT NULL, name varchar(255) NOT NULL, applied timestamptz NOT NULL);
    INSERT INTO django_migrations (app, name, applied) VALUES
        ('contenttypes', '0001_initial', now()), ('auth', '0001_initial', now()),
        ('shop', '0001_initial', now());
    CREATE TABLE django_content_type (id serial PRIMARY KEY, app_label varchar(100) NOT NULL,
        model varchar(100) NOT NULL);
    CREATE TABLE auth_user (id serial PRIMARY KEY, username varchar(150) NOT NULL UNIQUE);
    INSERT INTO auth_user (username) VALUES ('other');
    CREATE TABLE users (id serial PRIMARY KEY, email text NOT NULL);
    INSERT INTO users (email) VALUES ('their@own.example');
    CREATE TYPE payments AS ENUM ('card', 'cash');
    CREATE TYPE money_of AS (amount numeric, currency text);
    CREATE DOMAIN address AS text CHECK (value LIKE '%@%');
    CREATE TABLE coupons (code text PRIMARY KEY, "order" uuid REFERENCES orders,
        kind payments NOT NULL DEFAULT 'card');
    CREATE STATISTICS status_by_day ON status, created_at FROM orders;
    COMMENT ON TABLE orders IS 'All that was ever ordered';
    COMMENT ON COLUMN orders.notes IS 'What the buyer said';
    CREATE SEQUENCE invoice OWNED BY orders.order_number;
    CREATE PUBLICATION news FOR TABLE orders;
    CREATE SCHEMA extensions;
    CREATE FUNCTION extensions.half(n numeric) RETURNS numeric LANGUAGE sql IMMUTABLE
        AS 'SELECT n / 2';
"""


@pytest.fixture
def lived(shop: Database) -> Iterator[tuple[Database, str]]:
    """A shop with much of its own, and a role that has a path and a schema of its own name."""
    shop.connect(path="public").execute(EXTRAS)
    role = f"shop_of_{shop.name}"
    named = sql.Identifier(role)
    superuser = shop.superuser
    superuser.execute(
        sql.SQL(
            "CREATE ROLE {0} LOGIN; ALTER ROLE {0} SET search_path = {0}, public, extensions;"
            "GRANT {1} TO {0}; CREATE SCHEMA AUTHORIZATION {0};"
            "CREATE TABLE {0}.settings (name text PRIMARY KEY, value text);"
            "ALTER TABLE {0}.settings OWNER TO {0};"
            "GRANT USAGE ON SCHEMA extensions TO PUBLIC;"
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {1}"
        ).format(named, sql.Identifier(OLD_ROLE))
    )
    superuser.execute(
        sql.SQL("ALTER DATABASE {} SET search_path = public, extensions").format(
            sql.Identifier(shop.name)
        )
    )
    yield shop, role
    shop.close()
    with psycopg.connect(
        shop.cluster.dsn(shop.name, "postgres"), autocommit=True
    ) as last:
        last.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(named))


#: Statements of that application which lean on its path, with a right answer each.
LEANING = (
    "SELECT current_schema()",
    "SELECT count(*) FROM settings",
    "SELECT half(count(*)) FROM orders",
    "SELECT count(*) FROM open_orders",
    "SELECT orders_of(user_email) FROM orders ORDER BY id LIMIT 3",
    "SELECT revenue()",
    "SELECT email FROM users",
    "SELECT app, name FROM django_migrations ORDER BY id",
    "SELECT username FROM auth_user",
    "SELECT enum_range(NULL::payments)::text",
    "SELECT to_regclass('session')::text, to_regclass('models')::text,"
    " to_regtype('payments')::text",
)


def test_a_shop_that_has_lived_sees_no_change(
    lived: tuple[Database, str], manage: Manage
) -> None:
    """Tables, types, functions, publications and paths of its own; for both of its roles."""
    shop, role = lived
    before = {name: seen(shop, name) for name in (OLD_ROLE, role)}
    paths = [before[name]["session"]["path"]["current_schema"] for name in before]
    assert paths == ["public", role]
    expected = {name: answers(shop, name) for name in before}
    held_open = shop.connect(role)

    succeed(manage("migrate", "-v0"))
    for name, was in before.items():
        now = seen(shop, name)
        assert difference(without_sync(was), without_sync(now)) == [], name
        assert of_the_sync(now) == set(TABLES)
        assert answers(shop, name) == expected[name]
    assert [answer(held_open, each) for each in LEANING] == expected[role]

    succeed(manage("rollback_migration", "--yes"))
    for name, was in before.items():
        assert difference(was, seen(shop, name)) == [], name
        assert answers(shop, name) == expected[name]


def test_another_django_with_an_app_called_as_ours_keeps_its_tables(
    lived: tuple[Database, str], manage: Manage
) -> None:
    """Its migrations table, its content types and its users are not ours by that name alone."""
    shop, role = lived
    shop.execute(
        "INSERT INTO public.django_migrations (app, name, applied)"
        " VALUES ('terrain', '0001_initial', now())"
    )
    before = seen(shop)
    succeed(manage("migrate", "-v0"))
    assert difference(without_sync(before), without_sync(seen(shop))) == []


def answers(shop: Database, role: str) -> list[Any]:
    connection = shop.connect(role)
    try:
        return [answer(connection, each) for each in LEANING]
    finally:
        connection.close()


def answer(connection: psycopg.Connection[Any], statement: str) -> Any:
    """The rows, or the error's code."""
    try:
        return connection.execute(statement).fetchall()  # type: ignore[call-overload]
    except psycopg.Error as error:
        return error.sqlstate
