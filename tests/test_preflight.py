"""Preflight: a planted problem for every question, and that only it is found."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from django.db import connection, connections
from psycopg import sql as pg

from terrain.legacy import preflight, prepare
from terrain.legacy.findings import Finding, Severity
from terrain.legacy.mapping import LENSES
from terrain.legacy.preflight.asking import Situation
from terrain.legacy.preflight.rows import forecast_rows
from tests import hostile
from tests.conftest import OLD_ROLE, Database, Result, connecting

pytestmark = pytest.mark.migration

Manage = Callable[..., Any]


def plant(*statements: str) -> None:
    """As the owner, over Django's connection, so that no other session is left behind."""
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def odd(report: preflight.Report) -> list[Finding]:
    """What is neither fine nor merely told."""
    return [
        each
        for each in report.findings
        if each.severity not in (Severity.PASSES, Severity.TELLS)
    ]


def only(report: preflight.Report, name: str) -> Finding:
    """The one finding there is."""
    found = odd(report)
    assert [each.name for each in found] == [name], found
    return found[0]


def wait_until_alone(shop: Database) -> None:
    """A server process ends a moment after its client has gone."""
    deadline = time.monotonic() + 10
    while prepare.other_sessions(connection):
        assert time.monotonic() < deadline
    shop.opened.clear()


@pytest.fixture
def role(administrator: psycopg.Connection[Any]) -> Iterator[str]:
    """A role that may log in and nothing else, gone after the test's database."""
    name = f"somebody_{time.monotonic_ns()}"
    administrator.execute(pg.SQL("CREATE ROLE {} LOGIN").format(pg.Identifier(name)))
    yield name
    administrator.execute(pg.SQL("DROP ROLE {}").format(pg.Identifier(name)))


# --- nothing to find -----------------------------------------------------------------------


def test_a_shop_as_it_is_found_is_fine(shop: Database, manage: Manage) -> None:
    """Nothing is prepared, nobody is connected: nothing needs to be."""
    assert odd(preflight.run(connection)) == []
    result = manage("preflight")
    assert result.code == 0
    assert result.err == ""
    assert (
        "✓ No other session is connected, so nothing needs preparing: migrate sets the"
        " search path itself.\n" in result.out
    )
    assert "✓ All 1,109 rows can be read back as they are, to the byte.\n" in result.out
    assert (
        "What it locks. Each try waits 20 to 100 ms for its lock, then steps aside; after 60 s"
        " it stops, and can be run again.\n" in result.out
    )
    assert re.findall(
        r"^(\S.*?)  +([A-Z ]+?)  +(\S.*?)  +(\d*)  +(\d+)$", result.out, re.M
    ) == [
        ("move tables aside", "ACCESS EXCLUSIVE", "readers and writers", "12", "1"),
        ("put triggers on", "SHARE ROW EXCLUSIVE", "writers", "35", "3"),
        ("copy rows", "ROW EXCLUSIVE", "deletions in one batch", "80", "1"),
        ("build indexes", "SHARE UPDATE EXCLUSIVE", "nobody", "", "1"),
        ("unique constraints", "ACCESS EXCLUSIVE", "readers and writers", "10", "1"),
        ("foreign keys", "SHARE ROW EXCLUSIVE", "writers", "15", "2"),
        ("validate foreign keys", "SHARE UPDATE EXCLUSIVE", "nobody", "", "1"),
        ("limits of the catalogue", "SHARE ROW EXCLUSIVE", "writers", "20", "2"),
        ("open new tables", "ACCESS EXCLUSIVE", "readers and writers", "10", "1"),
        (
            "rollback: take triggers off",
            "ACCESS EXCLUSIVE",
            "readers and writers",
            "30",
            "3",
        ),
        (
            "rollback: move tables back",
            "ACCESS EXCLUSIVE",
            "readers and writers",
            "12",
            "1",
        ),
        (
            "cleanup: drop tables",
            "ACCESS EXCLUSIVE",
            "readers and writers",
            "100",
            "12",
        ),
    ]
    assert "\nNobody would be in the way of these locks now.\n" in result.out
    assert result.out.endswith(
        "Nothing blocks. Next: python manage.py prepare_database\n"
    )


