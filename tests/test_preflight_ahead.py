"""Preflight: what a cut-over will meet, replication, and what other roles see."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from django.db import connection, transaction

from terrain.embedded import OWNER, binaries
from terrain.legacy import catalog, cut_over, preflight
from terrain.legacy.findings import Severity
from terrain.legacy.mapping import LENSES
from terrain.legacy.preflight.asking import Situation
from terrain.legacy.preflight.at_cut_over import planned_names
from terrain.postgresql import schemas
from tests.conftest import OLD_ROLE, Database, Result, connecting
from tests.planting import odd, only, plant, told, wait_until_alone

pytestmark = pytest.mark.migration

Manage = Callable[..., Result]

SIX = ", ".join(sorted(f"public.{lens.legacy}" for lens in LENSES))


def names(report: preflight.Report) -> set[str]:
    """What is found, but for what is fine."""
    return {
        each.name
        for each in report.findings
        if each.severity != Severity.PASSES and each.name not in ("disk", "tables")
    }


# --- sessions ------------------------------------------------------------------------------


def test_sessions_that_have_to_end_before_the_cut_over(
    role: str, shop: Database
) -> None:
    old = shop.old(application_name="web")
    shop.connect(role)  # has no right on any of the tables
    found = told(preflight.run(connection), "cut-over-sessions")
    assert found.severity == Severity.TELLS
    assert found.sentence == (
        "Other sessions with rights on the legacy tables are connected. migrate does not disturb"
        " them; cut_over refuses while they are connected."
    )
    assert found.remedy == (
        "Before cut_over, stop the applications that they belong to. What a session has cached"
        " (plans of functions, row types, prepared statements) cannot be inspected from here, so"
        " every session from before the cut-over has to end."
    )
    assert found.rows == (
        {"session": f"process {old.info.backend_pid}: role {OLD_ROLE}, web"},
    )
    assert names(preflight.run(connection)) == {"cut-over-sessions"}


# --- names in functions, defaults and statements -------------------------------------------


def test_functions_that_will_find_other_tables_or_none(shop: Database) -> None:
    plant(
        "CREATE SEQUENCE order_numbers OWNED BY orders.order_number",
        "CREATE FUNCTION counts() RETURNS bigint LANGUAGE sql"
        " AS 'SELECT count(*) FROM public.artists'",
        """CREATE FUNCTION next_number() RETURNS bigint LANGUAGE sql"""
        """ AS $$SELECT nextval('public.order_numbers')$$""",
        "CREATE FUNCTION pinned() RETURNS bigint LANGUAGE sql SET search_path = public"
        " AS 'SELECT count(*) FROM artists'",
        # These are fine.
        "CREATE FUNCTION prepared() RETURNS bigint LANGUAGE sql"
        " SET search_path = legacy, public AS 'SELECT count(*) FROM artists'",
        "CREATE FUNCTION archived() RETURNS bigint LANGUAGE sql"
        " AS 'SELECT 1::bigint -- once public.orders_archive'",
        "CREATE FUNCTION unpinned() RETURNS bigint LANGUAGE sql"
        " AS 'SELECT count(*) FROM artists'",
    )
    report = preflight.run(connection)
    found = only(report, "cut-over-functions")
    assert found.severity == Severity.WARNS
    assert found.sentence == (
        "Functions name legacy tables as public.<table>, or pin a search_path without legacy."
        " After the cut-over they find the new tables orders and assets, and none of the other"
        " names."
    )
    assert found.remedy == (
        "Drop those that only the old application calls once it has stopped. Change the others at"
        " the cut-over: let them use the new tables, or name legacy.<table>."
    )
    assert found.rows == (
        {"function": "public.counts()", "why": "names public.<table>"},
        {"function": "public.next_number()", "why": "names public.<table>"},
        {"function": "public.pinned()", "why": "pins search_path to public"},
    )
    sequences = told(report, "cut-over-sequences")
    assert sequences.severity == Severity.TELLS
    assert sequences.sentence == (
        "Sequences belong to columns of legacy tables, and move to the schema legacy with them at"
        " the cut-over. Statements that name public.<sequence> do not find them there."
    )
    assert sequences.remedy == (
        "Keep a sequence in public with: ALTER SEQUENCE <sequence> OWNED BY NONE."
    )
    assert sequences.rows == ({"sequence": "order_numbers"},)


def test_defaults_that_name_a_sequence_in_a_text(shop: Database) -> None:
    plant(
        "CREATE SEQUENCE order_numbers OWNED BY orders.order_number",
        "CREATE SEQUENCE note_numbers",
        "ALTER TABLE orders ALTER COLUMN order_number"
        " SET DEFAULT nextval('public.order_numbers'::text::regclass)",
        # These are fine: the one follows by its OID, the other does not move.
        "ALTER TABLE orders ALTER COLUMN user_name"
        " SET DEFAULT nextval('public.order_numbers'::regclass)",
        "ALTER TABLE orders ALTER COLUMN notes"
        " SET DEFAULT nextval('public.note_numbers'::text::regclass)",
    )
    found = only(preflight.run(connection), "cut-over-defaults")
    assert found.severity == Severity.WARNS
    assert found.sentence == (
        "Column defaults name legacy tables or their sequences in a text, as public.<name>. After"
        " the cut-over they do not find them."
    )
    assert found.remedy == (
        "Before the cut-over, write the name as a regclass constant, which follows a move:"
        " nextval('public.<sequence>'::regclass)."
    )
    (row,) = found.rows
    assert row["column"] == "public.orders.order_number"
    assert "'public.order_numbers'::text" in row["default"]


def test_what_is_said_of_names_comes_true(migrated: Database, manage: Manage) -> None:
    plant(
        "CREATE SEQUENCE order_numbers OWNED BY orders.order_number",
        "CREATE TABLE notes (early bigint DEFAULT nextval('public.order_numbers'::regclass),"
        " late bigint DEFAULT nextval('public.order_numbers'::text::regclass))",
        "CREATE FUNCTION counts() RETURNS bigint LANGUAGE sql"
        " AS 'SELECT count(*) FROM public.artists'",
        "CREATE VIEW sellers AS SELECT id, name FROM public.artists",
    )
    assert {
        "cut-over-functions",
        "cut-over-dependents",
        "cut-over-defaults",
        "cut-over-sequences",
    } <= names(preflight.run(connection))
    sellers = migrated.value("SELECT count(*) FROM public.sellers")
    assert manage("cut_over", "--yes").code == 0
    assert migrated.value("SELECT count(*) FROM public.sellers") == sellers > 0
    assert "FROM artists" in migrated.value(
        "SELECT pg_get_viewdef('public.sellers'::regclass)"
    )
    assert migrated.value("SELECT to_regclass('legacy.artists') IS NOT NULL")
    migrated.execute("INSERT INTO public.notes (late) VALUES (1)")
    with pytest.raises(psycopg.errors.UndefinedTable):
        migrated.execute("INSERT INTO public.notes (early) VALUES (1)")
    with pytest.raises(psycopg.errors.UndefinedTable):
        migrated.execute("SELECT public.counts()")


def test_what_depends_on_the_legacy_tables(shop: Database) -> None:
    plant(
        "CREATE VIEW sales AS SELECT id FROM orders",
        "CREATE MATERIALIZED VIEW sellers AS SELECT id FROM artists",
        "CREATE TABLE fan_mail (artist_id uuid CONSTRAINT fan_of REFERENCES artists)",
        "CREATE FUNCTION how_many() RETURNS bigint LANGUAGE sql"
        " BEGIN ATOMIC SELECT count(*) FROM assets; END",
    )
    report = preflight.run(connection)
    assert odd(report) == []
    found = told(report, "cut-over-dependents")
    assert found.severity == Severity.TELLS
    assert found.sentence == (
        "Objects depend on legacy tables. They go on using them after the cut-over, as"
        " legacy.<table>; cleanup_legacy refuses while they do."
    )
    assert found.remedy == (
        "Between cut_over and cleanup_legacy, drop them or rebuild them on the new tables."
    )
    assert found.rows == (
        {
            "object": "foreign key fan_of of public.fan_mail",
            "depends on": "public.artists",
        },
        {"object": "function public.how_many()", "depends on": "public.assets"},
        {
            "object": "materialized view public.sellers",
            "depends on": "public.artists",
        },
        {"object": "view public.sales", "depends on": "public.orders"},
    )


def test_nothing_is_said_of_what_migrate_has_made(migrated: Database) -> None:
    """Its functions name the legacy tables with their schema, and pin a path."""
    assert names(preflight.run(connection)) == set()
    assert migrated.value(
        "SELECT count(*) FROM pg_proc WHERE pronamespace = 'rebuilt'::regnamespace"
        " AND prosrc LIKE '%%public.artists%%'"
    )


def test_after_the_cut_over_nothing_is_said_of_it(
    migrated: Database, manage: Manage
) -> None:
    plant(
        "CREATE VIEW sales AS SELECT id FROM orders",
        "CREATE TABLE users (id integer)",
    )
    assert names(preflight.run(connection)) == {
        "cut-over-dependents",
        "cut-over-names",
    }
    assert manage("cut_over", "--yes").code == 0
    report = preflight.run(connection)
    assert names(report) == set()
    assert report.outlook is not None
    assert not [each for each in report.outlook.locks if "cut over" in each.step]


#: As the view of the extension, which has to be loaded when the server starts.
SEEN = """
CREATE TABLE seen (role text, query text, calls bigint);
GRANT SELECT ON seen TO PUBLIC;
CREATE VIEW pg_stat_statements AS
SELECT d.oid AS dbid, r.oid AS userid, s.query, s.calls
  FROM seen s JOIN pg_roles r ON r.rolname = s.role
  JOIN pg_database d ON d.datname = current_database()
