"""Accounts for the addresses of buyers and of saved tables, in batches."""

from __future__ import annotations

import time
from collections.abc import Callable

from django.db.backends.base.base import BaseDatabaseWrapper

from terrain import locks, progress
from terrain.legacy import catalog, ledger, sql
from terrain.legacy.batches import echo
from terrain.legacy.mapping import BY_LEGACY
from terrain.legacy.models import Batch, Run
from terrain.legacy.schema import Lens
from terrain.pace import Pace
from terrain.pace.governor import Governor, governed

CUSTOMERS = "copy customers"


def copy_customers(connection: BaseDatabaseWrapper) -> Run | None:
    """Make an account of every address of a buyer or of a saved table that has none yet.

    Orders come first: a customer is called what their first order says.
    """
    if not catalog.has_legacy_tables(connection):
        return None
    run = ledger.begin(CUSTOMERS, using=connection.alias)
    started = time.monotonic()
    sources = ("orders", "user_tables")
    total = sum(max(0, catalog.planned(connection, table)) for table in sources)
    with (
        governed(connection, CUSTOMERS) as governor,
        progress.measured(CUSTOMERS, total or None) as advance,
    ):
        for shard, table in enumerate(sources):
            lens = BY_LEGACY[table]
            _customers_of(connection, run, shard, lens, advance, governor)
    run.seconds += time.monotonic() - started
    run.rows = catalog.value(
        connection, "SELECT count(*) FROM users WHERE role = 'customer'"
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE (SKIP_LOCKED) @new.users")
    ledger.finish(run)
    return run


def _customers_of(
    connection: BaseDatabaseWrapper,
    run: Run,
    shard: int,
    lens: Lens,
    advance: Callable[[int], None],
    governor: Governor,
) -> None:
    table = sql.legacy_table(lens.legacy)
    source = (
        f"{table} l WHERE (%(after)s::uuid IS NULL OR l.id > %(after)s::uuid)"
        " AND l.id <= %(upto)s::uuid"
    )
    if lens.held and lens.part is None:
        source += f" AND {sql.held(lens)} IS NULL"
    statement = sql.customers(lens, source)
    next_range = sql.next_range(table)
    last = run.batches.filter(shard=shard).order_by("-id").first()
    after = last.upto if last is not None else None
    pace = Pace.beside_others(connection)
    while governor.turn(connection, pace):
        found = catalog.rows(
            connection, next_range, {"after": after, "end": None, "limit": pace.rows}
        )
        upto, rows = found[0]
        if upto is None:
            return
        started = time.monotonic()
        batch = Batch(run=run, shard=shard, after=after, upto=upto, rows=rows)

        def make(batch: Batch = batch) -> None:
            _make_customers(connection, statement, batch)
            governor.committing()

        locks.run_briefly(
            connection,
            make,
            what="Making customers",
            tables=catalog.new(connection, "users"),
        )
        pace.took(rows, time.monotonic() - started)
        advance(rows)
        after = upto


def _make_customers(
    connection: BaseDatabaseWrapper, statement: str, batch: Batch
) -> None:
    started = time.monotonic()
    with echo(connection, "users"), connection.cursor() as cursor:
        cursor.execute(statement, {"after": batch.after, "upto": batch.upto})
    batch.seconds = time.monotonic() - started
    batch.save(using=connection.alias)