def test_an_empty_database_is_fine(empty: Database, manage: Manage) -> None:
    result = manage("preflight")
    assert result.code == 0
    assert (
        "· There are no legacy tables: migrate will make the new schema, empty.\n"
        in result.out
    )


def test_json_is_one_document_and_nothing_else(shop: Database, manage: Manage) -> None:
    plant("ALTER TABLE orders DROP COLUMN notes")
    result = manage("preflight", "--json")
    assert result.code == 1
    assert result.err == ""
    document = json.loads(result.out)
    assert document["blocked"] is True
    assert document["rows"]["orders"] == 500
    moving, *_, cleaning = document["locks"]
    assert moving == {
        "step": "move tables aside",
        "tables": [f"public.{lens.legacy}" for lens in LENSES],
        "together": 1,
        "mode": "ACCESS EXCLUSIVE",
        "blocks": "readers and writers",
        "seconds": 0.012,
        "in_the_way": [],
    }
    assert cleaning["step"] == "cleanup: drop tables"
    (finding,) = (each for each in document["findings"] if each["severity"] == "blocks")
    assert finding["name"] == "columns"
    assert finding["sentence"] == "The column orders.notes is missing."


def test_quiet_says_nothing(shop: Database, manage: Manage) -> None:
    result = manage("preflight", "-v", "0")
    assert (result.code, result.out, result.err) == (0, "", "")


def test_it_only_reads(shop: Database, manage: Manage) -> None:
    """The server itself sees to it, for the whole connection."""
    before = snapshot(shop)
    options = connections.databases["default"]["OPTIONS"]
    with connecting(
        OPTIONS={**options, "options": "-c default_transaction_read_only=on"}
    ):
        result = manage("preflight")
    assert (result.code, result.err) == (0, "")
    assert snapshot(shop) == before


def snapshot(shop: Database) -> list[tuple[Any, ...]]:
    """Every relation and function of anybody's, with its schema, and the settings."""
    return shop.rows(
        "SELECT s.nspname, c.relname::text FROM pg_class c"
        "  JOIN pg_namespace s ON s.oid = c.relnamespace"
        " WHERE s.nspname !~ '^pg_' AND s.nspname <> 'information_schema'"
        " UNION ALL SELECT 'function', p.oid::regprocedure::text FROM pg_proc p"
        " WHERE p.pronamespace = 'public'::regnamespace"
        " UNION ALL SELECT 'setting', array_to_string(s.setconfig, ' ')"
        "  FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase"
        " WHERE d.datname = current_database() ORDER BY 1, 2"
    )


# --- the shape -----------------------------------------------------------------------------

