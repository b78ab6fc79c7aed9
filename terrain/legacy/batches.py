"""What all batches have in common: ranges of keys, and who is told that they write."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from django.db.backends.base.base import BaseDatabaseWrapper

from terrain.legacy import catalog, sql


def ranges(
    connection: BaseDatabaseWrapper, table: str, size: int
) -> Iterator[tuple[uuid.UUID | None, uuid.UUID, int]]:
    """The keys of a table in ranges: (above, up to, how many)."""
    query = sql.next_range(table)
    after = None
    while True:
        found = catalog.rows(
            connection, query, {"after": after, "end": None, "limit": size}
        )
        upto, rows = found[0]
        if upto is None:
            return
        yield after, upto, rows
        after = upto


@contextmanager
def echo(connection: BaseDatabaseWrapper, table: str) -> Iterator[None]:
    """Within a transaction: what is written to a new table comes from the legacy one."""
    with connection.cursor() as cursor:
        # A batch is read twice from memory; 4 MB, the default, would send it to disk.
        # And compiling one would take longer than running it.
        cursor.execute(
            "SELECT set_config('terrain.echo', %s, true),"
            " set_config('terrain.sync', 'on', true),"
            " set_config('work_mem', '64MB', true), set_config('jit', 'off', true)",
            [f"{table}:*@0"],
        )
        yield
