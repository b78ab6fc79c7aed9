"""New tables closed to the new application while the shop is on its way, there or back.

Forward, a table is there before anything carries over what is written to it, and a parked
one returns before it is brought up to date.  Going back, the triggers come off before the
tables are parked.  What the new application wrote in between would be acknowledged and
then lost, or would put old values over the old application's.  So a table is closed in the
very transaction that makes it, brings it back or takes its triggers off, and opened when
``migrate`` has come to its end.

The function is in ``legacy_parked``, because ``rebuilt`` goes while tables are closed.
"""

from __future__ import annotations

from django.db.backends.base.base import BaseDatabaseWrapper

from terrain import locks
from terrain.blockers import Mode
from terrain.exceptions import Refused
from terrain.legacy import catalog, privileges, sql
from terrain.legacy.catalog import PARKED
from terrain.legacy.mapping import BY_NEW
from terrain.waiting import Say


class Closed(Refused):
    """A write to a new table while the shop is on its way."""


#: The new tables that have a legacy counterpart, and the parts of their rows.
MIRRORED = tuple(
    dict.fromkeys(
        table
        for new, lenses in BY_NEW.items()
        for table in (new, *(lens.part.table for lens in lenses if lens.part))
    )
)


def is_under_way(connection: BaseDatabaseWrapper) -> bool:
    """Whether there is a shop to move, and not every row of it has been moved yet."""
    if not catalog.has_legacy_tables(connection):
        return False
    return catalog.SETTLED not in catalog.applied(connection)


def close(connection: BaseDatabaseWrapper, table: str) -> None:
    """Let only the sync write to a new table; in the caller's transaction."""
    privileges.make_schema(connection, PARKED)
    catalog.execute(connection, closing(connection, table))


def closing(connection: BaseDatabaseWrapper, table: str) -> list[str]:
    """The statements that close a table; also after one another, for several.

    The schema ``legacy_parked`` has to be there.
    """
    return [
        *([] if _can_close(connection) else [sql.closed_function()]),
        sql.closing_trigger(sql.new_table(table)),
    ]


def _can_close(connection: BaseDatabaseWrapper) -> bool:
    return bool(
        catalog.value(
            connection,
            "SELECT to_regprocedure('legacy_parked.closed()') IS NOT NULL",
        )
    )


def closed(connection: BaseDatabaseWrapper) -> list[str]:
    """The new tables that are closed."""
    return [
        table
        for (table,) in catalog.rows(
            connection,
            "SELECT c.relname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"
            "  JOIN pg_namespace s ON s.oid = c.relnamespace"
            " WHERE s.nspname = ANY (%s) AND t.tgname = %s ORDER BY 1",
            [list(catalog.where(connection).own), sql.CLOSING_TRIGGER],
        )
    ]


def open_all(connection: BaseDatabaseWrapper, say: Say | None = None) -> None:
    """Let the new application write again."""
    for table in closed(connection):
        locks.change_briefly(
            connection,
            [sql.opening(sql.new_table(table))],
            what=f"Opening {table}",
            tables=catalog.new(connection, table),
            mode=Mode.ACCESS_EXCLUSIVE,
            say=say,
        )
    if catalog.schema_exists(connection, PARKED):
        with connection.cursor() as cursor:
            cursor.execute(sql.drop_closed_function())
