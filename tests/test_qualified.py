"""Where the tables are is looked up, and what is installed stays where its tables are."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.db.migrations.state import ProjectState

from terrain import online
from terrain.operations import InstallSQL
from terrain.qualified import all_qualified, own_path, qualified
from tests.conftest import Database

#: As far as the limits and the counting go; the other columns are nobody's business here.
TABLES = """
CREATE SCHEMA "odd one";
CREATE SCHEMA elsewhere;
SET search_path = elsewhere;
CREATE TABLE anonymous_sessions (id uuid PRIMARY KEY, table_limit integer NOT NULL);
CREATE TABLE tables (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), session_id uuid, status text DEFAULT 'active',
    max_assets integer DEFAULT 1, layout jsonb);
CREATE TABLE table_assets (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), table_id uuid, asset_id uuid,
    quantity integer DEFAULT 1, counted integer);
CREATE TABLE asset_usage_log (
    id bigint GENERATED ALWAYS AS IDENTITY, asset_id uuid, day date, source text,
    adds bigint, removals bigint, uses bigint, placed_before jsonb, placed_after jsonb);
RESET search_path;
CREATE TABLE public.tables (id integer);
CREATE TABLE public.lonely (id integer);
"""

KEY = "00000000-0000-0000-0000-000000000001"


@contextmanager
def looking_in(path: str) -> Iterator[None]:
    """Django's connection has this search path meanwhile."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('search_path', %s, false)", [path])
    try:
        yield
    finally:
        connection.close()


@pytest.fixture
def elsewhere(empty: Database) -> Database:
    empty.execute(TABLES)
    return empty


def test_the_name_is_of_the_table_that_is_seen(elsewhere: Database) -> None:
    with looking_in("elsewhere, public"):
        assert qualified(connection, "tables") == "elsewhere.tables"
        assert all_qualified(connection, ["lonely", "tables", "lonely"]) == (
            "public.lonely",
            "elsewhere.tables",
        )
        # It would be made there.
        assert qualified(connection, "not_there") == "elsewhere.not_there"
    with looking_in("public"):
        assert qualified(connection, "tables") == "public.tables"
    with looking_in("gone"):
        assert qualified(connection, "tables") == "tables"


def test_the_path_is_quoted_and_in_order(elsewhere: Database) -> None:
    with looking_in('pg_catalog, "odd one", gone, elsewhere, pg_temp'):
        assert own_path(connection) == '"odd one", elsewhere'
    with looking_in("gone"), pytest.raises(LookupError, match="names no schema"):
        own_path(connection)


def operations() -> list[InstallSQL]:
    return [
        operation
        for name in ("0003_limits", "0005_count_usage")
        for operation in importlib.import_module(
            f"catalogue.migrations.{name}"
        ).Migration.operations
    ]


def run(forwards: bool) -> None:
    state = ProjectState()
    for operation in operations():
        with connection.schema_editor(atomic=False) as editor:
            move = (
                operation.database_forwards
                if forwards
                else operation.database_backwards
            )
            move("catalogue", editor, state, state)


INSTALLED = (
    "SELECT s.nspname, p.proconfig, bool_or(p.prosrc ~ 'public|elsewhere') FROM pg_proc p"
    "  JOIN pg_namespace s ON s.oid = p.pronamespace"
    " WHERE starts_with(p.proname, 'terrain_') GROUP BY 1, 2"
)
TRIGGERS = "SELECT count(*) FROM pg_trigger WHERE tgrelid = %s::regclass"


@pytest.mark.parametrize("path", ["elsewhere", "elsewhere, public"])
def test_functions_are_made_where_the_tables_are(
    elsewhere: Database, path: str
) -> None:
    with looking_in(path):
        run(forwards=True)
    pinned = f"search_path={path}, pg_temp"
    assert elsewhere.rows(INSTALLED) == [("elsewhere", [pinned], False)]
    assert elsewhere.value(TRIGGERS, "elsewhere.tables") == 5
    assert elsewhere.value(TRIGGERS, "public.tables") == 0
    with looking_in(path):
        run(forwards=False)
    assert elsewhere.rows(INSTALLED) == []
    assert elsewhere.value(TRIGGERS, "elsewhere.table_assets") == 0


def test_functions_move_with_the_tables(elsewhere: Database) -> None:
    """Whatever the path of who writes, and also in sessions that have used them before."""
    with looking_in("elsewhere"):
        run(forwards=True)
    session = elsewhere.connect(path="pg_catalog")
    use(session, "elsewhere")
    elsewhere.execute(
        "BEGIN; DROP TABLE public.tables;"
        "ALTER TABLE elsewhere.anonymous_sessions SET SCHEMA public;"
        "ALTER TABLE elsewhere.tables SET SCHEMA public;"
        "ALTER TABLE elsewhere.table_assets SET SCHEMA public;"
        "ALTER TABLE elsewhere.asset_usage_log SET SCHEMA public;"
        "DO $$ DECLARE f regprocedure; BEGIN"
        "  FOR f IN SELECT oid FROM pg_proc WHERE pronamespace = 'elsewhere'::regnamespace LOOP"
        "    EXECUTE format('ALTER FUNCTION %s SET search_path = public, pg_temp', f);"
        "    EXECUTE format('ALTER FUNCTION %s SET SCHEMA public', f);"
        "  END LOOP; END $$;"
        "DROP SCHEMA elsewhere; COMMIT"
    )
    assert elsewhere.rows(INSTALLED) == [
        ("public", ["search_path=public, pg_temp"], False)
    ]
    use(session, "public")


def use(session: psycopg.Connection[Any], schema: str) -> None:
    """The limits hold and changes are counted, in this schema."""

    def execute(statement: str) -> psycopg.Cursor[Any]:
        return session.execute(statement.format(s=schema))  # type: ignore[arg-type]

    execute("DELETE FROM {s}.tables")
    execute("DELETE FROM {s}.table_assets")
    execute("DELETE FROM {s}.asset_usage_log")
    execute(
        "INSERT INTO {s}.anonymous_sessions VALUES ('%s', 1) ON CONFLICT DO NOTHING"
        % KEY
    )
    table = (
        "INSERT INTO {s}.tables (session_id, layout) VALUES"
        " ('%s', jsonb_build_object('models', '[{{\"asset_id\": \"x\"}}]'::jsonb))"
        " RETURNING id"
    ) % KEY
    (key,) = execute(table).fetchone() or ()
    with pytest.raises(psycopg.Error) as refused:
        execute(table)
    assert refused.value.sqlstate == "TB001"
    asset = "INSERT INTO {s}.table_assets (table_id, asset_id) VALUES ('%s', '%s')"
    execute(asset % (key, KEY))
    with pytest.raises(psycopg.Error) as refused:
        execute(asset % (key, key))
    assert refused.value.sqlstate == "TB001"
    assert execute("SELECT source FROM {s}.asset_usage_log ORDER BY id").fetchall() == [
        ("layout",),
        ("library",),
    ]


def test_an_index_of_another_table_is_not_taken_for_it(elsewhere: Database) -> None:
    elsewhere.execute("CREATE INDEX by_status ON public.lonely (id)")
    with looking_in("elsewhere, public"):
        with connection.schema_editor(atomic=False) as editor:
            online.build_index(
                editor,
                "tables",
                "by_status",
                lambda concurrently: editor.execute(
                    "CREATE INDEX by_status ON tables (status)"
                ),
            )
    assert elsewhere.rows(
        "SELECT indrelid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        " WHERE c.relname = 'by_status' ORDER BY 1"
    ) == [("elsewhere.tables",), ("lonely",)]
