"""The copies: the legacy tables' rows into the new ones, in short batches.

Each batch is a range of keys, one statement and one transaction, which also stores the
cursor: killed anywhere, at most one batch is done again.  A large table is copied by two
connections, each with its own part of the keys.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from django.db import DatabaseError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import errors

from sessions_app.models import DEFAULT_TABLE_LIMIT
from terrain import locks, progress
from terrain.legacy import catalog, ledger, sql
from terrain.legacy.mapping import BY_LEGACY
from terrain.legacy.models import Batch, Run
from terrain.legacy.schema import Lens
from terrain.pace import Pace
from terrain.progress import Progress

#: Tables below this many rows (by the planner's count) are copied by one connection.
WORTH_SHARING = 20_000


@dataclass
class Work:
    """A copy under way: shared by its workers, guarded by ``lock``."""

    run: Run
    lens: Lens
    batch: str
    batch_with_row_locks: str
    done: int = 0
    started: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)
    stop: threading.Event = field(default_factory=threading.Event)

    def advanced(self, rows: int) -> None:
        with self.lock:
            self.done += rows
            progress.report(
                Progress(
                    self.run.step,
                    self.done,
                    self.run.total,
                    self.run.seconds + time.monotonic() - self.started,
                )
            )


def step_name(table: str) -> str:
    """The name a copy has in the ledger."""
    return f"copy {table}"


def copy(connection: BaseDatabaseWrapper, table: str) -> Run | None:
    """Copy a legacy table, or go on doing so.  None if there is nothing to copy from."""
    if not catalog.is_moved(connection):
        return None
    lens = BY_LEGACY[table]
    step = step_name(table)
    run = ledger.last(step, connection.alias)
    if run is None or run.state == Run.State.DONE:
        if planned(connection, table) <= 0 or not _histogram(connection, table):
            # Of a table never analysed, or not since it was emptied, the planner knows nothing.
            _analyze(connection, "legacy", table, [lens.key])
        reconcile(connection, lens)
    total = max(planned(connection, table), 0)
    run = ledger.begin(step, total=total, using=connection.alias)
    types = catalog.types(connection)
    work = Work(
        run,
        lens,
        sql.copy_batch(lens, types, DEFAULT_TABLE_LIMIT),
        sql.copy_batch(lens, types, DEFAULT_TABLE_LIMIT, row_lock=True),
    )
    work.done = sum(run.batches.values_list("rows", flat=True))
    try:
        _copy_in_shards(connection, work, _shards(connection, run, table, total))
    finally:
        progress.make_way()
        run.seconds += time.monotonic() - work.started
        run.rows = work.done
        run.save()
    for made in [lens.new, *([lens.part.table] if lens.part else [])]:
        keys = [name for name, type_ in types[made].items() if type_ == "uuid"]
        _analyze(connection, "public", made, keys)
    ledger.finish(run)
    return run


def _analyze(
    connection: BaseDatabaseWrapper, schema: str, table: str, columns: list[str]
) -> None:
    """Tell the planner what the next steps join by; of the rest autovacuum will.

    Looking at the JSON of a sample would take as long as copying it.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"ANALYZE (SKIP_LOCKED) {sql.ident(schema, table)}"
            f" ({sql.joined(map(sql.ident, columns))})"
        )


def planned(connection: BaseDatabaseWrapper, table: str) -> int:
    """Rows of a moved table by the planner's count; -1 if it was never analysed."""
    found: int = catalog.value(
        connection,
        "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(%s)",
        [f"legacy.{table}"],
    )
    return found


def _histogram(connection: BaseDatabaseWrapper, table: str) -> list[uuid.UUID] | None:
    """Keys that part a legacy table into pieces of about the same size."""
    found: list[uuid.UUID] | None = catalog.value(
        connection, sql.query("quantiles"), {"schema": "legacy", "table": table}
    )
    return found


@dataclass(frozen=True)
class Shard:
    """A part of the keys: those above ``after`` and up to ``end``, None for no bound."""

    number: int
    after: uuid.UUID | None
    end: uuid.UUID | None