SHAPES: dict[str, tuple[str, list[str], str, str]] = {
    "missing column": (
        "columns",
        ["ALTER TABLE orders DROP COLUMN notes"],
        "The column orders.notes is missing.",
        "Add it: ALTER TABLE orders ADD COLUMN notes text.",
    ),
    "retyped column": (
        "columns",
        ["ALTER TABLE assets ALTER COLUMN view_count TYPE bigint"],
        "The column assets.view_count is bigint, not integer.",
        "Change it back: ALTER TABLE assets ALTER COLUMN view_count TYPE integer; or"
        " declare the new type in mapping.py.",
    ),
    "column of another length": (
        "columns",
        ["ALTER TABLE artists ALTER COLUMN name TYPE varchar(300)"],
        "The column artists.name is character varying(300), not character varying(255).",
        "Change it back: ALTER TABLE artists ALTER COLUMN name TYPE character"
        " varying(255); or declare the new type in mapping.py.",
    ),
    "extra column": (
        "columns",
        ["ALTER TABLE artists ADD COLUMN twitter text"],
        "The column artists.twitter has no place in the new schema.",
        "Say in terrain/legacy/mapping.py where it goes, or that it is dropped and why.",
    ),
    "integer ids": (
        "columns",
        [
            "ALTER TABLE stripe_transfers DROP COLUMN id",
            "ALTER TABLE stripe_transfers ADD COLUMN id serial PRIMARY KEY",
        ],
        "The column stripe_transfers.id is integer, not uuid.",
        "Keys are UUIDs in the new schema; integer keys cannot be kept.",
    ),
    "missing table": (
        "tables",
        ["DROP TABLE stripe_transfers"],
        "The legacy tables stripe_transfers are missing.",
        "Is this the right database? If the shop has renamed or dropped them, make them"
        " again, empty, from the legacy schema.",
    ),
    "partitioned table": (
        "tables",
        [
            "ALTER TABLE stripe_transfers RENAME TO old_transfers",
            "ALTER TABLE old_transfers RENAME CONSTRAINT stripe_transfers_pkey TO old_pkey",
            "CREATE TABLE stripe_transfers (LIKE old_transfers, PRIMARY KEY (id))"
            " PARTITION BY HASH (id)",
        ],
        "The table public.stripe_transfers is partitioned, which the copies do not know of.",
        "Make it an ordinary table first.",
    ),
    "inherited table": (
        "tables",
        ["CREATE TABLE orders_of_old () INHERITS (orders)"],
        "The table public.orders is part of an inheritance tree, which the copies do not"
        " know of.",
        "Make it an ordinary table first.",
    ),
    "rows hidden from the owner": (
        "tables",
        ["ALTER TABLE orders FORCE ROW LEVEL SECURITY"],
        "The table public.orders is under FORCE ROW LEVEL SECURITY, which the copies do"
        " not know of.",
        "Make it an ordinary table first.",
    ),
    "no primary key": (
        "keys",
        ["ALTER TABLE stripe_transfers DROP CONSTRAINT stripe_transfers_pkey"],
        "The table stripe_transfers has no primary key on its id.",
        "Put it back, once no id occurs twice: ALTER TABLE stripe_transfers ADD PRIMARY"
        " KEY (id).",
    ),
    "a table users": (
        "in-the-way",
        ["CREATE TABLE users (id integer)"],
        "public.users is in the way of what this project makes under that name.",
        "Rename it: ALTER TABLE public.users RENAME TO users_old.",
    ),
    "a view payments": (
        "in-the-way",
        ["CREATE VIEW payments AS SELECT 1 AS one"],
        "public.payments is in the way of what this project makes under that name.",
        "Rename it: ALTER TABLE public.payments RENAME TO payments_old.",
    ),
    "a type models": (
        "in-the-way",
        ["CREATE TYPE models AS ENUM ('a')"],
        "public.models is in the way of what this project makes under that name.",
        "Rename it: ALTER TABLE public.models RENAME TO models_old.",
    ),
    "an index that ours is called": (
        "in-the-way",
        ["CREATE INDEX legacy_quarantine_key ON artists (name)"],
        "",
        "",
    ),
    "an index of that name on a table of others": (
        "in-the-way",
        [
            "CREATE TABLE guests (name text)",
            "CREATE INDEX legacy_quarantine_key ON guests (name)",
        ],
        "public.legacy_quarantine_key is in the way of what this project makes under that"
        " name.",
        "Rename it: ALTER TABLE public.legacy_quarantine_key RENAME TO"
        " legacy_quarantine_key_old.",
    ),
    "another table where ours is to go": (
        "in-the-way",
        [
            "CREATE SCHEMA legacy",
            "CREATE TABLE legacy.orders (LIKE public.orders INCLUDING ALL)",
        ],
        "legacy.orders is in the way of public.orders, which is to move there.",
        "Rename it: ALTER TABLE legacy.orders RENAME TO orders_old.",
    ),
    "a schema rebuilt of somebody else's": (
        "in-the-way",
        ["CREATE SCHEMA rebuilt", "CREATE TABLE rebuilt.engines (id integer)"],
        "The schema rebuilt, which this project makes and drops, has something else in it:"
        " engines.",
        "Move it elsewhere, or rename the schema: ALTER SCHEMA rebuilt RENAME TO"
        " rebuilt_old.",
    ),
    "everybody may create functions": (
        "public-create",
        ["GRANT CREATE ON SCHEMA public TO PUBLIC"],
        "Every role may create objects in the schema public, and so could have the"
        " triggers that keep both sides in step run code of its own as the owner.",
        "Run: REVOKE CREATE ON SCHEMA public FROM PUBLIC; or accept the risk with"
        " PREFLIGHT_ACCEPT=public-create.",
    ),
    "a function that qualifies a name": (
        "qualified-functions",
        [
            "CREATE FUNCTION how_many() RETURNS bigint LANGUAGE sql"
            " AS 'SELECT count(*) FROM public.artists'"
        ],
        "Functions would look for the tables where they no longer are.",
        "Let them name the tables without a schema, and let their search path begin with"
        " legacy; or accept with PREFLIGHT_ACCEPT=qualified-functions if nobody calls them.",
    ),
    "a function that pins its path": (
        "qualified-functions",
        [
            "CREATE FUNCTION how_many() RETURNS bigint LANGUAGE sql SET search_path = public"
            " AS 'SELECT count(*) FROM artists'"
        ],
        "Functions would look for the tables where they no longer are.",
        "Let them name the tables without a schema, and let their search path begin with"
        " legacy; or accept with PREFLIGHT_ACCEPT=qualified-functions if nobody calls them.",
    ),
    "a statement that qualifies a name": (
        "qualified-statements",
        [
            "CREATE VIEW pg_stat_statements AS SELECT d.oid AS dbid, 5::bigint AS calls,"
            " 'SELECT * FROM public.orders'::text AS query FROM pg_database d"
            " WHERE d.datname = current_database()"
        ],
        "Statements have been seen that name the tables with the schema public.",
        "Take the schema out of them; or accept with PREFLIGHT_ACCEPT=qualified-statements"
        " if they are history.",
    ),
    "a publication": (
        "publications",
        ["CREATE PUBLICATION feed FOR TABLE orders, artists"],
        "Tables are published; a subscriber knows them by a name that will change.",
        "Create the tables in a schema legacy on the subscriber, or drop the publication;"
        " accept with PREFLIGHT_ACCEPT=publications.",
    ),
    "an empty value": (
        "empty-values",
        [
            "ALTER TABLE artists ALTER COLUMN name DROP NOT NULL",
            "UPDATE artists SET name = NULL WHERE email LIKE 'artist2@%%'",
        ],
        "artists.name is empty where it must not be.",
        "Fill it, then: ALTER TABLE artists ALTER COLUMN name SET NOT NULL.",
    ),
    "an empty reference": (
        "empty-values",
        [
            "ALTER TABLE assets ALTER COLUMN artist_id DROP NOT NULL",
            "UPDATE assets SET artist_id = NULL WHERE name LIKE '%% 2'",
        ],
        "assets.artist_id is empty where it must not be.",
        "Fill it, then: ALTER TABLE assets ALTER COLUMN artist_id SET NOT NULL.",
    ),
    "a duplicate": (
        "duplicates",
        [
            "ALTER TABLE orders DROP CONSTRAINT orders_order_number_key",
            "UPDATE orders SET order_number = 'AA-0000001'"
            " WHERE order_number = 'AA-0000002'",
        ],
        "orders.order_number has values that occur more than once.",
        "Correct them, and put the UNIQUE constraint back.",
    ),
    "an orphan": (
        "orphans",
        [
            "ALTER TABLE assets DROP CONSTRAINT assets_artist_id_fkey",
            "UPDATE assets SET artist_id = gen_random_uuid() WHERE name LIKE '%% 2'",
        ],
        "assets.artist_id refers to artists that are not there.",
        "Correct or delete these rows, and put the foreign key on assets.artist_id back.",
    ),
    "an artist of another role": (
        "roles",
        [
            "ALTER TABLE artists DROP CONSTRAINT artists_role_check",
            "UPDATE artists SET role = 'customer' WHERE email LIKE 'artist2@%%'",
        ],
        "Artists have a role that is neither artist nor admin.",
        "Make them one or the other, and put the CHECK constraint on artists.role back.",
    ),
}


