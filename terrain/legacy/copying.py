"""The copies: the legacy tables' rows into the new ones, in short batches.

Each batch is a range of keys, one statement and one transaction, which also stores the
cursor: killed anywhere, at most one batch is done again.  A large table is copied by two
connections, each with its own part of the keys.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from django.db import DatabaseError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import errors

from sessions_app.models import DEFAULT_TABLE_LIMIT
from terrain import locks, progress
from terrain.legacy import catalog, ledger, sql
from terrain.legacy.batches import echo
from terrain.legacy.carrying import settle_late
from terrain.legacy.mapping import BY_LEGACY
from terrain.legacy.models import Batch, Run
from terrain.legacy.reconciling import carry_over, reconcile
from terrain.legacy.schema import Lens
from terrain.pace import Pace
from terrain.pace.governor import Governor, governed
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
    governor: Governor
    done: int = 0
    started: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def seconds(self) -> float:
        """Time at work: what is paused is not."""
        elapsed = time.monotonic() - self.started
        return self.run.seconds + elapsed - self.governor.stopped_seconds

    def advanced(self, rows: int) -> None:
        with self.lock:
            self.done += rows
            progress.report(
                Progress(self.run.step, self.done, self.run.total, self.seconds)
            )


def step_name(table: str) -> str:
    """The name a copy has in the ledger."""
    return f"copy {table}"


def copy(connection: BaseDatabaseWrapper, table: str) -> Run | None:
    """Copy a legacy table, or go on doing so.  None if there is nothing to copy from."""
    if not catalog.has_legacy_tables(connection):
        return None
    with governed(connection, step_name(table)) as governor:
        return _copy(connection, table, governor)


def _copy(connection: BaseDatabaseWrapper, table: str, governor: Governor) -> Run:
    lens = BY_LEGACY[table]
    step = step_name(table)
    found = ledger.last(step, connection.alias)
    if found is None or found.state == Run.State.DONE:
        if catalog.planned(connection, table) <= 0 or not _histogram(connection, table):
            # Of a table never analysed, or not since it was emptied, the planner knows nothing.
            _analyze(connection, sql.legacy_table(table), [lens.key])
        reconcile(connection, lens, governor)
    total = max(catalog.planned(connection, table), 0)
    run = ledger.begin(step, total=total, using=connection.alias)
    types = catalog.types(connection)
    work = Work(
        run,
        lens,
        sql.copy_batch(lens, types, DEFAULT_TABLE_LIMIT),
        sql.copy_batch(lens, types, DEFAULT_TABLE_LIMIT, alone=False),
        governor,
    )
    work.done = sum(run.batches.values_list("rows", flat=True))
    try:
        _copy_in_shards(connection, work, _shards(connection, run, table, total))
    finally:
        progress.make_way()
        run.seconds = work.seconds
        run.rows = work.done
        run.save()
    settle_late(connection, table)
    for made in [lens.new, *([lens.part.table] if lens.part else [])]:
        keys = [name for name, type_ in types[made].items() if type_ == "uuid"]
        _analyze(connection, sql.new_table(made), keys)
    ledger.finish(run)
    return run


def _analyze(connection: BaseDatabaseWrapper, table: str, columns: list[str]) -> None:
    """Tell the planner what the next steps join by; of the rest autovacuum will.

    Looking at the JSON of a sample would take as long as copying it.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"ANALYZE (SKIP_LOCKED) {table}" f" ({sql.joined(map(sql.ident, columns))})"
        )


def _histogram(connection: BaseDatabaseWrapper, table: str) -> list[uuid.UUID] | None:
    """Keys that part a legacy table into pieces of about the same size."""
    found: list[uuid.UUID] | None = catalog.value(
        connection,
        sql.query("quantiles"),
        {"schema": catalog.where(connection).legacy, "table": table},
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
            work.governor.stop.set()
        for future in futures:
            future.result()


def _in_thread(alias: str, work: Work, shard: Shard) -> None:
    connection = connections[alias]  # this thread's own
    try:
        _copy_shard(connection, work, shard)
    finally:
        connection.close()


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
    next_range = sql.next_range(sql.legacy_table(work.lens.legacy))
    while work.governor.turn(connection, pace):
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
            if not _is_smaller_worth_a_try(error):
                raise
            if rows > 1:
                pace.halve()
                work.governor.stop.wait(random.uniform(0, 0.1))
                continue
            _copy_row(connection, work, shard, after, upto, error)
        pace.took(rows, time.monotonic() - started)
        work.advanced(rows)
        after = upto
        settle_late(connection, work.lens.legacy)


def _is_smaller_worth_a_try(error: DatabaseError) -> bool:
    """Whether with fewer rows the batch may do: a row is at fault, or a time-out."""
    timed_out = isinstance(error.__cause__, errors.QueryCanceled)
    return timed_out or locks.is_retried(error) or _is_data_error(error)


def _is_data_error(error: DatabaseError) -> bool:
    """A row is at fault: alone in its batch, it is the one."""
    return isinstance(error.__cause__, errors.DataError | errors.IntegrityError)


def _copy_row(
    connection: BaseDatabaseWrapper,
    work: Work,
    shard: Shard,
    after: uuid.UUID | None,
    key: uuid.UUID,
    error: DatabaseError,
) -> None:
    """A batch of one row that has failed: it takes the time it needs, is held, or late."""

    def copy() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('statement_timeout', '0', true)")
        _copy_range(connection, work, shard, after, key)

    if locks.is_retried(error):
        return _leave_row(connection, work, shard, after, key)
    if not _is_data_error(error):
        try:
            return locks.run_briefly(
                connection,
                copy,
                what=f"Copying {work.lens.legacy} {key}",
                tables=catalog.both(connection, work.lens),
                limit=0,
            )
        except locks.LockNotObtained:
            return _leave_row(connection, work, shard, after, key)
        except DatabaseError as again:
            if not _is_data_error(again):
                raise
    _hold_row(connection, work, shard, after, key)


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


def _leave_row(
    connection: BaseDatabaseWrapper,
    work: Work,
    shard: Shard,
    after: uuid.UUID | None,
    key: uuid.UUID,
) -> None:
    """Go on without a row that somebody else has had locked for long: it is late."""
    with transaction.atomic(using=connection.alias):
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT rebuilt.late(%s, %s, NULL, 'its batch had to wait')",
                [work.lens.legacy, key],
            )
        _store_cursor(connection, work, shard, after, key, 1, 0.0)


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
                f"SELECT pg_try_advisory_xact_lock({sql.copy_lock(shard.number)})"
            )
            (alone,) = cursor.fetchone()
            bounds = {"after": after, "upto": upto}
            cursor.execute(work.batch if alone else work.batch_with_row_locks, bounds)
            seen, _copied, _late = cursor.fetchone()
        _store_cursor(
            connection, work, shard, after, upto, seen, time.monotonic() - started
        )
        work.governor.committing()


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