def _shards(
    connection: BaseDatabaseWrapper, run: Run, table: str, total: int
) -> list[Shard]:
    """The parts of the keys, the same again for a run that is gone on with."""
    if "shards" not in run.detail:
        bounds: list[uuid.UUID] = []
        if total >= WORTH_SHARING:
            histogram = _histogram(connection, table)
            if histogram and len(histogram) > sql.WORKERS:
                bounds = [
                    histogram[len(histogram) * part // sql.WORKERS]
                    for part in range(1, sql.WORKERS)
                ]
        run.detail["shards"] = [str(bound) for bound in bounds]
        run.save()
    edges = [None, *map(uuid.UUID, run.detail["shards"]), None]
    return [
        Shard(number, after, end)
        for number, (after, end) in enumerate(zip(edges, edges[1:], strict=False))
    ]


def _copy_in_shards(
    connection: BaseDatabaseWrapper, work: Work, shards: list[Shard]
) -> None:
    if len(shards) == 1:
        _copy_shard(connection, work, shards[0])
        return
    with ThreadPoolExecutor(len(shards), thread_name_prefix="copy") as pool:
        futures = [
            pool.submit(_in_thread, connection.alias, work, shard) for shard in shards
        ]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            # Whatever ended the wait, Ctrl-C included: the others finish their batch.
            work.stop.set()
        for future in futures:
            future.result()


def _in_thread(alias: str, work: Work, shard: Shard) -> None:
    connection = connections[alias]  # this thread's own
    try:
        _copy_shard(connection, work, shard)
    finally:
        connection.close()


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


def _copy_shard(connection: BaseDatabaseWrapper, work: Work, shard: Shard) -> None:
    """Batch after batch, from the cursor the ledger has for this shard."""
    last = (
        Batch.objects.using(connection.alias)
        .filter(run_id=work.run.pk, shard=shard.number)
        .order_by("-id")
        .first()
    )
    after = last.upto if last is not None else shard.after
    pace = Pace.beside_others(connection)
    next_range = sql.next_range(sql.ident("legacy", work.lens.legacy))
    while not work.stop.is_set():
        with connection.cursor() as cursor:
            cursor.execute(
                next_range, {"after": after, "end": shard.end, "limit": pace.rows}
            )
            upto, rows = cursor.fetchone()
        if upto is None:
            return
        started = time.monotonic()
        try:
            _copy_range(connection, work, shard, after, upto)
        except DatabaseError as error:
            if rows == 1 and _is_data_error(error):
                _hold_row(connection, work, shard, after, upto)
            elif locks.is_retried(error) or _is_data_error(error) or _timed_out(error):
                pace.halve()
                continue
            else:
                raise
        pace.took(rows, time.monotonic() - started)
        work.advanced(rows)
        after = upto


def _is_data_error(error: DatabaseError) -> bool:
    """A row is at fault: alone in its batch, it is the one."""
    return isinstance(error.__cause__, errors.DataError | errors.IntegrityError)


def _timed_out(error: DatabaseError) -> bool:
    return isinstance(error.__cause__, errors.QueryCanceled)


def _hold_row(
    connection: BaseDatabaseWrapper,
    work: Work,
    shard: Shard,
    after: uuid.UUID | None,
    key: uuid.UUID,
) -> None:
    """Leave a row that no predicate foresaw to the trigger's function, which holds it."""

    def hold() -> None:
        carry_over(connection, work.lens, [key])
        _store_cursor(connection, work, shard, after, key, 1, 0.0)

    locks.run_briefly(connection, hold, what=f"Holding {work.lens.legacy} {key}")


def carry_over(
    connection: BaseDatabaseWrapper, lens: Lens, keys: list[uuid.UUID]
) -> None:
    """Make the new rows agree with the legacy rows of these keys, as the triggers would.

    In the caller's transaction, which has the legacy rows from then on, as a trigger would:
    what the old application writes between the look at a row and the carrying over would
    be overwritten by what was there before.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT FROM {sql.ident('legacy', lens.legacy)} l WHERE l.id = ANY (%s::uuid[])"
            " ORDER BY l.id FOR NO KEY UPDATE",
            [keys],
        )
        cursor.execute(
            f"SELECT {sql.ident('rebuilt', f'{lens.legacy}_to_new')}(k.id)"
            " FROM unnest(%s::uuid[]) AS k (id)",
            [keys],
        )


def _copy_range(
    connection: BaseDatabaseWrapper,
    work: Work,
    shard: Shard,
    after: uuid.UUID | None,
    upto: uuid.UUID,
) -> None:
    """One batch: the rows, and with them the cursor."""
    started = time.monotonic()
    with (
        transaction.atomic(using=connection.alias),
        locks.lock_timeout(connection, locks.LOCK_TIMEOUT),
        echo(connection, work.lens.new),
    ):
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT pg_try_advisory_xact_lock({sql.copy_lock(work.lens, shard.number)})"
            )
            (alone,) = cursor.fetchone()
            cursor.execute(
                work.batch if alone else work.batch_with_row_locks,
                {"after": after, "upto": upto},
            )
            seen, _copied, _held = cursor.fetchone()
        _store_cursor(
            connection, work, shard, after, upto, seen, time.monotonic() - started
        )


def _store_cursor(
    connection: BaseDatabaseWrapper,
    work: Work,
    shard: Shard,
    after: uuid.UUID | None,
    upto: uuid.UUID,
    rows: int,
    seconds: float,
) -> None:
    Batch(
        run_id=work.run.pk,
        shard=shard.number,
        after=after,
        upto=upto,
        rows=rows,
        seconds=seconds,
    ).save(using=connection.alias)


# --- after a rollback ----------------------------------------------------------------------

#: Keys carried over in the first transaction; of the others its time decides.
FIRST_CHUNK = 20
#: Rows compared by one query.
COMPARED = 5_000


def reconcile(connection: BaseDatabaseWrapper, lens: Lens) -> int:
    """Bring rows that were parked up to date with what the old application did since.

    New rows that it deleted go (or become customers), those it changed are carried over;
    what it added is left to the copy.  Returns how many there were.
    """
    if not catalog.value(
        connection, f"SELECT true FROM {sql.ident('public', lens.new)} LIMIT 1"
    ):
        return 0
    changed = 0
    for query in (sql.stale(lens), sql.not_own(lens)):
        changed += carry_over_all(connection, lens, _keys(connection, query))
    for after, upto, _rows in ranges(
        connection, sql.ident("legacy", lens.legacy), COMPARED
    ):
        differing = _keys(
            connection, sql.differing(lens), {"after": after, "upto": upto}
        )
        changed += carry_over_all(connection, lens, differing)
    return changed


def _keys(
    connection: BaseDatabaseWrapper, query: str, params: Any = None
) -> list[uuid.UUID]:
    return [key for (key,) in catalog.rows(connection, query, params)]


def carry_over_all(
    connection: BaseDatabaseWrapper,
    lens: Lens,
    keys: list[uuid.UUID],
    patience: float | None = None,
) -> int:
    """Carry over rows, some at a time; each time the old application goes first.

    ``patience`` is the limit of :func:`terrain.locks.run_briefly`.
    """
    pace = Pace.beside_others(connection)
    pace.rows = FIRST_CHUNK
    start = 0
    with progress.measured(f"carry over {lens.legacy}", len(keys)) as advance:
        while start < len(keys):
            some = keys[start : start + pace.rows]
            started = time.monotonic()
            locks.run_briefly(
                connection,
                partial(carry_over, connection, lens, some),
                what=f"Carrying over {len(some)} rows of {lens.legacy}",
                tables=(f"legacy.{lens.legacy}", f"public.{lens.new}"),
            )
            pace.took(len(some), time.monotonic() - started)
            advance(len(some))
            start += len(some)
    return len(keys)


def carry_over_missing(connection: BaseDatabaseWrapper, lens: Lens) -> int:
    """Carry over legacy rows that have no new row and are not held; returns how many."""
    missing = _keys(
        connection,
        f"SELECT l.id FROM legacy.{lens.legacy} l"
        f" WHERE NOT EXISTS (SELECT FROM public.{lens.new} n WHERE n.id = l.id AND {lens.own})"
        "   AND NOT EXISTS (SELECT FROM public.legacy_quarantine q WHERE q.kind = 'held'"
        "                    AND q.legacy_table = %s AND q.legacy_id = l.id)",
        [lens.legacy],
    )
    return carry_over_all(connection, lens, missing)


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


# --- customers -----------------------------------------------------------------------------

CUSTOMERS = "copy customers"


def copy_customers(connection: BaseDatabaseWrapper) -> Run | None:
    """Make an account of every address of a buyer or of a saved table that has none yet.

    Orders come first: a customer is called what their first order says.
    """
    if not catalog.is_moved(connection):
        return None
    run = ledger.begin(CUSTOMERS, using=connection.alias)
    started = time.monotonic()
    sources = ("orders", "user_tables")
    total = sum(max(0, planned(connection, table)) for table in sources)
    with progress.measured(CUSTOMERS, total or None) as advance:
        for shard, table in enumerate(sources):
            _customers_of(connection, run, shard, BY_LEGACY[table], advance)
    run.seconds += time.monotonic() - started
    run.rows = catalog.value(
        connection, "SELECT count(*) FROM users WHERE role = 'customer'"
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE (SKIP_LOCKED) public.users")
    ledger.finish(run)
    return run


def _customers_of(
    connection: BaseDatabaseWrapper,
    run: Run,
    shard: int,
    lens: Lens,
    advance: Callable[[int], None],
) -> None:
    table = sql.ident("legacy", lens.legacy)
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
    while True:
        found = catalog.rows(
            connection, next_range, {"after": after, "end": None, "limit": pace.rows}
        )
        upto, rows = found[0]
        if upto is None:
            return
        started = time.monotonic()
        batch = Batch(run=run, shard=shard, after=after, upto=upto, rows=rows)
        locks.run_briefly(
            connection,
            partial(_make_customers, connection, statement, batch),
            what="Making customers",
            tables=("public.users",),
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