@pytest.mark.parametrize("what", SHAPES)
def test_what_is_planted_is_found_and_nothing_else(shop: Database, what: str) -> None:
    name, statements, sentence, remedy = SHAPES[what]
    plant(*statements)
    report = preflight.run(connection)
    if not sentence:  # it only looks like a problem
        assert odd(report) == []
        return
    found = only(report, name)
    assert (found.sentence, found.remedy) == (sentence, remedy)
    assert found.severity == Severity.BLOCKS


def test_a_loose_column_without_empty_values_is_fine(shop: Database) -> None:
    plant("ALTER TABLE artists ALTER COLUMN name DROP NOT NULL")
    assert odd(preflight.run(connection)) == []


def test_functions_that_follow_the_tables_are_fine(shop: Database) -> None:
    plant(
        "CREATE FUNCTION how_many() RETURNS bigint LANGUAGE sql"
        " SET search_path = legacy, public AS 'SELECT count(*) FROM artists'",
        "CREATE FUNCTION archived() RETURNS bigint LANGUAGE sql"
        " AS 'SELECT 1::bigint -- once public.orders_archive'",
        "CREATE FUNCTION by_oid() RETURNS bigint LANGUAGE sql"
        " BEGIN ATOMIC SELECT count(*) FROM public.artists; END",
    )
    assert odd(preflight.run(connection)) == []


