"""The one place that takes locks and sets time-outs.

A statement that changes a table's definition needs a lock that conflicts with every other
statement on the table, and everybody who comes after it queues behind it.  So nobody here
waits long for one: the attempt gives up after a moment, steps out of the queue, and is
made again a little later.  See docs/decisions/0007-short-locks.md.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from django.db import DatabaseError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import errors, sql

from terrain.blockers import Mode, who_blocks
from terrain.waiting import Say, Told, done, named

T = TypeVar("T")

#: Milliseconds one attempt waits for its locks at most, and so delays others.
LOCK_TIMEOUT = 100
#: Milliseconds the first attempt at a table waits; each one after it twice as long.
FIRST_TIMEOUT = 5
#: Milliseconds waited for anything else by an attempt that has its first table already.
NEXT_TIMEOUT = 10
#: Seconds after which a command stops trying.
TOTAL_LIMIT = 60.0
#: Seconds between attempts: doubled each time, drawn at random up to this.
LONGEST_PAUSE = 2.0
#: Seconds a single write of the new application goes on trying.
PATIENCE = 3.0

#: Advisory lock: the run of a command that changes the database.
RUN_LOCK = 0x7E44A101
#: Advisory lock, with the number of a table: deletions share it, a batch of a copy has it alone.
COPY_LOCK = 0x7E44A102
#: Advisory lock: summing up what was counted, which two could only do in each other's way.
USAGE_LOCK = 0x7E44A103
#: Advisory lock: a verification, which reads and needs no other command to stand still.
VERIFY_LOCK = 0x7E44A104

_RETRIED = (
    errors.LockNotAvailable,
    errors.DeadlockDetected,
    errors.SerializationFailure,
)


class LockNotObtained(DatabaseError):
    """The locks a step needs were held by others until the limit; nothing was changed.

    ``what`` could not be done within ``limit`` seconds, ``in_the_way`` names the others.
    """

    def __init__(self, what: str, limit: float, in_the_way: str) -> None:
        super().__init__(
            f"{what} could not get its lock within {limit:.0f} s. In the way: {in_the_way}."
            " Nothing was changed by this step; run the same command again to go on."
        )
        self.what = what
        self.limit = limit
        self.in_the_way = in_the_way

    def of(self, what: str) -> LockNotObtained:
        """The same of something that is better known."""
        return LockNotObtained(what, self.limit, self.in_the_way)


def is_retried(error: BaseException) -> bool:
    """Whether the same statement may succeed if it is simply run again."""
    return isinstance(error.__cause__ or error, _RETRIED)


@contextmanager
def lock_timeout(connection: BaseDatabaseWrapper, milliseconds: int) -> Iterator[None]:
    """Within the current transaction, wait no longer than this for any lock."""
    _wait_at_most(connection, milliseconds)
    yield


def _wait_at_most(connection: BaseDatabaseWrapper, milliseconds: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT set_config('lock_timeout', %s, true)", [f"{milliseconds}ms"]
        )


def patiently(using: str, action: Callable[[], T], limit: float = PATIENCE) -> T:
    """Run ``action`` in a transaction, and again if it had to give way to somebody else.

    For a write of the new application: it yields at once to the old one, so that nobody
    waits for it between attempts.  Within a transaction it runs just once, because only the
    whole transaction can be done again.  ``using`` names the connection, ``limit`` is
    seconds; then what was raised last is raised.
    """
    connection = connections[using]
    if connection.in_atomic_block:
        return action()
    deadline = time.monotonic() + limit
    while True:
        try:
            with transaction.atomic(using=using):
                return action()
        except DatabaseError as error:
            if not is_retried(error) or time.monotonic() > deadline:
                raise
        time.sleep(random.uniform(0, 0.1))


# --- briefly -------------------------------------------------------------------------------


def run_briefly(
    connection: BaseDatabaseWrapper,
    action: Callable[[], T],
    *,
    what: str,
    tables: tuple[str, ...] = (),
    mode: Mode | None = None,
    limit: float | None = None,
    say: Say | None = None,
    also: tuple[type[Exception], ...] = (),
) -> T:
    """Run ``action`` in a transaction of its own that never waits long for a lock.

    It is retried for lock-not-available, deadlock and serialization failures only, and
    for errors of psycopg that are in ``also``, after random, growing pauses.  With a
    ``mode`` all ``tables`` (qualified names; those that are not there are passed over, and
    views) are locked before ``action`` runs; without, they are only asked about.  Raises
    :class:`LockNotObtained`, naming who was in the way, when ``limit`` seconds have passed
    (:data:`TOTAL_LIMIT`).  Within a transaction it runs ``action`` once and leaves the rest
    to whoever has begun that: trying again would keep what it has locked already.
    """
    if connection.in_atomic_block:
        return action()
    limit = TOTAL_LIMIT if limit is None else limit
    deadline = time.monotonic() + limit
    told = Told(what, say)
    attempt = _Attempt(connection, list(tables), mode)
    pause = 0.05
    while True:
        try:
            with transaction.atomic(using=connection.alias):
                attempt.lock()
                result = action()
        except DatabaseError as error:
            if not is_retried(error) and not isinstance(error.__cause__, also):
                raise
            blockers = who_blocks(connection, tables, mode)
            if time.monotonic() > deadline:
                raise LockNotObtained(what, limit, named(blockers)) from error
            told.waits_for(blockers)
        else:
            if mode is not None:
                attempt.tell(what, told.began)
            return result
        time.sleep(random.uniform(0, pause))
        pause = min(pause * 2, LONGEST_PAUSE)


@dataclass
class _Attempt:
    """How long is waited for which lock: the first time hardly, then longer.

    Who waits holding nothing delays only those who come to the same table after it.  So
    the wait is for the first table, the others are to be had almost at once; and the one
    that was not is the first next time.
    """

    connection: BaseDatabaseWrapper
    tables: list[str]
    mode: Mode | None
    timeout: int = FIRST_TIMEOUT
    number: int = 0
    locked_at: float = 0.0

    def tell(self, what: str, began: float) -> None:
        """Let others know how long it took, once it is committed."""
        now = time.monotonic()
        done.send(
            sender=None,
            connection=self.connection,
            what=what,
            seconds=now - self.locked_at,
            waited=self.locked_at - began,
            attempts=self.number,
        )

    def lock(self) -> None:
        """Take the locks, within the attempt's transaction."""
        self.number += 1
        self.locked_at = 0.0
        if self.mode is None:
            _wait_at_most(self.connection, LOCK_TIMEOUT)
            return
        there = [table for table in self.tables if self._can_be_locked(table)]
        self._get_vacuum_out_of_the_way(there)
        timeout, self.timeout = self.timeout, min(self.timeout * 2, LOCK_TIMEOUT)
        for table in there:
            _wait_at_most(self.connection, timeout)
            try:
                self._lock(table, self.mode)
            except DatabaseError:
                self.tables.remove(table)
                self.tables.insert(0, table)
                raise
            self.locked_at = self.locked_at or time.monotonic()
            timeout = NEXT_TIMEOUT
        self.locked_at = self.locked_at or time.monotonic()
        _wait_at_most(self.connection, timeout)

    def _get_vacuum_out_of_the_way(self, tables: list[str]) -> None:
        """Wait behind whoever vacuums, where nobody has to wait behind us.

        An autovacuum makes way for who has waited for ``deadlock_timeout`` (1 s).  The lock
        that it has itself is enough to make it, and lets reads and writes pass, also while
        it is waited for.  Had here, no other vacuum can begin before the attempt ends.
        """
        _wait_at_most(self.connection, self._deadlock_timeout() + 1000)
        for table in tables:
            self._lock(table, Mode.SHARE_UPDATE_EXCLUSIVE)

    def _deadlock_timeout(self) -> int:
        found: int = self._value(
            "SELECT setting::int FROM pg_settings WHERE name = 'deadlock_timeout'"
        )
        return found

    def _can_be_locked(self, table: str) -> bool:
        """A view would have what it is made from locked as well."""
        kind = "SELECT relkind IN ('r', 'p') FROM pg_class WHERE oid = to_regclass(%s)"
        return bool(self._value(kind, table))

    def _value(self, query: str, *params: str) -> Any:
        with self.connection.cursor() as cursor:
            cursor.execute(query, params or None)
            row = cursor.fetchone()
        return row[0] if row else None

    def _lock(self, table: str, mode: Mode) -> None:
        name = sql.Identifier(*table.split("."))
        with self.connection.cursor() as cursor:
            cursor.execute(sql.SQL(f"LOCK TABLE {{}} IN {mode} MODE").format(name))


