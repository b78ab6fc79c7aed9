"""The legacy tables belong to another role, of which the plain owner of the database is a member.

The functions of the sync act as that role then, through all of it: there, cut over, back, and for
good.  Nobody here is a superuser or may make roles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.db import connection
from psycopg import errors

from terrain.embedded import OWNER
from terrain.legacy import cleanup, sql
from terrain.legacy.mapping import LENSES
from tests import dumps
from tests.conftest import OLD_ROLE, Database, Result

pytestmark = pytest.mark.migration

Manage = Callable[..., Result]


@pytest.fixture
def owned(role: str, shop: Database) -> Iterator[Database]:
    with shop.superuser as superuser:
        superuser.execute(f"GRANT {role} TO {OWNER}")
        for lens in LENSES:
            superuser.execute(f"ALTER TABLE {lens.legacy} OWNER TO {role}")
    yield shop


def schema_of(database: Database) -> Any:
    """Who may do what in public."""
    return database.rows(
        "SELECT nspowner, nspacl::text FROM pg_namespace WHERE nspname = 'public'"
    )


def writes_arrive(database: Database, *users: str) -> None:
    """Both applications write to each table, and all of it is in step."""
    there = database.place
    for number, user in enumerate(users):
        with database.connect(user, there.legacy) as old:
            for lens in LENSES:
                old.execute(
                    "WITH few AS (SELECT id FROM {0} ORDER BY id OFFSET %s LIMIT 2)"
                    " UPDATE {0} SET created_at = created_at + interval '1 minute'"
                    " WHERE id IN (TABLE few)".format(lens.legacy),  # type: ignore[arg-type]
                    [number],
                )
            old.execute(
                "INSERT INTO orders (order_number, user_email, user_name, shipping_address,"
                " pricing, items) VALUES (gen_random_uuid(), %s, 'N', '{}', '{}',"
                ' \'[{"quantity": 1}, {"quantity": 0}]\')',
                [f"{number}@owned.example"],
            )
    with database.new() as new:
        for lens in LENSES:
            later = "created_at = created_at + interval '1 minute'"
            new.execute(f"UPDATE {lens.new} SET {later}")  # type: ignore[arg-type]
        new.execute("DELETE FROM order_items WHERE position = 2")
    with connection.cursor() as cursor:
        for lens in LENSES:
            cursor.execute(sql.differences(lens), {"after": None, "upto": None})
            assert cursor.fetchall() == [], lens.legacy
    connection.close()


def acting(database: Database) -> Any:
    """The owners of the functions, and whether others may call them."""
    return database.rows(
        "SELECT DISTINCT pg_get_userbyid(proowner)::text,"
        " has_function_privilege('public', oid, 'EXECUTE')"
        " FROM pg_proc WHERE pronamespace = 'rebuilt'::regnamespace"
    )


@pytest.mark.parametrize("public", ["as it comes", "closed"])
def test_the_sync_acts_as_the_owner_of_the_tables_throughout(
    role: str, owned: Database, manage: Manage, public: str
) -> None:
    if public == "closed":
        owned.superuser.execute(
            "REVOKE ALL ON SCHEMA public FROM PUBLIC;"
            f" GRANT USAGE ON SCHEMA public TO {role}, {OLD_ROLE}"
        )
    assert owned.rows(
        "SELECT rolsuper, rolcreaterole FROM pg_roles WHERE rolname = current_user"
    ) == [(False, False)]
    before = schema_of(owned), dumps.schema(owned, "--schema=public")
    for command in (
        ("migrate",),
        ("cut_over", "--yes", "--ignore-activity"),
        ("cut_over", "--undo", "--yes"),
        ("rollback_migration", "--yes"),
        ("migrate",),
        ("settle", "--again"),
        ("cut_over", "--yes", "--ignore-activity"),
        ("settle", "--again"),
    ):
        connection.close()
        done = manage(*command, "-v0")
        assert (done.code, done.err) == (0, ""), command
        if command[0] == "rollback_migration":
            assert dumps.schema(owned, "--schema=public") == before[1]
            continue
        assert schema_of(owned) == before[0], command
        assert acting(owned) == [(role, False)], command
        writes_arrive(owned, role, OLD_ROLE)
        with owned.connect(OLD_ROLE) as old, pytest.raises(
            errors.InsufficientPrivilege
        ):
            old.execute(f"SELECT FROM {owned.place.own[-1]}.users")  # type: ignore[arg-type]
    owned.execute("UPDATE legacy_quarantine SET decided_at = now()")
    cleanup.clean_up(connection)
    assert dumps.schemas(owned) == {"public"}
    assert (
        owned.rows(
            "SELECT c.oid::regclass::text FROM pg_class c, aclexplode(c.relacl) a"
            " WHERE c.relnamespace = 'public'::regnamespace AND a.grantee <> c.relowner"
        )
        == []
    )


def test_a_table_that_belongs_to_nobody_we_are_is_not_touched(
    role: str, owned: Database, manage: Manage
) -> None:
    """Membership taken away between migrate and cut-over: refused, and nothing has changed."""
    assert manage("migrate", "-v0") == Result(0, "", "")
    owned.superuser.execute(f"REVOKE {role} FROM {OWNER}")
    before = dumps.schema(owned)
    with pytest.raises(psycopg.Error):
        owned.execute(f"ALTER TABLE public.orders OWNER TO {role}")
    done = manage("cut_over", "--yes", "--ignore-activity")
    assert done.code != 0 and "Traceback" not in done.err
    assert dumps.schema(owned) == before


def test_a_role_that_may_write_to_the_new_tables_is_under_their_limits(
    role: str, migrated: Database, manage: Manage
) -> None:
    """After the cut-over as on a fresh database: the limits' functions act as their caller."""
    assert manage("copy_models_to_assets", "-v0").code == 0
    assert manage("cut_over", "--yes", "-v0") == Result(0, "", "")
    migrated.execute(
        "GRANT SELECT, INSERT, UPDATE ON public.table_assets, public.tables,"
        f" public.asset_usage_log TO {role}"
    )
    with migrated.connect(role, "public") as web:
        web.execute(
            "INSERT INTO table_assets (id, table_id, asset_id, quantity, last_used)"
            " SELECT gen_random_uuid(), t.id, %(asset)s, 1, now() FROM tables t"
            "  WHERE NOT EXISTS (SELECT FROM table_assets x WHERE x.table_id = t.id"
            "                       AND x.asset_id = %(asset)s) LIMIT 1",
            {"asset": migrated.value("SELECT id FROM public.assets LIMIT 1")},
        )