# --- the server, the role, the disk --------------------------------------------------------


def test_an_older_server_is_refused(shop: Database) -> None:
    found = only(preflight.run(connection, oldest=990000), "server")
    version = shop.value("SHOW server_version")
    assert found.sentence == (
        f"The server is PostgreSQL {version}; 99 is the oldest that will do."
    )
    assert found.remedy == ("Upgrade the server, or restore a backup on a newer one.")


def test_another_encoding_is_refused(
    clone: Callable[[str], Database], administrator: psycopg.Connection[Any]
) -> None:
    administrator.execute(
        "CREATE DATABASE ascii_template TEMPLATE template0 ENCODING 'SQL_ASCII'"
        " LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER libc OWNER terrain"
    )
    try:
        clone("ascii_template")
        found = only(preflight.run(connection), "server")
    finally:
        connections.close_all()
        administrator.execute("DROP DATABASE ascii_template")
    assert found.sentence == (
        "The database is not encoded in UTF-8, which Django needs."
    )


def test_a_role_without_privileges(role: str, shop: Database, manage: Manage) -> None:
    with connecting(USER=role):
        found = only(preflight.run(connection), "privileges")
        result = manage("migrate")
    owner = "(it belongs to terrain)"
    assert found.sentence == (
        f"The role {role} lacks CREATE on the database; CREATE on the schema public; "
        + "; ".join(f"ownership of public.{lens.legacy} {owner}" for lens in LENSES)
        + "."
    )
    assert result.code == 1
    assert "Traceback" not in result.err
    assert "Nothing has been changed;" in result.err


def test_tables_of_several_owners(role: str, shop: Database) -> None:
    with shop.superuser as superuser:
        superuser.execute(f"GRANT {role} TO terrain")
        superuser.execute(f"ALTER TABLE orders OWNER TO {role}")
    wait_until_alone(shop)
    found = only(preflight.run(connection), "privileges")
    assert found.sentence == (
        f"The legacy tables belong to several roles: {role}, terrain."
    )