# --- one run at a time ---------------------------------------------------------------------


class Busy(Exception):
    """Another command is at work on this database."""


@contextmanager
def exclusive(connection: BaseDatabaseWrapper, lock: int = RUN_LOCK) -> Iterator[None]:
    """Be the only command that changes this database; raises :class:`Busy`.

    ``lock`` may be another one than the run's, of what goes on beside it.

    An advisory lock of the session, so it goes when the process does, however it ends.
    It may be taken again by the same connection.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [lock])
        (is_ours,) = cursor.fetchone()
    if not is_ours:
        raise Busy(_who_is_running(connection, lock))
    try:
        yield
    finally:
        if connection.connection is not None and not connection.connection.closed:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [lock])


def at_work(connection: BaseDatabaseWrapper, lock: int = RUN_LOCK) -> list[str]:
    """Each other session that holds the lock of a run (or another), in words; taking nothing."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT a.pid, a.usename, a.application_name, a.backend_start"
            "  FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
            " WHERE l.locktype = 'advisory' AND l.granted"
            "   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            "   AND l.objid = %s AND l.classid = 0 AND l.pid <> pg_backend_pid()",
            [lock],
        )
        found = cursor.fetchall()
    return [
        (
            f"process {pid} of the server ({application or 'unnamed'}, role {role},"
            f" connected since {since:%H:%M:%S} UTC)"
            if since is not None  # hidden from a plain owner, if another role's
            else f"process {pid} of the server (role {role})"
        )
        for pid, role, application, since in found
    ]


def _who_is_running(connection: BaseDatabaseWrapper, lock: int) -> str:
    who = "; ".join(at_work(connection, lock))
    return (
        f"Another command is at work on this database: {who or 'it has just ended'}."
        " Wait for it, or look with: python manage.py migration_status"
    )
