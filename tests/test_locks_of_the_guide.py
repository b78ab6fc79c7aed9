"""Every lock that the guide takes on a table in use, there and back and for good."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection
from django.db.backends.utils import CursorWrapper

from terrain import locks
from terrain.legacy import cleanup, cut_over
from tests.conftest import Database, Result

pytestmark = pytest.mark.migration

Manage = Callable[..., Result]

#: What a statement of the old application touches once it fires triggers.
FIRED_UPON = (
    "users",
    "models",
    "tables",
    "orders",
    "order_items",
    "payments",
    "legacy_quarantine",
    "legacy_released",
)

#: Notes each definition that changes, with the locks on tables in use that are held then.
NOTED = """
CREATE SCHEMA audit;
CREATE TABLE audit.six AS
    SELECT oid, 'old ' || relname AS name FROM pg_class
     WHERE relname IN ('artists', 'assets', 'user_tables', 'example_tables', 'orders',
                       'stripe_transfers') AND relkind = 'r';
CREATE TABLE audit.noted (number serial, transaction bigint, statement text, timeout text,
                          relation text, mode text);
CREATE FUNCTION audit.note() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO audit.noted (transaction, statement, timeout, relation, mode)
    SELECT txid_current(), current_query(), current_setting('lock_timeout'),
           coalesce((SELECT name FROM audit.six WHERE oid = l.relation), c.relname),
           l.mode
      FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
     WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.granted
       AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
       AND (l.relation IN (SELECT oid FROM audit.six)
            OR EXISTS (SELECT FROM pg_trigger t JOIN audit.six ON t.tgrelid = six.oid
                        WHERE t.tgname LIKE 'zz_terrain_sync%')
               AND l.relation = ANY (SELECT to_regclass(s || '.' || t)
                                       FROM unnest('{FIRED_UPON}'::text[]) t,
                                            unnest('{terrain,public}'::text[]) s));
END $$;
CREATE EVENT TRIGGER noted ON ddl_command_end EXECUTE FUNCTION audit.note();
"""


@pytest.fixture
def noted(shop: Database) -> Iterator[Callable[[], list[tuple[Any, ...]]]]:
    superuser = shop.superuser
    superuser.execute(NOTED.replace("FIRED_UPON", ",".join(FIRED_UPON)))  # type: ignore[arg-type]
    yield lambda: superuser.execute(
        "SELECT transaction, statement, timeout, relation, mode FROM audit.noted"
        " ORDER BY number"
    ).fetchall()
    superuser.execute("DROP EVENT TRIGGER noted")


@pytest.fixture
def analysed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """ANALYZE is no definition, so it is listened for on this side."""
    found: list[str] = []
    execute = CursorWrapper.execute

    def listening(self: Any, query: Any, params: Any = None) -> Any:
        if re.match(r"\s*(ANALYZE|VACUUM|REINDEX|TRUNCATE|CLUSTER)", str(query), re.I):
            found.append(str(query))
        return execute(self, query, params)

    monkeypatch.setattr(CursorWrapper, "execute", listening)
    return found


#: The only tables that are locked together while the old application is there: those whose
#: triggers go on and off as one, and the two of a foreign key.
TOGETHER = (
    {"old artists", "users"},
    {"old assets", "models"},
    {"old user_tables", "tables"},
    {"old example_tables", "tables"},
    {"old orders", "orders", "order_items"},
    {"old stripe_transfers", "payments"},
    {"models", "users"},
    {"tables", "users"},
    {"orders", "users"},
    {"orders", "order_items"},
    {"order_items", "models"},
    {"order_items", "users"},
    {"payments", "orders"},
    {"payments", "users"},
)


def test_each_is_short_and_of_as_few_tables_as_can_be(
    shop: Database,
    noted: Callable[[], list[tuple[Any, ...]]],
    analysed: list[str],
    manage: Manage,
) -> None:
    shop.old()  # so that what is built, is built beside somebody
    for command in (
        ("migrate",),
        ("settle", "--again"),
        ("copy_models_to_assets",),
        ("rollback_migration", "--yes"),
        ("migrate",),
    ):
        assert manage(*command, "-v", "0") == Result(0, "", ""), command
    held = noted()
    assert {relation for *_, relation, _ in held} >= set().union(*TOGETHER)
    together: dict[int, set[str]] = defaultdict(set)
    for number, *_, relation, _ in held:
        together[number].add(relation)
    for number, tables in together.items():
        assert len(tables) == 1 or any(tables <= each for each in TOGETHER), [
            row for row in held if row[0] == number
        ]

    # All at once, when the old application is gone.
    for change in (cut_over.cut_over, cut_over.undo, cut_over.cut_over):
        before = len(noted())
        change(connection)
        swap = noted()[before:]
        assert len({number for number, *_ in swap}) == 1
        assert {relation for *_, relation, _ in swap} >= set().union(*TOGETHER)
        assert {mode for *_, mode in swap} == {"AccessExclusiveLock"}
    before = len(noted())
    cleanup.clean_up(connection)
    assert len(noted()) > before
    for _, statement, timeout, relation, _ in noted():
        assert timeout.endswith("ms"), (statement, relation)
        assert 0 < int(timeout[:-2]) <= locks.LOCK_TIMEOUT, (statement, relation)
    assert analysed and all("SKIP_LOCKED" in statement for statement in analysed)