@pytest.mark.migration
def test_tables_of_another_owner_are_moved_kept_in_step_and_given_back(
    role: str, shop: Database, manage: Manage
) -> None:
    """Of whom we are a member: the triggers' functions are that owner's, and nobody else's."""
    with shop.superuser as superuser:
        superuser.execute(f"GRANT {role} TO terrain")
        for lens in LENSES:
            superuser.execute(f"ALTER TABLE {lens.legacy} OWNER TO {role}")
    wait_until_alone(shop)
    assert manage("migrate", "-v0") == Result(0, "", "")
    assert shop.rows(
        "SELECT DISTINCT pg_get_userbyid(proowner), has_function_privilege('public', oid,"
        " 'EXECUTE') FROM pg_proc WHERE pronamespace = 'rebuilt'::regnamespace"
    ) == [(role, False)]
    with shop.connect(role, "legacy") as old:
        old.execute("UPDATE orders SET user_name = 'Changed'")
    assert shop.rows("SELECT DISTINCT customer_name FROM public.orders") == [
        ("Changed",)
    ]
    again = manage("settle", "--again")
    assert again.code == 0, again.err
    assert manage("verify_migration").code == 0
    assert manage("rollback_migration", "--yes").code == 0
    assert (
        shop.value("SELECT tableowner FROM pg_tables WHERE tablename = 'orders'")
        == role
    )


def test_the_disk_is_too_small(shop: Database) -> None:
    found = only(preflight.run(connection, free=1_000_000), "disk")
    assert found.sentence == (
        "The copies need about 2 MB, and the server's disk has 1 MB left."
    )
    assert odd(preflight.run(connection, free=10_000_000)) == []


# --- who uses the tables -------------------------------------------------------------------


def test_a_session_that_will_not_find_its_tables(
    shop: Database, manage: Manage
) -> None:
    """Of another role's session the owner sees next to nothing, and counts it all the same."""
    old = shop.old()
    found = only(preflight.run(connection), "search-path")
    assert found.sentence == (
        "Sessions are connected that will not find their tables once they have moved."
    )
    assert found.rows == (
        {"session": f"process {old.info.backend_pid}: role {OLD_ROLE}"},
    )
    prepare.prepare(connection)
    found = only(preflight.run(connection), "old-sessions")
    assert found.rows == (
        {"session": f"process {old.info.backend_pid}: role {OLD_ROLE}"},
    )
    old.close()
    wait_until_alone(shop)
    shop.old()
    assert odd(preflight.run(connection)) == []


def test_a_session_of_the_same_role_is_told_by_its_age(shop: Database) -> None:
    mine = shop.connect()
    prepare.prepare(connection)
    found = only(preflight.run(connection), "old-sessions")
    assert str(found.rows[0]["session"]).startswith(
        f"process {mine.info.backend_pid}: role terrain, unnamed, local, since "
    )


def test_a_role_with_a_path_of_its_own(role: str, shop: Database) -> None:
    """Only if it has anything to do with the tables, and is not for us to alter."""
    with shop.superuser as superuser:
        superuser.execute(
            f"ALTER ROLE {role} IN DATABASE {shop.name} SET search_path = shop, public"
        )
        wait = superuser.info.backend_pid
    assert wait
    wait_until_alone(shop)
    assert odd(preflight.run(connection)) == []
    plant(f"GRANT SELECT ON artists TO {role}")
    found = only(preflight.run(connection), "role-paths")
    assert found.rows == (
        {
            "role": role,
            "search_path": "shop, public",
            "needs": f"ALTER ROLE {role} IN DATABASE {shop.name} SET search_path = legacy,"
            " shop, public;",
        },
    )
    assert found.remedy == (
        "Have a superuser run what each needs, or accept with PREFLIGHT_ACCEPT=role-paths"
        " if the shop does not use them."
    )
    plant(f"REVOKE SELECT ON artists FROM {role}")


def test_a_database_that_is_not_ours_to_alter(shop: Database) -> None:
    """Then each role needs a path, and not each is ours either."""
    with shop.superuser as superuser:
        superuser.execute(f"ALTER DATABASE {shop.name} OWNER TO postgres")
        superuser.execute(f"GRANT CREATE ON DATABASE {shop.name} TO terrain")
        superuser.execute("GRANT CREATE ON SCHEMA public TO terrain")
    wait_until_alone(shop)
    found = only(preflight.run(connection), "role-paths")
    assert [row["role"] for row in found.rows] == [OLD_ROLE]
    assert found.rows[0]["needs"] == (
        f"ALTER ROLE {OLD_ROLE} IN DATABASE {shop.name} SET search_path = legacy, public;"
    )


