"""The experiments behind docs/decisions/0001: the old application notices a renamed table with
a view under its old name, and a table moved to another schema; one that stays it does not.

Each statement is tried over a connection opened, and where it says so prepared, before
the change.
"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import errors

from tests.conftest import Database

#: The plain way: another name and another type, and a view for the old application.
RENAME = """
ALTER TABLE artists RENAME TO accounts;
ALTER TABLE accounts RENAME COLUMN name TO display_name;
ALTER TABLE accounts ALTER COLUMN created_at TYPE timestamptz USING created_at AT TIME ZONE 'UTC';
CREATE VIEW artists AS
    SELECT id, email, password_hash, display_name AS name, bio, profile_image_url,
           banner_image_url, stripe_account_id, stripe_onboarding_complete, invite_code,
           status, role, commission_rate, {created_at} AS created_at, updated_at
      FROM accounts;
GRANT ALL ON artists TO shop_app;
"""
#: … whose types are the old ones again, at the price of an expression.
CAST = "(created_at AT TIME ZONE 'UTC')"

MOVE = """
CREATE SCHEMA legacy;
GRANT USAGE ON SCHEMA legacy TO shop_app;
ALTER TABLE artists SET SCHEMA legacy;
"""

INSERT = "INSERT INTO artists (email, password_hash, name) VALUES ('new@example.com', '', 'N')"


@pytest.fixture
def old(shop: Database) -> psycopg.Connection[Any]:
    """The old application, connected from before."""
    return shop.old(prepare_threshold=None)


def rename(shop: Database, created_at: str = CAST) -> None:
    shop.execute(RENAME.format(created_at=created_at))


def test_a_view_of_another_type_breaks_prepared_statements(
    shop: Database, old: psycopg.Connection[Any]
) -> None:
    old.execute("PREPARE every AS SELECT * FROM artists")
    old.execute("EXECUTE every")
    rename(shop, created_at="created_at")
    with pytest.raises(errors.FeatureNotSupported) as error:
        old.execute("EXECUTE every")
    assert "cached plan must not change result type" in str(error.value)


def test_a_view_has_no_primary_key_to_group_by(
    shop: Database, old: psycopg.Connection[Any]
) -> None:
    report = (
        "SELECT a.id, a.name, count(m.id) FROM artists a"
        " LEFT JOIN assets m ON m.artist_id = a.id GROUP BY a.id"
    )
    old.execute(report)
    rename(shop)
    with pytest.raises(errors.GroupingError):
        old.execute(report)


def test_a_view_with_an_expression_takes_no_insert_of_that_column(
    shop: Database, old: psycopg.Connection[Any]
) -> None:
    rename(shop)
    with pytest.raises(errors.FeatureNotSupported):
        old.execute(
            "INSERT INTO artists (email, password_hash, name, created_at)"
            " VALUES ('new@example.com', '', 'N', now())"
        )


def test_a_view_with_an_instead_of_trigger_takes_no_on_conflict(
    shop: Database, old: psycopg.Connection[Any]
) -> None:
    upsert = f"{INSERT} ON CONFLICT (email) DO UPDATE SET name = 'N'"
    old.execute(upsert)
    rename(shop)
    shop.execute(
        "CREATE FUNCTION instead() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO accounts (email, password_hash, display_name)"
        "        VALUES (NEW.email, NEW.password_hash, NEW.name); RETURN NEW; END';"
        "CREATE TRIGGER instead INSTEAD OF INSERT ON artists"
        " FOR EACH ROW EXECUTE FUNCTION instead()"
    )
    with pytest.raises(errors.InvalidColumnReference):
        old.execute(upsert)


@pytest.mark.parametrize(
    "statement",
    [
        "TRUNCATE artists CASCADE",
        "COPY artists FROM STDIN",
        f"{INSERT} ON CONFLICT ON CONSTRAINT artists_email_key DO NOTHING",
    ],
)
def test_a_view_takes_no(
    shop: Database, old: psycopg.Connection[Any], statement: str
) -> None:
    rename(shop)
    with pytest.raises(errors.Error):
        if statement.startswith("COPY"):
            with old.cursor().copy(statement):
                pass  # an empty one will do
        else:
            old.execute(statement)  # type: ignore[arg-type]


@pytest.fixture
def path_set(shop: Database) -> psycopg.Connection[Any]:
    """The old application, with the path that finds a table that has moved."""
    return shop.old(options="-c search_path=legacy,public", prepare_threshold=None)


def test_a_table_in_another_schema_takes_every_statement(
    shop: Database, path_set: psycopg.Connection[Any]
) -> None:
    """All of the above, over the same connection and with what it had prepared."""
    old = path_set
    old.execute("PREPARE every AS SELECT * FROM artists ORDER BY id")
    before = old.execute("EXECUTE every").fetchall()
    shop.execute(MOVE)
    assert old.execute("EXECUTE every").fetchall() == before
    old.execute("SELECT a.id, a.name, count(*) FROM artists a GROUP BY a.id")
    old.execute(INSERT)
    old.execute(f"{INSERT} ON CONFLICT (email) DO UPDATE SET name = 'N'")
    old.execute(f"{INSERT} ON CONFLICT ON CONSTRAINT artists_email_key DO NOTHING")
    with old.cursor().copy("COPY artists FROM STDIN"):
        pass
    with pytest.raises(errors.ForeignKeyViolation):
        old.execute(
            "INSERT INTO assets (artist_id, name, file_paths)"
            " VALUES (gen_random_uuid(), 'A', '{}')"
        )
    old.execute("TRUNCATE artists CASCADE")


def test_the_name_of_a_schema_that_is_not_there_changes_nothing(
    shop: Database, path_set: psycopg.Connection[Any]
) -> None:
    """So the search path can be set long before a table moves."""
    assert path_set.execute("SHOW search_path").fetchone() == ("legacy,public",)
    assert where(path_set) == "public"
    shop.execute(MOVE)
    assert where(path_set) == "legacy"


def where(old: psycopg.Connection[Any]) -> str:
    """The schema in which the old application finds the artists."""
    found = old.execute(
        "SELECT relnamespace::regnamespace::text FROM pg_class"
        " WHERE oid = 'artists'::regclass"
    ).fetchone()
    assert found is not None
    return str(found[0])


def test_a_table_in_another_schema_moves_the_current_schema(
    shop: Database, path_set: psycopg.Connection[Any]
) -> None:
    """An application does more than query: what it makes at its start lands elsewhere."""
    shop.execute("CREATE TABLE session (sid text); INSERT INTO session VALUES ('s1')")
    shop.execute("GRANT ALL ON session TO shop_app")
    assert path_set.execute("SELECT current_schema()").fetchone() == ("public",)
    shop.execute(MOVE)
    assert path_set.execute("SELECT current_schema()").fetchone() == ("legacy",)
    start = "CREATE TABLE IF NOT EXISTS session (sid text)"
    with pytest.raises(errors.InsufficientPrivilege):
        path_set.execute(start)
    shop.execute("GRANT CREATE ON SCHEMA legacy TO shop_app")
    path_set.execute(start)
    assert path_set.execute("SELECT sid FROM session").fetchall() == []
    assert shop.rows("SELECT sid FROM public.session") == [("s1",)]


def test_a_table_in_another_schema_is_lost_to_a_client_without_the_path(
    shop: Database, old: psycopg.Connection[Any]
) -> None:
    shop.execute(MOVE)
    with pytest.raises(errors.UndefinedTable):
        old.execute("SELECT FROM artists")


def test_a_table_that_stays_takes_everything(
    migrated: Database, old_of_migrated: psycopg.Connection[Any]
) -> None:
    """What was chosen: no path, no move, nothing to notice."""
    old = old_of_migrated
    assert old.execute("SHOW search_path").fetchone() == ('"$user", public',)
    assert old.execute("SELECT current_schema()").fetchone() == ("public",)
    assert where(old) == "public"
    old.execute("PREPARE every AS SELECT * FROM artists ORDER BY id")
    old.execute("EXECUTE every")
    old.execute("SELECT a.id, a.name, count(*) FROM artists a GROUP BY a.id")
    old.execute(INSERT)
    old.execute(f"{INSERT} ON CONFLICT (email) DO UPDATE SET name = 'N'")
    old.execute(f"{INSERT} ON CONFLICT ON CONSTRAINT artists_email_key DO NOTHING")
    with old.cursor().copy("COPY artists FROM STDIN"):
        pass
    old.execute("TRUNCATE artists CASCADE")


@pytest.fixture
def old_of_migrated(migrated: Database) -> psycopg.Connection[Any]:
    return migrated.old(prepare_threshold=None)