"""


def see(role: str, *queries: str) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO public.seen VALUES (%s, %s, 5)",
            [(role, query) for query in queries],
        )


def test_statements_that_name_the_schema(shop: Database) -> None:
    plant(SEEN)
    see(
        OLD_ROLE,
        "SELECT * FROM public.orders WHERE id = $1",
        # These are fine.
        "SELECT * FROM orders",
        "SELECT * FROM public.orders_archive",
        "LOCK TABLE public.artists, public.assets IN ACCESS SHARE MODE",
        "COPY public.orders (id, user_id) TO stdout;",
        "CREATE TABLE public.orders (id uuid)",
    )
    found = only(preflight.run(connection), "cut-over-statements")
    assert found.severity == Severity.WARNS
    assert found.sentence == (
        "Statements that name legacy tables as public.<table> have been run (pg_stat_statements)."
        " After the cut-over they find the new tables orders and assets, and none of the other"
        " names, whatever the search path."
    )
    assert found.remedy == (
        "Stop the application that runs them before cut_over. If it is to run on beyond the"
        " cut-over, take the schema out of its statements."
    )
    assert found.rows == (
        {"statement": "SELECT * FROM public.orders WHERE id = $1", "calls": 5},
    )


def test_a_second_preflight_does_not_find_the_statements_of_the_first(
    shop: Database, manage: Manage
) -> None:
    queries: list[str] = []

    def listen(execute: Any, query: Any, *args: Any) -> Any:
        queries.append(str(query))
        return execute(query, *args)

    with connection.execute_wrapper(listen):
        preflight.run(connection)
        assert manage("migrate", "-v0") == Result(0, "", "")
    plant(SEEN)
    see(OWNER, *queries)
    assert "cut-over-statements" not in names(preflight.run(connection))
    plant(f"UPDATE seen SET role = '{OLD_ROLE}'")
    assert "cut-over-statements" in names(preflight.run(connection))


# --- names that are taken ------------------------------------------------------------------

TAKEN = {
    "table users": ("users", ["CREATE TABLE users (id integer)"]),
    "view payments": ("payments", ["CREATE VIEW payments AS SELECT 1 AS one"]),
    "type models": ("models", ["CREATE TYPE models AS ENUM ('a')"]),
    "type _tables": ("tables", ["CREATE DOMAIN _tables AS text"]),
    "sequence asset_usage_id_seq": (
        "asset_usage",
        ["CREATE SEQUENCE asset_usage_id_seq"],
    ),
    "index legacy_quarantine_key": (
        "legacy_quarantine",
        [
            "CREATE TABLE guests (name text)",
            "CREATE INDEX legacy_quarantine_key ON guests (name)",
        ],
    ),
    "table django_migrations": (
        "django_migrations",
        ["CREATE TABLE django_migrations (app text, name text)"],
    ),
}


@pytest.mark.parametrize("what", TAKEN)
def test_a_name_that_is_taken(shop: Database, what: str) -> None:
    table, statements = TAKEN[what]
    plant(*statements)
    found = only(preflight.run(connection), "cut-over-names")
    assert found.severity == Severity.WARNS
    assert found.sentence == (
        "The schema public has relations or types with names of new tables, or of their indexes or"
        " sequences. These tables stay in the schema terrain for good."
    )
    assert found.remedy == (
        "Nothing has to be done: the new application finds its tables in both schemas. To have a"
        " table in public, rename what has its name before cut_over."
    )
    assert found.rows == ({"table": table, "public has": what},)


def test_a_name_that_moves_out_is_not_taken(shop: Database) -> None:
    plant("CREATE INDEX legacy_quarantine_key ON artists (name)")
    assert odd(preflight.run(connection)) == []


def test_the_names_that_tables_will_have_are_known_beforehand(
    shop: Database, manage: Manage
) -> None:
    plant("CREATE TABLE users (id integer)", "CREATE TYPE payments AS ENUM ('a')")
    situation = Situation(connection, catalog.legacy_tables(connection))
    planned = planned_names(situation)
    before = only(preflight.run(connection), "cut-over-names")
    assert manage("migrate", "-v0") == Result(0, "", "")
    after = only(preflight.run(connection), "cut-over-names")
    assert after == before
    assert set(cut_over.taken_names(connection)) == {"users", "payments"}
    made: dict[str, set[str]] = {}
    for table, name in shop.rows(
        "SELECT c.relname, n.name FROM pg_class c CROSS JOIN LATERAL ("
        "    SELECT c.relname AS name UNION"
        "    SELECT t.typname FROM pg_type t JOIN pg_type r ON r.typarray = t.oid"
        "     WHERE r.oid = c.reltype UNION"
        "    SELECT i.indexrelid::regclass::name FROM pg_index i WHERE i.indrelid = c.oid UNION"
        "    SELECT pg_get_serial_sequence(c.oid::regclass::text, a.attname)::regclass::name"
        "      FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attidentity <> '') n"
        " WHERE c.relnamespace = 'terrain'::regnamespace AND c.relkind = 'r'"
    ):
        made.setdefault(table, set()).add(name.removeprefix("terrain."))
    assert set(planned) == set(made)
    for table in (*catalog.NEW_TABLES, *catalog.LEDGER_TABLES, "django_migrations"):
        assert planned[table] == made[table], table
    for (
        table,
        known,
    ) in planned.items():  # Django's own: of the indexes the primary key's
        assert known <= made[table], table


# --- CREATE on public ----------------------------------------------------------------------


def test_the_right_to_move_tables_into_public(shop: Database, manage: Manage) -> None:
    shop.superuser.execute("ALTER SCHEMA public OWNER TO postgres")
    wait_until_alone(shop)
    report = preflight.run(connection)
    assert odd(report) == []
    found = told(report, "cut-over-privileges")
    assert found.severity == Severity.TELLS
    assert found.sentence == (
        f"The role {OWNER} lacks CREATE on the schema public. migrate does not need it; cut_over"
        " does."
    )
    assert found.remedy == (
        f"Run as the owner of that schema: GRANT CREATE ON SCHEMA public TO {OWNER};"
    )
    assert manage("migrate", "-v0") == Result(0, "", "")
    assert manage("cut_over", "--yes") == Result(
        1,
        "",
        f"The role {OWNER} lacks CREATE on the schema public. {found.remedy}\n"
        "Nothing was changed.\n",
    )
    shop.superuser.execute(found.remedy.partition(": ")[2])
    wait_until_alone(shop)
    assert "cut-over-privileges" not in names(preflight.run(connection))
    assert manage("cut_over", "--yes").code == 0


# --- replication ---------------------------------------------------------------------------


def published(shop: Database, publication: str) -> list[tuple[Any, ...]]:
    return shop.rows(
        "SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = %s"
        " ORDER BY 1, 2",
        publication,
    )


def test_a_publication_of_all_tables_blocks(shop: Database) -> None:
    plant("CREATE TABLE guests (id integer)", 'CREATE TABLE "Odd" (id integer)')
    shop.superuser.execute(
        "CREATE PUBLICATION feed FOR ALL TABLES WITH (publish = 'insert, update')"
    )
    wait_until_alone(shop)
    found = only(preflight.run(connection), "publications")
    assert found.severity == Severity.BLOCKS
    assert found.sentence == (
        "Publications FOR ALL TABLES publish each new table as soon as it has a row. A subscriber"
        " that lacks the table stops replicating."
    )
    assert found.remedy == (
        "Replace them before migrate. On the publisher, run the statement of each row. On each"
        " subscriber: ALTER SUBSCRIPTION <subscription> SET PUBLICATION <that publication>. Then"
        " drop the old publication. Or accept with PREFLIGHT_ACCEPT=publications if nothing"
        " subscribes, or if you create the new tables on each subscriber."
    )
    tables = 'public."Odd", ' + SIX.replace(
        "public.orders", "public.guests, public.orders"
    )
    statement = (
        f"CREATE PUBLICATION feed_tables FOR TABLE {tables}"
        " WITH (publish = 'insert, update');"
    )
    assert found.rows == ({"publication": "feed", "instead": statement},)
    accepted = only(preflight.run(connection, accept=["publications"]), "publications")
    assert accepted.severity == Severity.WARNS

    shop.execute(statement)
    assert published(shop, "feed_tables") == published(shop, "feed")
    shop.superuser.execute("DROP PUBLICATION feed")
    wait_until_alone(shop)
    assert odd(preflight.run(connection)) == []


def test_a_publication_of_all_tables_is_replaced_without_ours(
    migrated: Database,
) -> None:
    migrated.superuser.execute("CREATE PUBLICATION feed FOR ALL TABLES")
    wait_until_alone(migrated)
    assert ("terrain", "orders") in published(migrated, "feed")
    found = only(preflight.run(connection), "publications")
    assert found.rows[0]["instead"] == (
        f"CREATE PUBLICATION feed_tables FOR TABLE {SIX}"
        " WITH (publish = 'insert, update, delete, truncate');"
    )


def test_a_publication_of_the_schema_public(shop: Database) -> None:
    shop.superuser.execute("CREATE PUBLICATION feed FOR TABLES IN SCHEMA public")
    wait_until_alone(shop)
    report = preflight.run(connection)
    assert odd(report) == []
    found = told(report, "publications")
    assert found.severity == Severity.TELLS
    assert found.sentence == (
        "Publications FOR TABLES IN SCHEMA public publish the legacy tables until the cut-over."
        " After it they publish the new tables and no longer the legacy ones, and a subscriber"
        " without the new tables stops replicating."
    )
    assert found.remedy == (
        "Replace them before the cut-over if subscribers need the legacy tables. On the publisher,"
        " run the statement of each row. On each subscriber: ALTER SUBSCRIPTION <subscription> SET"
        " PUBLICATION <that publication>. Then drop the old publication."
    )
    assert found.rows == (
        {
            "publication": "feed",
            "instead": f"CREATE PUBLICATION feed_tables FOR TABLE {SIX}"
            " WITH (publish = 'insert, update, delete, truncate');",
        },
    )


def test_a_publication_of_legacy_tables(migrated: Database, manage: Manage) -> None:
    plant(
        "CREATE TABLE guests (id integer)",
        "CREATE PUBLICATION feed FOR TABLE orders, artists",
        "CREATE PUBLICATION other FOR TABLE guests",
    )
    report = preflight.run(connection)
    assert odd(report) == []
    found = told(report, "publications")
    assert found.severity == Severity.TELLS
    assert found.sentence == (
        "Publications FOR TABLE name legacy tables. After the cut-over they publish them as"
        " legacy.<table>; they do not publish the new tables."
    )
    assert found.remedy == (
        "At the cut-over, on each subscriber: CREATE SCHEMA legacy; ALTER TABLE public.<table> SET"
        " SCHEMA legacy. Otherwise it does not find legacy.<table> and stops replicating. Before"
        " cleanup_legacy, take the legacy tables out of the publication."
    )
    assert found.rows == (
        {"publication": "feed", "table": "artists"},
        {"publication": "feed", "table": "orders"},
    )
    assert manage("cut_over", "--yes").code == 0
    assert published(migrated, "feed") == [("legacy", "artists"), ("legacy", "orders")]


def test_a_subscription(shop: Database) -> None:
    superuser = shop.superuser
    superuser.execute(
        "CREATE SUBSCRIPTION feed CONNECTION 'dbname=nowhere' PUBLICATION feed"
        " WITH (connect = false, slot_name = NONE)"
    )
    superuser.execute("SET allow_system_table_mods = on")
    superuser.execute(
        "INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate)"
        " SELECT oid, 'orders'::regclass, 'r' FROM pg_subscription WHERE subname = 'feed'"
    )
    report = preflight.run(connection)
    superuser.execute("DROP SUBSCRIPTION feed")
    found = only(report, "subscriptions")
    assert found.severity == Severity.WARNS
    assert found.sentence == (
        "A subscription fills legacy tables. It goes on doing so after migrate. After the cut-over"
        " it does not find public.<table> and stops."
    )
    assert found.remedy == (
        "Before cut_over, drop the subscription, or migrate the publisher instead."
    )
    assert found.rows == ({"table": "orders"},)


# --- other roles ---------------------------------------------------------------------------


def pg_dump(shop: Database, role: str, *options: str) -> str:
    """What it says when it fails; nothing if it does not."""
    done = subprocess.run(
        [
            str(binaries(shop.cluster.version) / "pg_dump"),
            f"--file={os.devnull}",
            *options,
            shop.cluster.dsn(shop.name, role),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr


def test_a_role_that_dumps_and_does_not_own(
    role: str, shop: Database, manage: Manage
) -> None:
    """Of the schemas that migrate and a rollback make, with the grants that preflight offers."""
    tables = ", ".join(lens.legacy for lens in LENSES)
    plant(f"GRANT SELECT ON {tables} TO {role}")
    assert pg_dump(shop, role) == ""
    found = only(preflight.run(connection), "dumps")
    assert found.severity == Severity.WARNS
    assert found.sentence == (
        "Roles may read all legacy tables, write none, and do not own them. If one of them runs"
        " pg_dump of the whole database, it fails on the schemas terrain, rebuilt and legacy_parked"
        " once these exist."
    )
    assert found.remedy == (
        "After migrate, run the grants as the owner. The role can then read the password hashes in"
        " terrain, which it can read already in artists. Or add to its pg_dump:"
        " --exclude-schema=terrain --exclude-schema=rebuilt --exclude-schema=legacy_parked. After a"
        " rollback run preflight again: legacy_parked needs grants of its own."
    )
    assert found.rows == (
        {
            "role": role,
            "grant": f"GRANT USAGE ON SCHEMA terrain, rebuilt TO {role};"
            f" GRANT SELECT ON ALL TABLES IN SCHEMA terrain, rebuilt TO {role};"
            f" GRANT SELECT ON ALL SEQUENCES IN SCHEMA terrain, rebuilt TO {role};",
        },
    )
    for command in ("migrate", "rollback_migration"):
        arguments = ["--yes"] if command == "rollback_migration" else []
        assert manage(command, "-v0", *arguments) == Result(0, "", "")
        assert "permission denied for schema" in pg_dump(shop, role)
        excluded = [
            f"--exclude-schema={name}"
            for name in ("terrain", "rebuilt", "legacy_parked")
        ]
        assert pg_dump(shop, role, *excluded) == ""
        (row,) = only(preflight.run(connection), "dumps").rows
        for statement in row["grant"].split("; "):
            shop.execute(statement)
        assert pg_dump(shop, role) == ""
        assert odd(preflight.run(connection)) == []


def test_roles_that_may_write_or_read_all_are_not_taken_for_dumping(
    role: str, shop: Database
) -> None:
    tables = ", ".join(lens.legacy for lens in LENSES)
    plant(f"GRANT SELECT ON {tables} TO {role}", f"GRANT INSERT ON orders TO {role}")
    assert odd(preflight.run(connection)) == []
    plant(f"REVOKE INSERT ON orders FROM {role}")
    shop.superuser.execute(f"GRANT pg_read_all_data TO {role}")
    wait_until_alone(shop)
    assert odd(preflight.run(connection)) == []
    shop.superuser.execute(f"REVOKE pg_read_all_data FROM {role}")
    plant(f"REVOKE SELECT ON orders FROM {role}")
    wait_until_alone(shop)
    assert odd(preflight.run(connection)) == []


OWNERS = (
    " Such a session may use the schema terrain: catalog queries that name no schema list the new"
    " tables beside its own. After the cut-over its statements on orders and assets run on the new"
    " tables."
)


def test_an_application_that_connects_as_the_owner(shop: Database) -> None:
    """By its session, or because no other role could."""
    mine = shop.connect(application_name="shop")
    found = told(preflight.run(connection), "owner-application")
    assert found.severity == Severity.TELLS
    assert found.sentence == (
        "Sessions of the owner of the legacy tables are connected that are not this project's."
        + OWNERS
    )
    assert found.remedy == (
        "Stop the old application before cut_over. If its tools read the catalog (such as"
        " Sequelize sync or a schema dump), let them name the schema public."
    )
    (row,) = found.rows
    assert str(row["session"]).startswith(
        f"process {mine.info.backend_pid}: role {OWNER}, shop, local, since "
    )
    mine.close()
    wait_until_alone(shop)
    assert "owner-application" not in names(preflight.run(connection))
    plant(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {OLD_ROLE}")
    found = told(preflight.run(connection), "owner-application")
    assert found.sentence == (
        "No login role but their owner's has rights on the legacy tables, so the old application"
        " connects as the owner." + OWNERS
    )
    assert found.rows == ()


# --- schemas and roles of our names --------------------------------------------------------


@contextmanager
def made_by(role: str, shop: Database) -> Iterator[psycopg.Connection[Any]]:
    shop.superuser.execute(f"GRANT CREATE ON DATABASE {shop.name} TO {role}")
    yield shop.connect(role)
    wait_until_alone(shop)


@pytest.mark.parametrize("user", [OWNER, "postgres"])
def test_a_schema_that_another_role_has_marked_as_ours(
    role: str, shop: Database, user: str
) -> None:
    with made_by(role, shop) as theirs:
        theirs.execute("CREATE SCHEMA terrain")
        theirs.execute(f"COMMENT ON SCHEMA terrain IS '{schemas.mark(('terrain',))}'")
    with connecting(USER=user):
        found = only(preflight.run(connection), "schemas")
    assert found.severity == Severity.BLOCKS
    assert found.sentence == (
        "The schema terrain, which this project makes and drops, belongs to the role"
        f" {role}."
    )
    assert found.remedy == (
        "Rename it: ALTER SCHEMA terrain RENAME TO terrain_old; or move what is in it elsewhere"
        " and drop it."
    )


def test_nothing_of_a_schema_of_another_role_is_run(
    role: str, shop: Database, manage: Manage
) -> None:
    """A policy on a table runs as whoever reads the table."""
    with made_by(role, shop) as theirs:
        theirs.execute(
            "CREATE SCHEMA terrain; GRANT USAGE ON SCHEMA terrain TO PUBLIC;"
            "CREATE TABLE terrain.run_as (who text); GRANT INSERT ON terrain.run_as TO PUBLIC;"
            "CREATE FUNCTION terrain.spy() RETURNS boolean LANGUAGE plpgsql AS"
            " $$BEGIN INSERT INTO terrain.run_as VALUES (current_user); RETURN true; END$$;"
            "CREATE TABLE terrain.django_migrations"
            " (id bigint, app text, name text, applied timestamptz);"
            "INSERT INTO terrain.django_migrations VALUES (1, 'terrain', '0001_initial', now());"
            "ALTER TABLE terrain.django_migrations ENABLE ROW LEVEL SECURITY;"
            "CREATE POLICY spy ON terrain.django_migrations USING (terrain.spy());"
            "GRANT ALL ON terrain.django_migrations TO PUBLIC;"
            f"COMMENT ON SCHEMA terrain IS '{schemas.mark(('terrain',))}'"
        )
    for command in ("preflight", "migrate"):
        result = manage(command)
        assert result.code == 1
        assert f"belongs to the role {role}." in result.out + result.err
    assert shop.superuser.execute("SELECT who FROM terrain.run_as").fetchall() == []
    # So it would be.
    shop.rows("SELECT * FROM terrain.django_migrations")
    assert shop.superuser.execute("SELECT who FROM terrain.run_as").fetchall() == [
        (OWNER,)
    ]


def test_a_schema_of_a_role_that_we_are_a_member_of(role: str, shop: Database) -> None:
    with made_by(role, shop) as theirs:
        theirs.execute("CREATE SCHEMA terrain")
        theirs.execute(f"COMMENT ON SCHEMA terrain IS '{schemas.mark(('terrain',))}'")
        shop.superuser.execute(f"GRANT {role} TO {OWNER}")
    assert odd(preflight.run(connection)) == []


def test_an_empty_schema_rebuilt_of_another_role(role: str, shop: Database) -> None:
    with made_by(role, shop) as theirs:
        theirs.execute("CREATE SCHEMA rebuilt")
    found = only(preflight.run(connection), "schemas")
    assert found.sentence == (
        f"The schema rebuilt, which this project makes and drops, belongs to the role {role}."
    )


def test_a_role_with_the_name_of_a_schema(shop: Database) -> None:
    """Made in a transaction: roles are the whole server's."""
    with connecting(USER="postgres"), transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("CREATE ROLE rebuilt LOGIN")
        found = only(preflight.run(connection), "schemas")
        transaction.set_rollback(True)
    assert found.sentence == (
        'The role rebuilt has the name of a schema that this project makes. The "$user" in its'
        " search path would resolve to that schema."
    )
    assert found.remedy == "Rename it: ALTER ROLE rebuilt RENAME TO rebuilt_role."