def test_a_subscription(shop: Database) -> None:
    with shop.superuser as superuser:
        superuser.execute(
            "CREATE SUBSCRIPTION feed CONNECTION 'dbname=nowhere' PUBLICATION feed"
            " WITH (connect = false, slot_name = NONE)"
        )
        superuser.execute("SET allow_system_table_mods = on")
        superuser.execute(
            "INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate)"
            " SELECT oid, 'orders'::regclass, 'r' FROM pg_subscription WHERE subname = 'feed'"
        )
    wait_until_alone(shop)
    report = preflight.run(connection)
    with shop.superuser as superuser:
        superuser.execute("DROP SUBSCRIPTION feed")
    found = only(report, "publications")
    assert found.sentence == (
        "Tables are filled by a subscription, which would look for them where they no"
        " longer are."
    )
    assert found.rows == ({"table": "orders"},)


def test_a_transaction_that_migrate_would_wait_for(shop: Database) -> None:
    prepare.prepare(connection)
    other = shop.connect(path="legacy,public", application_name="report")
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM orders")
    found = only(preflight.run(connection, patience=0), "transactions")
    assert found.severity == Severity.WARNS
    (row,) = found.rows
    assert row["process"] == other.info.backend_pid
    assert row["application"] == "report"
    assert row["locks"] == "orders"
    assert odd(preflight.run(connection, patience=3600)) == []


def test_who_is_in_the_way_now_is_named_with_what_they_hold_up(
    shop: Database, manage: Manage
) -> None:
    prepare.prepare(connection)
    other = shop.connect(path="legacy,public", application_name="pg_dump")
    other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    other.execute("LOCK TABLE public.orders IN ACCESS SHARE MODE")
    other.execute("SELECT count(*) FROM public.orders")
    result = manage("preflight")
    assert re.sub(
        r"for \d+ s", "for N s", result.out.partition("\n  In the way now: ")[2]
    ) == (
        f"process {other.info.backend_pid} (role terrain, pg_dump), a backup by pg_dump for N s"
        " (let it end, and begin no other)\n"
        "    of: move tables aside, build indexes, unique constraints, open new tables,"
        " rollback: take triggers off, rollback: move tables back, cleanup: drop tables\n"
        "Nothing blocks. Next: python manage.py backup_database\n"
    )
    locked = {
        lock["step"]: [each["kind"] for each in lock["in_the_way"]]
        for lock in json.loads(manage("preflight", "--json").out)["locks"]
    }
    assert locked["move tables aside"] == ["backup"]
    assert locked["foreign keys"] == []


def test_what_locks_took_the_last_time_is_what_is_foretold(
    migrated: Database, manage: Manage
) -> None:
    migrated.execute("DELETE FROM legacy_run WHERE step LIKE 'lock: Moving %'")
    migrated.execute(
        "INSERT INTO legacy_run (step, state, seconds) VALUES"
        " ('lock: Moving artists aside', 'done', 0.25),"
        " ('lock: Moving artists aside', 'done', 0.5),"
        " ('lock: Moving orders aside', 'done', 0.125)"
    )
    assert manage("rollback_migration", "--yes", "-v", "0").code == 0
    seconds = {
        lock["step"]: lock["seconds"]
        for lock in json.loads(manage("preflight", "--json").out)["locks"]
    }
    assert seconds["move tables aside"] == 0.5
    assert 0 < seconds["rollback: move tables back"] < 0.5


def test_an_isolation_in_which_the_sync_is_noticed(shop: Database) -> None:
    prepare.prepare(connection)
    plant(
        f"ALTER DATABASE {shop.name} SET default_transaction_isolation = 'serializable'",
        f"ALTER ROLE CURRENT_USER IN DATABASE {shop.name}"
        " SET default_transaction_isolation = 'read committed'",
    )
    found = only(preflight.run(connection), "isolation")
    assert found.severity == Severity.WARNS
    assert found.rows == ({"role": "everybody", "isolation": "serializable"},)


