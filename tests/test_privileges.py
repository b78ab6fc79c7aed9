"""What the move creates is its owner's alone; default privileges give no rights (privileges.py)."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from psycopg import errors

from terrain.embedded import OWNER
from terrain.legacy import cut_over
from tests.conftest import OLD_ROLE, Database

pytestmark = pytest.mark.migration

EVERYTHING = ("TABLES", "SEQUENCES", "FUNCTIONS", "TYPES", "SCHEMAS")

#: Grants to others than the owner, on schemas of ours and on what is in them.
GRANTED = """
WITH ours AS (SELECT oid, nspname, nspowner, nspacl FROM pg_namespace WHERE nspname = ANY (%s))
SELECT 'schema', o.nspname::text, pg_get_userbyid(nullif(a.grantee, 0))::text, a.privilege_type
  FROM ours o, aclexplode(o.nspacl) a WHERE a.grantee <> o.nspowner
UNION ALL
SELECT 'relation', c.oid::regclass::text, pg_get_userbyid(nullif(a.grantee, 0))::text,
       a.privilege_type
  FROM pg_class c JOIN ours o ON o.oid = c.relnamespace, aclexplode(c.relacl) a
 WHERE a.grantee <> c.relowner AND c.relkind <> 'v' AND c.relname <> ALL (%s)
UNION ALL
SELECT 'function', p.oid::regprocedure::text, pg_get_userbyid(nullif(a.grantee, 0))::text,
       a.privilege_type
  FROM pg_proc p JOIN ours o ON o.oid = p.pronamespace,
       aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
 WHERE a.grantee <> p.proowner AND p.prosecdef
 ORDER BY 1, 2, 3, 4
"""


def granted(database: Database, *schemas: str, without: tuple[str, ...] = ()) -> Any:
    return database.rows(GRANTED, list(schemas), list(without))


@pytest.fixture
def generous(shop: Database) -> Database:
    """A shop whose owner gives the old application everything it will ever make."""
    for kind in EVERYTHING:
        shop.execute(
            f"ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER} GRANT ALL ON {kind} TO {OLD_ROLE}"
        )
    call_command("migrate", verbosity=0)
    return shop


def test_nothing_is_inherited_from_default_privileges(generous: Database) -> None:
    assert granted(generous, "rebuilt", "legacy_parked") == []
    # Functions that migrations make are closed when they come where others may go.
    assert [
        each for each in granted(generous, "terrain") if each[0] != "function"
    ] == []
    with generous.connect(OLD_ROLE) as old:
        for statement in (
            "SELECT FROM terrain.users",
            "UPDATE terrain.users SET is_superuser = true",
            "SELECT FROM rebuilt.queue",
            "SELECT rebuilt.repoint_user(gen_random_uuid(), gen_random_uuid())",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                old.execute(statement)
        # … and its own statements are carried over.
        old.execute("UPDATE artists SET bio = 'carried over'")
    assert generous.rows(
        "SELECT DISTINCT bio FROM terrain.users WHERE role <> 'customer'"
    ) == [("carried over",)]


def test_nor_after_the_cut_over_and_a_rollback(generous: Database) -> None:
    cut_over.cut_over(connection)
    assert [
        each for each in granted(generous, "public") if each[:2] != ("schema", "public")
    ] == []
    assert granted(generous, "terrain", "rebuilt") == []
    with generous.connect(OLD_ROLE) as old, pytest.raises(errors.InsufficientPrivilege):
        old.execute("SELECT FROM public.users")
    call_command("rollback_migration", yes=True, verbosity=0)
    assert granted(generous, "terrain", "legacy_parked") == []