def test_a_prepared_transaction(shop: Database) -> None:
    plant(
        "BEGIN",
        "LOCK TABLE orders IN ROW EXCLUSIVE MODE",
        "PREPARE TRANSACTION 'pay-7'",
    )
    try:
        found = only(preflight.run(connection), "prepared-transactions")
    finally:
        plant("ROLLBACK PREPARED 'pay-7'")
    assert [row["gid"] for row in found.rows] == ["pay-7"]


# --- accepting -----------------------------------------------------------------------------


def test_what_blocks_can_be_accepted_by_name(
    shop: Database, manage: Manage, settings: Any
) -> None:
    plant("GRANT CREATE ON SCHEMA public TO PUBLIC")
    settings.PREFLIGHT_ACCEPT = ["public-create", "publik-create", "columns"]
    result = manage("preflight")
    assert result.code == 0
    assert "run code of its own as the owner. (Accepted.)\n" in result.out
    for name in ("publik-create", "columns"):
        assert (
            f"! PREFLIGHT_ACCEPT names {name}, which cannot be accepted.\n"
            in result.out
        )
    assert manage("migrate", "-v", "0").code == 0


def test_migrate_stops_before_the_first_change(shop: Database, manage: Manage) -> None:
    plant("ALTER TABLE orders DROP COLUMN notes", "CREATE TABLE users (id integer)")
    before = snapshot(shop)
    wait_until_alone(shop)
    result = manage("migrate")
    assert result.code == 1
    assert result.err == (
        "The column orders.notes is missing. Add it: ALTER TABLE orders ADD COLUMN notes"
        " text. (Findings that block: 2.) Nothing has been changed; see all of it with:"
        " python manage.py preflight\n"
    )
    assert snapshot(shop) == before


# --- the rows ------------------------------------------------------------------------------


def test_a_wrong_declaration_does_not_pass_the_proof(shop: Database) -> None:
    """Every row is read back, by PostgreSQL, before anything moves."""
    artists = LENSES[0]
    wrong = replace(
        artists,
        columns=tuple(
            (
                replace(column, down="lower(n.display_name)")
                if column.name == "name"
                else column
            )
            for column in artists.mapped
        ),
    )
    found = only(preflight.run(connection, lenses=(wrong, *LENSES[1:])), "round-trip")
    assert found.sentence == "Rows of artists would not be read back as they are."
    assert found.count == 4
    row = found.rows[0]
    assert "Artist" in str(row["is"])
    assert "artist" in str(row["would be"])


def test_the_forecast_is_what_migrate_does(shop: Database, manage: Manage) -> None:
    """Held and flagged rows are named beforehand, one by one, by reason."""
    hostile.fill(shop)
    wait_until_alone(shop)

    report = preflight.run(connection)
    assert report.blockers == ()
    situation = Situation(connection, {lens.legacy: "public" for lens in LENSES})
    foreseen = {
        (lens.legacy, kind, code): set(ids)
        for lens in LENSES
        for (kind, code), ids in forecast_rows(situation, lens).items()
    }
    told = {
        sentence.split("(")[1].split(")")[0]: (each.count, each.rows)
        for each in report.findings
        if (sentence := each.sentence) and each.name in ("held", "flagged")
    }

    result = manage("migrate", "-v", "0")
    assert result.code == 0, result.err
    came: dict[tuple[str, str, str], set[Any]] = {}
    for table, kind, reason, key in shop.rows(
        "SELECT legacy_table, kind, reason, legacy_id FROM legacy_quarantine"
    ):
        came.setdefault((table, kind, reason), set()).add(key)
    assert came == foreseen
    assert {code for _, _, code in came} == set(told)
    every_code = {
        rule.code
        for lens in LENSES
        for rule in (*lens.held, *lens.flagged, *lens.repeats)
    }
    assert every_code | {"subtotal_missing", "prices_disagree"} == set(told)
    for each in report.findings:
        if each.name in ("held", "flagged"):
            code = each.sentence.split("(")[1].split(")")[0]
            ids = came[str(each.rows[0]["table"]), each.name, code]
            assert each.count == len(ids)
            assert len(each.rows) == min(5, len(ids))
            assert {row["id"] for row in each.rows} <= ids
